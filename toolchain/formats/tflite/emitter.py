"""What a lowering works with: the node's inputs in the wanted layout, its result, and operators to emit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.flatbuffer import ModelBuilder, Operand
from toolchain.formats.tflite.layout import Layout, Move, plan_moves
from toolchain.formats.tflite.layout_rules import LayoutPlan, Placement
from toolchain.formats.tflite.names import FileNames
from toolchain.formats.tflite.sparse_plan import SparsePlan
from toolchain.formats.tflite.versions import lowest_version
from toolchain.graph import DType, Graph, Node, Op
from toolchain.quantization import AffineParams


@dataclass(frozen=True)
class Numbers:
    """Parameters of the tensors that are integers in the file, what it holds for a constant, and the nodes (by their
    output) that compute in float all the same. `weights_only`: no activation is an integer. `on_reals`: nodes that
    compute with no integer weight either. `sparse`: what is stored without its zeros."""

    params: Mapping[str, AffineParams]
    stored: Callable[[str], np.ndarray]
    float_nodes: Collection[str] = ()
    weights_only: bool = False
    on_reals: Collection[str] = ()
    sparse: SparsePlan = SparsePlan()


class Emitter:
    """Turns nodes into operators of one file; each node is emitted once, in evaluation order."""

    def __init__(
        self, graph: Graph, numbers: Numbers, plan: LayoutPlan, names: FileNames, builder: ModelBuilder
    ) -> None:
        self.graph = graph
        self.numbers = numbers
        self.plan = plan
        self.builder = builder
        self.aliases: dict[str, str] = {}
        """Tensors of the graph whose values another tensor of the file holds, by that tensor's name."""
        self._names = names
        self._operands: dict[str, Operand] = {}
        self._moved: dict[tuple[int, Layout, Layout, tuple[int, ...]], Operand] = {}
        self._constants: dict[tuple[str, Layout], Operand] = {}
        self._real: dict[int, Operand] = {}
        self._leaving: list[tuple[Operand, Operand]] = []

    # tensors of the graph

    def declare(self, name: str) -> Operand:
        """Declare the activation `name` as the plan has it."""
        kind, layout = self.graph.types[name], self.plan.layouts[name]
        params = self.numbers.params.get(name)
        dtype = params.dtype if params else kind.dtype
        operand = self.builder.add_tensor(self._names.of(name), layout.shape(kind.shape), dtype, params)
        return self.bind(name, operand)

    def bind(self, name: str, operand: Operand) -> Operand:
        """Say which tensor of the file holds the activation `name`."""
        self._operands[name] = operand
        self.aliases.pop(name, None)
        if operand.name != name:
            self.aliases[name] = operand.name
        return operand

    def needs_copy(self, node: Node) -> bool:
        """Whether the result of a permute must be a tensor of its own."""
        return node.output in self._names.copied

    def operand(self, name: str) -> Operand:
        """The tensor that holds the activation `name`, in the layout of the plan."""
        return self._operands[name]

    def result(self, node: Node) -> Operand:
        """Where the lowering puts the node's result: the activation, or a float tensor that is then quantized into
        it."""
        declared = self.declare(node.output)
        if node.output not in self.numbers.float_nodes or declared.params is None:
            return declared
        unrounded = self.builder.add_tensor(f"{declared.name}/unrounded", declared.shape, DType.FLOAT32, None)
        self._leaving.append((unrounded, declared))
        return unrounded

    def leave_island(self) -> None:
        """Quantize what float nodes have computed since the last call."""
        for unrounded, declared in self._leaving:
            self.emit(Builtin.QUANTIZE, [unrounded], declared, schema.QuantizeOptionsT())
        self._leaving.clear()

    def real(self, operand: Operand) -> Operand:
        """The float32 tensor that holds the values of `operand`, converted once however often it is asked for."""
        if operand.params is None and operand.dtype is not DType.FLOAT16:
            return operand
        if operand.index not in self._real:
            target = self.builder.add_tensor(f"{operand.name}/real", operand.shape, DType.FLOAT32, None)
            self._real[operand.index] = self.emit(Builtin.DEQUANTIZE, [operand], target, schema.DequantizeOptionsT())
        return self._real[operand.index]

    def placement(self, node: Node) -> Placement:
        return self.plan.placements[node.output]

    def inputs(self, node: Node) -> list[Operand]:
        """The inputs that are activations or like them, moved to the layout the node wants them in; dequantized for
        a node that computes in float."""
        wanted = zip(node.inputs, self.placement(node).wanted, strict=True)
        placed = [self._placed(name, layout) for name, layout in wanted if layout is not None]
        return [self.real(operand) for operand in placed] if node.output in self.numbers.float_nodes else placed

    def _placed(self, name: str, wanted: Layout) -> Operand:
        shape = self.graph.types[name].shape
        expanded = (1,) * (wanted.rank - len(shape)) + shape
        if self.graph.is_constant(name):
            return self.constant(name, wanted, expanded)
        have = self.plan.layouts[name].expanded(wanted.rank)
        return self.moved(self.operand(name), have, wanted, expanded)

    def moved(
        self, operand: Operand, have: Layout, wanted: Layout, shape: Sequence[int], name: str | None = None
    ) -> Operand:
        """`operand`, a tensor of logical `shape`, in another layout; the same moves are made once."""
        key = (operand.index, have, wanted, tuple(shape))
        if key not in self._moved:
            moves = plan_moves(have, wanted, shape)
            if operand.shape != have.shape(shape) and (not moves or moves[0].permutation):
                moves = [Move(have.shape(shape)), *moves]
            for step, move in enumerate(moves):
                named = name if step == len(moves) - 1 else None
                operand = self._move(operand, move, named)
            self._moved[key] = operand
        return self._moved[key]

    def _move(self, source: Operand, move: Move, name: str | None) -> Operand:
        if move.permutation is None:
            target = self.temporary(name or f"{source.name}/reshaped", move.shape, source)
            return self.reshape_into(source, target)
        target = self.temporary(name or f"{source.name}/transposed", move.shape, source)
        order = self.vector(f"{target.name}/permutation", move.permutation)
        return self.emit(Builtin.TRANSPOSE, [source, order], target, schema.TransposeOptionsT())

    # constants

    def constant(
        self, name: str, layout: Layout, shape: Sequence[int] | None = None, *, is_native: bool = False
    ) -> Operand:
        """The graph's constant `name`, viewed as `shape` where that is given, in a layout of the file; `is_native` as
        in `add_constant`."""
        if (name, layout) not in self._constants:
            params = self.numbers.params.get(name)
            values = self.numbers.stored(name)
            values = layout.to_physical(values if shape is None else values.reshape(shape))
            if params is not None and params.axis is not None:
                params = replace(params, axis=layout.axis(params.axis))
            self._constants[name, layout] = self.add_constant(name, values, params, is_native=is_native)
        return self._constants[name, layout]

    def add_constant(
        self, name: str, values: np.ndarray, params: AffineParams | None = None, *, is_native: bool = False
    ) -> Operand:
        """A constant of these values, or the float32 tensor that a DEQUANTIZE makes of it: of float16, and of integers
        beside float activations unless the operator has a kernel for the two (`is_native`). One stored without its
        zeros is what a DENSIFY makes of it first. Runtimes do both at load."""
        dtype, is_sparse = params.dtype if params else DType.of(values), name in self.numbers.sparse.weights
        operand = self.builder.add_tensor(name, values.shape, dtype, params, values, is_sparse=is_sparse)
        if is_sparse:
            dense = self.builder.add_tensor(f"{name}/dense", values.shape, dtype, params)
            operand = self.emit(Builtin.DENSIFY, [operand], dense, schema.DensifyOptionsT())
        is_read_as_it_is = params is not None and (is_native or not self.numbers.weights_only)
        return operand if is_read_as_it_is else self.real(operand)

    def vector(self, name: str, values: Sequence[int] | Sequence[Sequence[int]]) -> Operand:
        """An int32 constant that parametrizes an operator."""
        return self.add_constant(name, np.asarray(values, np.int32))

    # operators

    def temporary(self, name: str, shape: Sequence[int], like: Operand) -> Operand:
        """A tensor the graph does not have, of the type and parameters of `like`."""
        return self.builder.add_tensor(name, shape, like.dtype, like.params)

    def emit(self, code: int, inputs: Sequence[Operand], output: Operand, options: Any = None) -> Operand:
        """Append one operator, of the lowest version that holds it, and give its output."""
        if hasattr(options, "potScaleInt16"):
            options.potScaleInt16 = False  # the schema's default is for scales that are powers of two
        version = lowest_version(code, inputs, output, options)
        self.builder.add_operator(code, version, inputs, [output], options)
        return output

    def emit_several(self, code: int, inputs: Sequence[Operand], outputs: Sequence[Operand], options: Any) -> None:
        """Append one operator of several results."""
        self.builder.add_operator(code, lowest_version(code, inputs, outputs[0], options), inputs, outputs, options)

    def reshape_into(self, source: Operand, target: Operand) -> Operand:
        options = schema.ReshapeOptionsT(newShape=np.asarray(target.shape, np.int32))
        inputs = [source, self.vector(f"{target.name}/shape", target.shape)]
        return self.emit(Builtin.RESHAPE, inputs, target, options)

    # facts about values

    def is_non_negative(self, name: str) -> bool:
        """Whether the activation `name` is known to hold no value below zero."""
        if params := self.numbers.params.get(name):
            return params.bounds[0] >= 0
        producer = self.graph.producers.get(name)
        if producer is None:
            return False
        return producer.op in _NON_NEGATIVE or producer.attributes.get("activation", "none") != "none"


_NON_NEGATIVE = frozenset({Op.RELU, Op.RELU6, Op.SIGMOID, Op.SOFTMAX})

ACTIVATIONS: Final = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}

Lowering: TypeAlias = Callable[[Emitter, Node], None]
