"""One op through every executor: eager torch, our own, onnxruntime and LiteRT; in float, and in int8 to a step.

Float results are held to `FLOAT_ERROR` of the output's range. In int8, every node is fed the integers that the runtime
itself fed it and held to one step of its exact meaning, in onnxruntime and in LiteRT with its default and with its
reference kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from toolchain.engine.observe import observe
from toolchain.engine.run import predict
from toolchain.engine.tracing.tracer import trace
from toolchain.errors import UnsupportedError
from toolchain.formats.onnx import OnnxRunner, check_onnx, write_onnx
from toolchain.formats.tflite import TfliteRunner, check_tflite, read_tflite, write_tflite
from toolchain.graph import Graph, Op, fold
from toolchain.quantization import QuantizedGraph, Scheme, assign_params
from toolchain.validation.tensors import compare_tensors

FLOAT_ERROR = 1e-5


class Call(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def normal(*shape: int, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    """Values on both sides of every activation's knees."""
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def traced(module, *inputs: np.ndarray) -> Graph:
    """The folded graph of a module or function."""
    module = module if isinstance(module, nn.Module) else Call(module)
    return fold(trace(module.eval(), inputs))


def eager(module, *inputs: np.ndarray) -> list[np.ndarray]:
    """What torch itself gives, flat."""
    with torch.no_grad():
        found = module(*(torch.from_numpy(np.array(array)) for array in inputs))
    return [tensor.numpy() for tensor in _flat(found)]


def _flat(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in _flat(part)]


def assert_close(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], who: str, error: float) -> None:
    assert len(found) == len(wanted), who
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape, (who, one.shape, other.shape)
        if other.dtype.kind == "f":
            assert np.abs(one - other).max(initial=0) <= error * max(1.0, np.abs(other).max(initial=0)), who
        else:
            np.testing.assert_array_equal(one, other, err_msg=who)


def check(
    module, *inputs: np.ndarray, ops: set[Op] | None = None, int8: bool = True, error: float = FLOAT_ERROR
) -> Graph:
    """Every executor on `inputs`. `ops` are those the folded graph must hold; `int8=False` where nothing is float."""
    graph = traced(module, *inputs)
    wanted = eager(module, *inputs)
    if ops is not None:
        assert {node.op for node in graph.nodes} >= ops, graph.nodes
    assert_close(predict(graph, [inputs]), wanted, "executor", error)
    onnx, tflite = write_onnx(graph), write_tflite(graph)
    assert check_onnx(onnx, graph) == [] and check_tflite(tflite, graph) == []
    for runner in (OnnxRunner(onnx, graph), TfliteRunner(tflite), *reference_runners(tflite)):
        assert_close(runner.run(inputs), wanted, runner.name, error)
    if int8:
        check_int8(graph, *inputs)
    return graph


def reference_runners(tflite: bytes) -> list[TfliteRunner]:
    """The reference kernels, where there are all that the file needs and they can be trusted with it."""
    try:
        return [TfliteRunner(tflite, kernels="reference")]
    except UnsupportedError as error:
        assert "cannot be trusted" in str(error) or any(
            f"opcode '{code}'" in str(error) for code in ("ELU", "CEIL", "ROUND")
        )
        return []


def quantized(graph: Graph, *inputs: np.ndarray, scheme: Scheme | None = None) -> QuantizedGraph:
    """`graph` with the ranges of these inputs."""
    ranges = {name: found.minmax() for name, found in observe(graph, [inputs]).items()}
    return assign_params(graph, ranges, scheme or Scheme())


def check_int8(graph: Graph, *inputs: np.ndarray) -> QuantizedGraph:
    """Both int8 files hold what was asked for, and compute it to a step, op by op."""
    model = quantized(graph, *inputs)
    onnx, tflite = write_onnx(model), write_tflite(model)
    assert check_onnx(onnx, model) == [] and check_tflite(tflite, model) == []
    runners = [OnnxRunner(onnx, model), TfliteRunner(tflite), *reference_runners(tflite)]
    for tensor in compare_tensors(model, runners, [inputs]):
        assert all(steps <= 1 for steps in tensor.op_steps.values()), tensor
    return model


def operators(graph: Graph) -> dict[str, int]:
    """Operators of the float TFLite file, counted by name."""
    return read_tflite(write_tflite(graph)).ops
