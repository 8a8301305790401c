"""One process of the section "large": build a stack of linear layers and write it in one format, or not at all.

    python large_network.py LAYERS (none | onnx | tflite) (float32 | w8a8 | dynamic_int8) [RESULT]

It prints the files' bytes and the CPU seconds of writing alone, and puts them into the file RESULT.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from toolchain.formats.onnx import write_onnx_files
from toolchain.formats.tflite import write_tflite
from toolchain.graph import DType, Graph, Node, Op, TensorType, Value
from toolchain.quantization import NumberFormat, QuantizedGraph, Scheme, assign_params

WIDTH = 2048
"""Inputs and outputs of a layer: 4.2 M weights each."""


def stack(layers: int) -> Graph:
    """`layers` linear layers of `WIDTH` x `WIDTH` weights in a row."""
    random = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {}
    nodes = []
    for index in range(layers):
        weight, bias = f"layers.{index}.weight", f"layers.{index}.bias"
        constants[weight] = random.standard_normal((WIDTH, WIDTH), dtype=np.float32)
        constants[weight] *= np.float32(WIDTH**-0.5)
        constants[bias] = np.zeros(WIDTH, np.float32)
        source = f"layers.{index - 1}" if index else "x"
        name = f"layers.{index}"
        nodes.append(Node(Op.LINEAR, name, (source, weight, bias), (name,), {"activation": "relu"}))
    inputs = (Value("x", TensorType(DType.FLOAT32, (1, WIDTH))),)
    return Graph(inputs, (nodes[-1].output,), tuple(nodes), constants)


def write(model: Graph | QuantizedGraph, kind: str) -> int:
    """Bytes of the files."""
    if kind == "onnx":
        return sum(len(content) for content in write_onnx_files(model, "model.onnx").values())
    return len(write_tflite(model)) if kind == "tflite" else 0


def main(layers: str, kind: str, numbers: str, result: str | None = None) -> None:
    graph = stack(int(layers))
    model: Graph | QuantizedGraph = graph
    if numbers != "float32":
        scheme = Scheme().with_numbers(NumberFormat(numbers))
        model = assign_params(graph, dict.fromkeys(graph.activations, (-4.0, 4.0)), scheme)
    start = time.process_time()
    size = write(model, kind)
    told = f"{size} {time.process_time() - start:.4f}"
    print(told)
    if result is not None:
        Path(result).write_text(told)


if __name__ == "__main__":
    main(*sys.argv[1:])
