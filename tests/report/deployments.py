"""A hand-made deployment whose every number is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from toolchain.graph import Graph, Source, parse_graph
from toolchain.pipeline import StageRun
from toolchain.profiles import load_profile
from toolchain.quantization import Scheme, assign_params
from toolchain.report import FloatFile, report_facts
from toolchain.stages.states import ExportedModel, Record
from toolchain.targets import Gates, Target
from toolchain.validation.gates import judge
from toolchain.validation.results import Agreement, RuntimeResult, TensorResult, Validation

NET = """
input image: float32[1,3,8,8]
constant stem.weight: float32[4,3,3,3]
constant stem.bias: float32[4]
constant head.weight: float32[5,4]
stem = conv2d(image, stem.weight, stem.bias) padding=(1,1,1,1) activation=relu
pool = mean(stem) axes=(2,3)
head = linear(pool, head.weight)
output head
"""
FLOAT_FILES = (
    FloatFile("model.float.onnx", "onnxruntime", 4000, 0.5),
    FloatFile("model.float.tflite", "litert-xnnpack", 4400, 0.3),
)
GATES = Gates(runtime_same_class=0.995, sqnr_db=15.0, same_class=0.9, accuracy_drop=1.0)


def small_graph() -> Graph:
    graph = parse_graph(NET)
    sources = [Source(node.name, "net.py", 10 + line) for line, node in enumerate(graph.nodes)]
    return graph.with_nodes(replace(n, source=s) for n, s in zip(graph.nodes, sources, strict=True))


def small_validation() -> Validation:
    def result(file: str, runtime: str, samples: int, latency_ms: float) -> RuntimeResult:
        return RuntimeResult(file, runtime, samples, 30.25, 0.9995, 2.5, 0.01, 0.98, 0.93, latency_ms)

    return Validation(
        samples=100,
        score_name="top-1",
        reference_score=0.935,
        runtimes=(
            result("model.onnx", "onnxruntime", 100, 0.25),
            result("model.tflite", "litert-xnnpack", 100, 0.6),
            result("model.tflite", "litert-reference", 8, 9.0),
        ),
        agreements=(Agreement("model.onnx onnxruntime", "model.tflite litert-xnnpack", 100, 1, 1.0, 1.0),),
        tensors=(
            TensorResult("image", "input", "input", 49.0, -1.0, 1.0, -0.9, 0.95),
            TensorResult(
                "stem",
                "conv2d",
                "stem",
                31.0,
                0.0,
                6.0,
                0.0,
                5.5,
                {"litert-xnnpack": 1, "litert-reference": 0, "onnxruntime": 0},
            ),
            TensorResult("pool", "mean", "pool", float("nan"), 0.0, 2.0, 0.0, 1.5, {"onnxruntime": 0}),
            TensorResult("head", "linear", "head", 22.5, -3.0, 3.0, -4.5, 2.0, {"onnxruntime": 1}),
        ),
        missed=(),
    )


def make_small_facts(
    *,
    name: str = "small",
    graph: Graph | None = None,
    gates: Gates = GATES,
    validation: Validation | None = None,
    target_name: str = "arm64",
    resumed: bool = False,
    baseline: tuple[FloatFile, ...] = FLOAT_FILES,
) -> dict[str, Any]:
    """Facts of the small deployment; what is given takes the place of what it holds by default."""
    exported = small_model(graph or small_graph())
    target = Target(
        description="a board",
        device="cortex-a76",
        recipes={"default": ()},
        left_out={"prune": "costs accuracy", "export": "not left out at all"},
        gates=gates,
    )
    return report_facts(
        target_name=target_name,
        target=target,
        profile=load_profile("cortex-a76"),
        model_name=name,
        exported=exported,
        runs=(StageRun("export", 0.25, resumed, exported),),
        validation=judge(validation or small_validation(), gates),
        baseline=baseline,
    )


def small_model(graph: Graph) -> ExportedModel:
    ranges = dict.fromkeys(graph.activations, (-1.0, 1.0))
    quantized = assign_params(graph, ranges, Scheme())
    options = {"z": 1, "scheme": Scheme(), "a": np.float32(0.5), "loss": float("inf")}
    return ExportedModel(
        graph=quantized.graph,
        reference=graph,
        params=quantized.params,
        files={"model.onnx": b"o" * 1000, "model.tflite": b"t" * 1100},
        history=(Record("export", options, {"bytes": {"model.onnx": 1000}}),),
    )
