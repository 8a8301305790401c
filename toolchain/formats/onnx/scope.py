"""What a lowering rule writes to: the nodes and initializers of one ONNX graph, in order.

A quantized tensor is stored as integers under the graph's own name. An op between quantized tensors is
written in QDQ form, as the ONNX operators define it,

    q_out = QuantizeLinear(op(DequantizeLinear(q_in, scale, zero_point), ...), scale, zero_point)

which onnxruntime executes as one integer kernel. Auxiliary tensors are named `tensor/suffix`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto, helper

from toolchain.formats.onnx.gates import Order, gate_orders, reordered, reordered_params
from toolchain.formats.onnx.kernels import inputs_first, inputs_first_params, transposed_kernels
from toolchain.formats.onnx.wire import SMALLEST_BYTES
from toolchain.graph import RECURRENT, WEIGHTED, DType, Graph, weight_inputs
from toolchain.quantization import AffineParams, QuantizedGraph, pack_int4

UINT8_SHIFT = 128
"""What is added to int8 integers and zero points where a file stores them as uint8."""

_SHIFTS = {(DType.INT8, DType.UINT8): UINT8_SHIFT, (DType.INT16, DType.UINT16): 32768}

ELEMENT_TYPES = {dtype: helper.np_dtype_to_tensor_dtype(dtype.numpy) for dtype in DType} | {
    DType.INT4: TensorProto.INT4
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file: integers of `params` as the file stores them, or float where there are none."""

    name: str
    params: AffineParams | None = None


@dataclass
class Scope:
    """An ONNX graph being written, straight into `proto`, as protobuf copies what is put together later.

    `stored` gives every tensor of `graph` its tensor in the file.
    """

    proto: GraphProto
    graph: Graph
    stored: Mapping[str, Tensor]
    model: QuantizedGraph
    opset: int
    float_nodes: Collection[str] = ()
    qdq_only: bool = False
    """Whether every op on integers is in QDQ form, also where onnxruntime's CPU has an integer kernel for another."""
    large: dict[str, np.ndarray] = field(default_factory=dict)
    """Values of the constants that are too large to be copied into `proto`, by their names in the file."""
    transposed: Mapping[str, int] = field(init=False)
    """Weights that the file holds with input channels first, and their groups."""
    gates: Mapping[str, Order] = field(init=False)
    """Weights and biases of recurrent layers that the file holds as ONNX has them."""
    shared: dict[tuple[object, ...], tuple[str, ...]] = field(default_factory=dict)
    """Results of a node of the file that several nodes of the graph take theirs from, by whatever tells them apart."""
    _constants: set[str] = field(default_factory=set)
    _recurrent_weights: set[str] = field(default_factory=set)
    _real: dict[str, str] = field(default_factory=dict)
    _auxiliary_names: dict[str, str] = field(default_factory=dict)
    _tensor_names: set[str] = field(default_factory=set)
    _node_names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._tensor_names = set(self.graph.types) | {tensor.name for tensor in self.stored.values()}
        self.transposed = transposed_kernels(self.graph, {name: t.params for name, t in self.stored.items()})
        self.gates = gate_orders(self.graph)
        recurrent = [node for node in self.graph.nodes if node.op in RECURRENT]
        self._recurrent_weights = {node.inputs[at] for node in recurrent for at in weight_inputs(node.op)}

    def tensor(self, name: str) -> Tensor:
        """The file's tensor for the graph's tensor `name`; a constant is stored when first asked for."""
        tensor = self.stored[name]
        if not self.graph.is_constant(name):
            return tensor
        dtype = self.model.stored_dtype(name) if tensor.params is None else tensor.params.dtype
        if name not in self._constants:
            self._constants.add(name)
            self._add_initializer(tensor.name, self.held(name, tensor), dtype)
        is_widened = dtype is DType.FLOAT16 and self.graph.types[name].dtype is DType.FLOAT32
        return Tensor(self._cast(tensor)) if is_widened else tensor

    def held(self, name: str, tensor: Tensor) -> np.ndarray:
        """What the file holds for the constant `name`."""
        return held_values(self.model, name, tensor, self.transposed, self.gates)

    def auxiliary(self, of: str, suffix: str, params: AffineParams | None = None) -> Tensor:
        """A new tensor named after the graph's tensor `of`."""
        return Tensor(_claim(f"{of}/{suffix}", self._tensor_names), params)

    def real(self, tensor: Tensor) -> str:
        """Name of the float tensor that holds the values of `tensor`."""
        if tensor.params is None:
            return tensor.name
        if tensor.name not in self._real:
            self._real[tensor.name] = self.auxiliary(tensor.name, "real").name
            if tensor.name in self._recurrent_weights or not self.model.has_integer_activations:
                self._scale_weight(tensor, self._real[tensor.name])
            elif tensor.params.dtype is DType.INT4:
                self.dequantize(self._widened(tensor), self._real[tensor.name])
            else:
                self.dequantize(tensor, self._real[tensor.name])
        return self._real[tensor.name]

    def _scale_weight(self, tensor: Tensor, real: str) -> None:
        """Write `real = float(integers) * scale` of a weight that no integer kernel reads.

        onnxruntime computes that once, as it loads the file; a DequantizeLinear it would compute on every run.
        """
        assert tensor.params is not None
        shape = [1] * (self.graph.constants[tensor.name].ndim + (tensor.name in self.gates))
        if tensor.params.axis is not None:
            shape[tensor.params.axis] = -1
        scale = tensor.params.scale.reshape(shape if tensor.params.axis is not None else ())
        self.emit("Mul", [self._cast(tensor), self.store(f"{tensor.name}/scale", scale)], real)

    def _widened(self, tensor: Tensor) -> Tensor:
        """The int4 weight `tensor` as int8, for which onnxruntime has integer kernels; it widens once, at load."""
        assert tensor.params is not None
        wide = self.auxiliary(tensor.name, "int8", replace(tensor.params, dtype=DType.INT8))
        self.emit("Cast", [tensor.name], wide.name, to=ELEMENT_TYPES[DType.INT8])
        return wide

    def _cast(self, tensor: Tensor) -> str:
        """Name of `tensor` as float32, without its scale."""
        if f"{tensor.name}/float" not in self._real:
            self._real[f"{tensor.name}/float"] = self.auxiliary(tensor.name, "float").name
            to = ELEMENT_TYPES[DType.FLOAT32]
            self.emit("Cast", [tensor.name], self._real[f"{tensor.name}/float"], to=to)
        return self._real[f"{tensor.name}/float"]

    def dequantize(self, tensor: Tensor, real: str) -> None:
        """Write the node that makes the float tensor `real` from the integers of `tensor`."""
        assert tensor.params is not None
        axis: dict[str, Any] = {} if tensor.params.axis is None else {"axis": tensor.params.axis}
        self.emit("DequantizeLinear", [tensor.name, *self._affine_names(tensor)], real, **axis)

    def quantize(self, real: str, tensor: Tensor) -> None:
        """Write the node that makes the integers of `tensor` from the float tensor `real`."""
        self.emit("QuantizeLinear", [real, *self._affine_names(tensor)], tensor.name)

    def is_converted(self, tensor: Tensor) -> bool:
        """Whether a QuantizeLinear or DequantizeLinear tells the scale of `tensor`."""
        return f"{tensor.name}/scale" in self._auxiliary_names

    def _affine_names(self, tensor: Tensor) -> list[str]:
        """Names of scale and zero point; an int32 bias has none, as it is always zero."""
        assert tensor.params is not None
        names = [self.store(f"{tensor.name}/scale", tensor.params.scale)]
        if tensor.params.dtype is not DType.INT32:
            zero_point = tensor.params.zero_point.astype(tensor.params.dtype.numpy)
            names.append(self.store(f"{tensor.name}/zero_point", zero_point))
        return names

    def store(self, name: str, values: np.ndarray) -> str:
        """Store an auxiliary constant as `name`, once; returns the name it got."""
        if name not in self._auxiliary_names:
            unique = self._auxiliary_names[name] = _claim(name, self._tensor_names)
            self._add_initializer(unique, values)
        return self._auxiliary_names[name]

    def _add_initializer(self, name: str, values: np.ndarray, dtype: DType | None = None) -> None:
        element = ELEMENT_TYPES[dtype or DType.of(values)]
        packed = pack_int4(values) if dtype is DType.INT4 else values
        ordered = packed.astype(packed.dtype.newbyteorder("<"), copy=False)
        tensor = self.proto.initializer.add(name=name, data_type=element, dims=values.shape)
        if ordered.nbytes >= SMALLEST_BYTES:
            self.large[name] = ordered
        else:
            tensor.raw_data = ordered.tobytes()

    def store_axis_values(self, name: str, values: Iterable[int]) -> str:
        """Store a shape, axes or other list of int64."""
        return self.store(name, np.asarray(tuple(values), np.int64))

    def apply(
        self,
        op_type: str,
        inputs: Sequence[Tensor | str],
        result: Tensor,
        *,
        name: str = "",
        **attributes: Any,
    ) -> None:
        """Write `result = op(inputs)` on real values, in QDQ form where the tensors are integers.

        A plain name among `inputs` is an auxiliary constant.
        """
        reals = [given if isinstance(given, str) else self.real(given) for given in inputs]
        if result.params is None:
            self.emit(op_type, reals, result.name, name=name, **attributes)
        else:
            real = self.auxiliary(result.name, "unrounded").name
            self.emit(op_type, reals, real, name=name, **attributes)
            self.quantize(real, result)

    def emit(self, op_type: str, inputs: Sequence[str], output: str, *, name: str = "", **attributes: Any) -> None:
        """Write one node as it is, named `name` or after its output."""
        self.emit_many(op_type, inputs, [output], name=name, **attributes)

    def emit_many(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], *, name: str = "", **attributes: Any
    ) -> None:
        """Write one node of several outputs as it is, named `name` or after the first."""
        unique = _claim(name or f"{outputs[0]}/{op_type}", self._node_names)
        self.proto.node.append(helper.make_node(op_type, list(inputs), list(outputs), name=unique, **attributes))


def store_params(
    model: QuantizedGraph, activation_dtype: DType, renamed: Mapping[str, str], wide_dtype: DType = DType.INT16
) -> dict[str, Tensor]:
    """The file's tensor for every tensor of `model`.

    int8 activations take `activation_dtype`, int16 ones `wide_dtype`, and so do constants of binary ops, whose kernels
    want both operands alike.
    """
    kinds = {DType.INT8: activation_dtype, DType.INT16: wide_dtype}
    signed = {name for node in model.graph.nodes if node.op in WEIGHTED | RECURRENT for name in node.inputs[1:5]}
    stored = {}
    for name in model.graph.types:
        params = model.params.get(name)
        if params is not None and name not in signed and params.dtype in kinds:
            params = shift_params(params, kinds[params.dtype])
        if params is not None and params.dtype is DType.INT64:
            params = replace(params, dtype=DType.INT32)
        stored[name] = Tensor(renamed.get(name, name), params)
    for name in transposed_kernels(model.graph, model.params):
        stored[name] = replace(stored[name], params=inputs_first_params(stored[name].params))
    for name, order in gate_orders(model.graph).items():
        stored[name] = replace(stored[name], params=reordered_params(stored[name].params, order))
    return stored


def held_values(
    model: QuantizedGraph, name: str, tensor: Tensor, transposed: Mapping[str, int], gates: Mapping[str, Order]
) -> np.ndarray:
    """What the file holds for the constant `name`."""
    values = model.stored_values(name)
    if name in transposed:
        values = inputs_first(values, transposed[name])
    if name in gates:
        values = reordered(values, gates[name])
    if tensor.params is None:
        return values
    # no DequantizeLinear takes int64, and no bias needs it
    narrow = values.astype(np.int32) if tensor.params.dtype is DType.INT32 else values
    return shift_integers(narrow, tensor.params.dtype)


def shift_params(params: AffineParams, dtype: DType) -> AffineParams:
    """Signed `params` as a file that stores `dtype` has them: the same real values."""
    if dtype is params.dtype:
        return params
    shift = _SHIFTS[params.dtype, dtype]
    q_min, q_max = params.q_min + shift, params.q_max + shift
    return replace(params, dtype=dtype, zero_point=params.zero_point + shift, q_min=q_min, q_max=q_max)


def shift_integers(values: np.ndarray, dtype: DType) -> np.ndarray:
    """int8 to uint8 (+128), int16 to uint16 (+32768), or back, which flips the top bit; unchanged where of `dtype`
    already."""
    pair = {DType.of(values), dtype}
    for (signed, unsigned), shift in _SHIFTS.items():
        if pair == {signed, unsigned}:
            bits = unsigned.numpy.type
            flipped: np.ndarray = (np.asarray(values).view(bits) ^ bits(shift)).view(dtype.numpy)
            return flipped
    return values


def _claim(wanted: str, taken: set[str]) -> str:
    """`wanted`, or `wanted_1`, `wanted_2`, ... whichever is free; taken from now on."""
    name, count = wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name
