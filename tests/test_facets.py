"""The closed set of ops times the facets each must have: what is missing is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.compress.channels.rules import CHANNEL_RULES
from toolchain.engine.evaluate import ACTIVATE, EVALUATIONS
from toolchain.formats.onnx import ONNX_LOWERINGS
from toolchain.formats.tflite import TFLITE_LOWERINGS
from toolchain.graph import WEIGHTED, Op
from toolchain.graph.cost import COST_RULES
from toolchain.graph.ops import ACTIVATIONS, SIGNATURES
from toolchain.graph.shapes import SHAPE_RULES
from toolchain.quantization import QUANTIZATION_RULES, Kind

FACETS = {
    "signature": SIGNATURES,
    "shape": SHAPE_RULES,
    "cost": COST_RULES,
    "torch evaluation": EVALUATIONS,
    "channel": CHANNEL_RULES,
    "quantization": QUANTIZATION_RULES,
    "ONNX lowering": ONNX_LOWERINGS,
    "TFLite lowering": TFLITE_LOWERINGS,
}


@pytest.mark.parametrize("facet", FACETS)
@pytest.mark.parametrize("op", Op)
def test_every_op_has_every_facet(op, facet):
    assert op in FACETS[facet], f"{op} has no {facet} facet: add a line to its table"


@pytest.mark.parametrize("facet", FACETS)
def test_no_facet_holds_what_is_no_op(facet):
    assert set(FACETS[facet]) <= set(Op), f"{facet}: {set(FACETS[facet]) - set(Op)}"


@pytest.mark.parametrize("op", Op)
def test_every_op_goes_through_every_executor_in_a_test_file_of_its_own(op):
    assert (Path(__file__).parent / f"ops/test_{op}.py").is_file(), f"{op} has no tests/ops/test_{op}.py"


@pytest.mark.parametrize("op", Op)
def test_weighted_ops_are_the_same_in_every_table(op):
    assert (op in WEIGHTED) == (QUANTIZATION_RULES[op].kind is Kind.WEIGHTED)
    assert (op in WEIGHTED) == (SIGNATURES[op].inputs == ("input", "weight", "bias?"))


def test_every_fused_activation_can_be_evaluated_and_is_an_op():
    assert set(ACTIVATE) == set(ACTIVATIONS)
    assert {Op(name) for name in ACTIVATIONS if name != "none"} == {Op.RELU, Op.RELU6}
