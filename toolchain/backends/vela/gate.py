"""What falls off the NPU, known before Vela runs.

The folded graph is quantized with ranges that do not matter and written as a TFLite file, so that the operators that
are held against the compiler's tables of constraints are those that will be compiled: with the transposes, pads and
splits that the writer adds. Each finding names the node of the graph that an operator came from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Final

from toolchain.backends.vela.constraints import find_clashes
from toolchain.backends.vela.cures import cure, node_of
from toolchain.backends.vela.operators import ARITHMETIC, FileOperator, read_operators
from toolchain.formats.artifact import SparseWeights
from toolchain.formats.tflite import write_tflite
from toolchain.graph import DType, Finding, Graph, Source
from toolchain.profiles import DeviceProfile, device_findings
from toolchain.quantization import assign_params

_ANY_RANGE: Final = (-1.0, 1.0)
_DEVICES: Final = {"ethos-u55": "EthosU55", "ethos-u65": "EthosU65", "ethos-u85": "EthosU85"}


@cache
def constraint_table(isa: str) -> Mapping[str, Sequence[str]]:
    """Sentences by operator, of the installed compiler; empty for what it does not know."""
    from ethosu import regor

    table: Mapping[str, Sequence[str]] = regor.tflite_operator_constraints(_DEVICES[isa]) if isa in _DEVICES else {}
    return table


def find(graph: Graph, profile: DeviceProfile) -> tuple[Finding, ...]:
    """A finding for each operator that the NPU does not take, but for nodes that the profile's own rules name.

    Raises UnsupportedError where the graph cannot be written as a TFLite file.
    """
    table = constraint_table(profile.compute.isa)
    if not table:
        return ()
    told = {finding.op for finding in device_findings(graph, profile)}
    scheme = replace(profile.scheme, float_islands=True)
    model = assign_params(graph, dict.fromkeys(graph.activations, _ANY_RANGE), scheme)
    operators = read_operators(write_tflite(model, sparse=SparseWeights.NEVER))
    padded = {operator.name for operator in operators if operator.op == "PAD"}
    found: list[Finding] = []
    for operator in operators:
        if not _converts(operator):
            clashes = [*find_clashes(operator, table), *_fatal_clashes(operator, padded, table)]
            found += [_finding(why, operator, model.graph, profile) for why in clashes]
    return tuple(finding for finding in found if finding.op not in told)


def _converts(operator: FileOperator) -> bool:
    """Whether it stands at the rim of a part that computes in float, whose own operators are findings."""
    kinds = {facts.dtype.is_float for facts in (*operator.feature_maps, *operator.outputs)}
    return operator.op in ("QUANTIZE", "DEQUANTIZE") and len(kinds) > 1


def _fatal_clashes(
    operator: FileOperator, padded: Collection[str], table: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """What the tables take and Vela ends with an error on: a pad that it makes part of the convolution behind it,
    which then breaks the rule on strides, and arithmetic on whole numbers of 64 bits."""
    known = set(find_clashes(operator, table))
    if operator.op == "CONV_2D" and operator.feature_maps[0].name in padded:
        joined = replace(operator, attributes={**operator.attributes, "padding": -1})
        yield from set(find_clashes(joined, table)) - known
    if operator.op in (*ARITHMETIC, "SELECT", "SELECT_V2") and not known:
        wide = [facts.name for facts in operator.feature_maps if facts.dtype is DType.INT64]
        if wide:
            yield f"{wide[0]} is int64, of which the compiler dies"


def _finding(why: str, operator: FileOperator, graph: Graph, profile: DeviceProfile) -> Finding:
    node = node_of(graph, operator.name)
    return Finding(
        op=f"{node.op} {node.name}" if node else f"{operator.op} {operator.name}",
        why=why if why.startswith("the NPU has no") else f"{operator.op}: {why}",
        source=node.source if node else Source(),
        dtype=operator.outputs[0].dtype.value,
        instead=cure(operator.op, why, node, profile),
        blocks=not profile.execution.float_ops,
    )
