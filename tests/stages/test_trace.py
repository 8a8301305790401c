"""The trace stage: example inputs in order, by name and nested; models from tokens to scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.errors import OptionError
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.export import Export
from toolchain.stages.inputs import sample_inputs
from toolchain.stages.quantize import Quantize
from toolchain.stages.recover import Recover
from toolchain.stages.trace import Trace
from toolchain.targets import Gates
from toolchain.validation.validate import validate


class Tokens(nn.Module):
    """Tokens (N, T), a mask (N, T) and a picture (N, 3, H, W) of bytes -> scores, their best and the tokens again."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, mask, tokens, picture):
        x = self.table(tokens) * mask.unsqueeze(-1)
        x = x.mean(1) + picture.float().mean((2, 3))[:, :1] / 255
        scores = self.head(x)
        return {"scores": scores, "positive": scores > 0, "tokens": tokens}


def values(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "tokens": random.integers(0, 20, (count, 6)),
        "picture": random.integers(0, 255, (count, 3, 4, 4)).astype(np.uint8),
        "mask": random.random((count, 6)) > 0.3,
    }


def test_samples_by_name_are_forwards_arguments():
    samples = samples_from(values(24), calibration_count=16, judging_count=8)
    model = Tokens()
    traced = Trace(example_inputs=sample_inputs(model, samples))(model)
    assert traced.graph.input_names == ("tokens", "picture", "mask")
    assert [value.type.dtype for value in traced.graph.inputs] == ["int64", "uint8", "bool"]
    exported = Export(float_files=True)(Quantize()(Calibrate(samples=samples)(traced)))
    gates = Gates(op_steps=1, sqnr_db=25, float_error=1e-5, output_share=1.0, output_steps=1)
    found = validate(exported, samples, gates)
    assert found.missed == ()
    assert {tensor.name for tensor in found.tensors} >= {"tokens", "mask", "picture"}


def test_indices_and_booleans_among_the_outputs_do_not_keep_a_model_from_being_trained():
    samples = samples_from(values(24), calibration_count=16, judging_count=8)
    model = Tokens()
    calibrated = Calibrate(samples=samples)(Trace(example_inputs=sample_inputs(model, samples))(model))
    recovered = Recover(samples=samples, epochs=1)(Quantize()(calibrated))
    assert recovered.history[-1].stage == "recover"


def test_names_that_are_not_forwards_leave_the_order():
    samples = samples_from({f"input_{name}": array for name, array in values(10).items()})
    assert isinstance(sample_inputs(Tokens(), samples), tuple)


def test_options_tell_shapes_and_types_where_they_were_given():
    x = np.zeros((1, 3))
    stage = Trace(example_inputs={"x": x, "more": [torch.zeros(1, 2, dtype=torch.int32), (None, 2)]})
    described = {"x": ["float32", [1, 3]], "more": [["int32", [1, 2]], [None, 2]]}
    assert stage.options() == {"example_inputs": described, "unroll_recurrent": False}


def test_lists_of_numbers_are_arrays():
    traced = Trace(example_inputs=([[1.0, 2.0]],))(nn.Linear(2, 3))
    assert traced.graph.inputs[0].type.shape == (1, 2)


def test_what_is_no_array_is_refused():
    with pytest.raises(OptionError, match="of type object"):
        Trace(example_inputs=(object(),)).options()
