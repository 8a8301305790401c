"""What tflite-micro does not take of a file, known before it runs: ops without a kernel, types that kernels lack, and
storage of weights that they would misread without a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from toolchain.formats.tflite.defects import known_defects, resize_drifts
from toolchain.formats.tflite.micro import KERNELS
from toolchain.formats.tflite.parse import Operator, ParsedModel
from toolchain.graph import DType, Finding, Graph, Node, Op

_INT64 = {
    "ARG_MAX": "its indices are int64, tflite-micro gives int32",
    "ARG_MIN": "its indices are int64, tflite-micro gives int32",
    "CAST": "it casts from or to int64",
    "GATHER": "its indices are int64, tflite-micro takes int32",
}
_IN_THE_APPLICATION = "do it in the application's own code, on the model's outputs"
_INSTEAD = {
    "ARG_MAX": _IN_THE_APPLICATION,
    "ARG_MIN": _IN_THE_APPLICATION,
    "CAST": "int32 in- and outputs",
    "GATHER": "give the model int32 indices",
    "EXP": "sigmoid or softmax",
    "GELU": "relu6 or hardswish",
    "POW": "a product, or sqrt",
    "SIGN": "a comparison in the application's own code",
    "TOPK_V2": _IN_THE_APPLICATION,
}


_RESIZE = "a size 2, 4 or 8 times as large, or mode nearest"


@dataclass(frozen=True)
class Refusal:
    """An operator that tflite-micro does not take, or silently computes something else for."""

    operator: str
    name: str
    why: str
    instead: str = ""

    def __str__(self) -> str:
        which = f"{self.operator} {self.name}".strip()
        return f"{which}: {self.why}{f'; instead: {self.instead}' if self.instead else ''}"


def refusals(model: ParsedModel) -> tuple[Refusal, ...]:
    """Everything in the file that tflite-micro has no kernel for, or computes something else for."""
    defects = known_defects(model, "builtin", "ai_edge_litert")  # the same resize is compiled into both
    wrong = [Refusal("RESIZE_BILINEAR", "", defect.removeprefix("RESIZE_BILINEAR "), _RESIZE) for defect in defects]
    return (*(found for operator in model.operators for found in _refused(model, operator)), *wrong)


def _refused(model: ParsedModel, operator: Operator) -> Iterator[Refusal]:
    name, label = operator.name, model.tensors[operator.outputs[0]].name
    read = [model.tensors[index] for index in operator.inputs if index >= 0]
    dtypes = [facts.dtype for facts in (*read, *(model.tensors[index] for index in operator.outputs))]

    def no(why: str, instead: str = "") -> Refusal:
        return Refusal(name, label, why, instead)

    if name not in KERNELS:
        yield no("tflite-micro has no kernel", _INSTEAD.get(name, ""))
    elif name in _INT64 and DType.INT64 in dtypes:
        yield no(_INT64[name], _INSTEAD[name])
    elif name == "EXP" and dtypes[0] is not DType.FLOAT32:
        yield no("its kernel is for float32", _INSTEAD[name])
    for facts in read:
        if facts.is_sparse:
            yield no(
                f"{facts.name} is stored without its zeros, which no kernel reads", 'sparse = "never" in the target'
            )
        elif name == "DEQUANTIZE" and facts.axis is not None:
            yield no(f"it takes the first scale of {facts.name} for those of all channels", 'numbers = "w8a8"')
        elif facts.block is not None:
            yield no(f"{facts.name} has scales of blocks, which no kernel reads", 'numbers = "w8a8"')
    yield from (no(*found) for found in _int4(model, operator))


def _int4(model: ParsedModel, operator: Operator) -> Iterator[tuple[str, str]]:
    """Convolutions take int4 weights beside int8 activations; the rest is refused or, worse, taken for int8."""
    given = model.tensors[operator.inputs[0]]
    weights = [model.tensors[i] for i in operator.inputs[1:] if i in model.values]
    for weight in weights:
        if weight.dtype is DType.INT4 and given.dtype is not DType.INT8:
            yield f"int4 weights beside {given.dtype} activations", 'numbers = "w8a8"'
        elif weight.dtype is DType.INT4 and operator.name == "FULLY_CONNECTED" and weight.axis is not None:
            yield "int4 weights with one scale a channel", 'numbers = "w8a8"'
        elif weight.dtype in (DType.INT8, DType.INT4) and given.dtype.is_float and operator.name in _LAYERS:
            yield f"{weight.dtype} weights beside float activations", 'numbers = "w8a8"'


_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def graph_findings(graph: Graph) -> Iterator[Finding]:
    """What of a graph its file will be refused for, which a profile's lists of ops do not say: indices of int64, and
    sizes that int8 resizes drift on the way to."""
    for node in graph.nodes:
        if node.op is Op.RESIZE and node["mode"] != "nearest":
            before, after = (graph.types[name].shape[2:] for name in (node.inputs[0], node.output))
            if resize_drifts(before, after, int(node["align_corners"])):
                why = f"to {after[0]} x {after[1]} its int8 kernel reads between the wrong pixels"
                yield Finding(f"{node.op} {node.name}", why, node.source, "int8", _RESIZE)
        if node.op in (Op.GATHER, Op.GATHER_ELEMENTS) and _reads_int64(graph, node):
            dtype = graph.types[node.output].dtype.value
            yield Finding(f"{node.op} {node.name}", _INT64["GATHER"], node.source, dtype, _INSTEAD["GATHER"])


def _reads_int64(graph: Graph, node: Node) -> bool:
    index = node.inputs[1]
    return not graph.is_constant(index) and graph.types[index].dtype is DType.INT64
