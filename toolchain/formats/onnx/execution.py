"""What onnxruntime computes in float: found from the graph it saves after its optimizations.

A file whose constants are all integers is still executed in float where the runtime has no integer kernel for
a group of DequantizeLinear, op and QuantizeLinear. Those groups are counted here.
"""

from __future__ import annotations

from collections import Counter

from onnx import ModelProto, NodeProto

from toolchain.formats.onnx.reader import element_dtype

_INTEGER_RESULTS = ("QuantizeLinear", "QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_FLOAT_RESULTS = ("DequantizeLinear", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
_QGEMM_INTEGER_INPUTS = 8  # with fewer there is no result scale, and the result is float


def float_ops(optimized: ModelProto) -> dict[str, int]:
    """Nodes that read or make float activations, counted by op type.

    A QuantizeLinear of a graph input and a DequantizeLinear that makes a graph output are the file's
    interface and not counted.
    """
    graph = optimized.graph
    floats = _float_tensors(optimized)
    constants = {tensor.name for tensor in graph.initializer}
    inputs, outputs = {value.name for value in graph.input}, {value.name for value in graph.output}
    counted: Counter[str] = Counter()
    for node in graph.node:
        reads = _activation_input(node, constants)
        is_interface = (node.op_type == "QuantizeLinear" and reads in inputs) or (
            node.op_type == "DequantizeLinear" and node.output[0] in outputs
        )
        if (reads in floats or node.output[0] in floats) and not is_interface:
            counted[node.op_type] += 1
    return dict(sorted(counted.items()))


def _activation_input(node: NodeProto, constants: set[str]) -> str:
    return next((name for name in node.input if name not in constants), "")


def _float_tensors(model: ModelProto) -> set[str]:
    """Float activations, by following the element type from the graph's inputs on."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    elements = {value.name: element_dtype(value.type.tensor_type.elem_type) for value in graph.input}
    floats = {name for name, dtype in elements.items() if dtype is not None and dtype.is_float}
    for node in graph.node:
        if _makes_floats(node, _activation_input(node, constants) in floats):
            floats.update(node.output)
    return floats


def _makes_floats(node: NodeProto, reads_floats: bool) -> bool:
    if node.op_type.startswith(_FLOAT_RESULTS):
        return True
    if node.op_type.startswith(_INTEGER_RESULTS):
        return False
    if node.op_type == "QGemm":
        return len(node.input) < _QGEMM_INTEGER_INPUTS or not node.input[_QGEMM_INTEGER_INPUTS - 1]
    return reads_floats
