"""Four networks: only integers in the files, ops within a step of their meaning, runtimes that agree."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from bars import Figures, Findings
from processes import ROOT
from workshop import Workshop, photos

from toolchain.formats.artifact import Runner
from toolchain.formats.onnx import OnnxRunner
from toolchain.formats.tflite import TfliteRunner
from toolchain.job import Request, prepare
from toolchain.quantization import QuantizedGraph, quantize_inputs
from toolchain.samples import SampleSet, load_samples
from toolchain.stages.states import ExportedModel
from toolchain.validation.tensors import compare_tensors

SHIPPED = {"mnist": "mnist", "efficientnet_lite0": "photos"}
IN_TESTS = {"mobilenet_v2": "MobileNetV2", "resnet18": "ResNet18"}
DEFINITIONS = ROOT / "tests" / "zoo" / "networks.py"
CALIBRATION, TENSOR_SAMPLES = 100, 4
SAMPLES, QUICK_SAMPLES = 400, 200
MOST_STEPS, WITHIN, SHARE, SAME_CLASS = 1, 2, 0.99, 0.995
FORBIDDEN = ("TRANSPOSE", "QUANTIZE", "DEQUANTIZE")
_ROWS = (
    *(f"TFLite: {name}" for name in FORBIDDEN),
    "TFLite: float tensors",
    "ONNX: float constants but scales",
    "ONNX: Clip, Relu",
    "executed in float by onnxruntime here",
    "left by XNNPACK to the interpreter",
    "worst step of an op: onnxruntime",
    "worst step of an op: LiteRT, XNNPACK",
    "worst step of an op: LiteRT, reference",
    f"onnxruntime and LiteRT: values within {WITHIN} steps",
    "onnxruntime and LiteRT: same class",
    "onnxruntime and LiteRT: most steps apart",
)


@dataclass(frozen=True)
class Agreement:
    """Two runtimes on the same samples: share of values within `WITHIN` steps, of samples of one class."""

    within: float
    same_class: float
    worst: int


@dataclass(frozen=True)
class Examined:
    """One network's two files.

    `leftovers`: what should not be in them, by name. `strays`: ops that onnxruntime executes in float on this machine,
    and ops that XNNPACK leaves to the interpreter. `steps`: the worst step of an op in each of three runtimes.
    """

    leftovers: dict[str, int]
    strays: tuple[int, int]
    steps: tuple[int, ...]
    agreement: Agreement

    def column(self) -> list[str]:
        counts = (*self.leftovers.values(), *self.strays, *self.steps)
        found = self.agreement
        return [*(str(count) for count in counts), f"{found.within:.2%}", f"{found.same_class:.2%}", str(found.worst)]


def measure_section(shop: Workshop, quick: bool) -> Findings:
    count = QUICK_SAMPLES if quick else SAMPLES
    found = Findings("networks", f"four networks, runtimes compared on {count} samples")
    definitions = _definitions()
    columns: dict[str, list[str]] = {}
    for name in (*SHIPPED, *IN_TESTS):
        if name in IN_TESTS and definitions is None:
            found.told(name, "not found", f"in {DEFINITIONS.relative_to(ROOT)}")
            continue
        shop.say(f"{name} ...")
        examined = _examine(*_network(name, definitions, count), shop)
        columns[name] = examined.column()
        found.facts[name] = asdict(examined)
        _judge(found, name, examined)
    rows = tuple(zip(_ROWS, *columns.values(), strict=True))
    found.figures.append(Figures("int8 files as deployed", ("", *columns), rows))
    found.notes.append(f"steps: each op, fed the runtime's own integers, against torch's; {TENSOR_SAMPLES} samples")
    return found


def _definitions() -> Any:
    """The module of the tests that defines the two networks, or None where it is not there."""
    if not DEFINITIONS.is_file():
        return None
    sys.path.insert(0, str(ROOT))
    return importlib.import_module("tests.zoo.networks")


def _network(name: str, definitions: Any, count: int) -> tuple[Any, SampleSet]:
    """What `prepare` takes as a model, and samples of its own to calibrate and to judge with."""
    import torch

    if name in SHIPPED:
        return name, load_samples(SHIPPED[name], calibration_count=CALIBRATION, judging_count=count)
    samples = photos(CALIBRATION, count)
    crops = next(samples.calibration()).inputs[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # random weights, batch norms with the statistics of the crops
        return definitions.settled(getattr(definitions, IN_TESTS[name])(), crops), samples


def _examine(module: Any, samples: SampleSet, shop: Workshop) -> Examined:
    job = prepare(Request(model=module, target="arm64", calibration=samples, out=shop.folder / "networks"))
    made = job.pipeline.run(job.model.module)
    assert isinstance(made, ExportedModel)
    model = made.quantized
    onnx_file, tflite_file = made.files["model.onnx"], made.files["model.tflite"]
    onnx_runner, tflite_runner = OnnxRunner(onnx_file, model), TfliteRunner(tflite_file)
    runners: list[Runner] = [onnx_runner, tflite_runner, TfliteRunner(tflite_file, kernels="reference")]
    images = [batch.inputs for batch in samples.with_batch_size(1).judging()]
    tensors = compare_tensors(model, runners, images[:TENSOR_SAMPLES])
    return Examined(
        leftovers=count_leftovers(tflite_file, onnx_file),
        strays=(sum(onnx_runner.executed_float_ops().values()), sum(tflite_runner.undelegated_ops().values())),
        steps=tuple(max(t.op_steps.get(r.name, 0) for t in tensors) for r in runners),
        agreement=_agreement(model, onnx_runner, tflite_runner, images),
    )


def count_leftovers(tflite_file: bytes, onnx_file: bytes) -> dict[str, int]:
    """What should not be in the files, counted with the runtimes' own readers."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=tflite_file, experimental_op_resolver_type=resolver)
    ops = Counter(op["op_name"] for op in interpreter._get_ops_details())
    floats = sum(np.dtype(tensor["dtype"]).kind == "f" for tensor in interpreter.get_tensor_details())
    graph = onnx.load_from_string(onnx_file).graph
    ends = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {node.input[1] for node in ends}
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    constants = sum(t.data_type in kinds and t.name not in scales for t in graph.initializer)
    clips = sum(node.op_type in ("Clip", "Relu") for node in graph.node)
    return {
        **{name: ops[name] for name in FORBIDDEN},
        "float tensors": floats,
        "float constants": constants,
        "clips": clips,
    }


def _agreement(model: QuantizedGraph, first: Runner, second: Runner, images: list[Any]) -> Agreement:
    close = values = same = worst = 0
    for inputs in images:
        given = quantize_inputs(model, inputs)
        a, b = first.run(given)[0].astype(np.int64), second.run(given)[0].astype(np.int64)
        difference = np.abs(a - b)
        close, values = close + int((difference <= WITHIN).sum()), values + difference.size
        worst = max(worst, int(difference.max()))
        same += int(a.argmax() == b.argmax())
    return Agreement(close / values, same / len(images), worst)


def _judge(found: Findings, name: str, examined: Examined) -> None:
    agreement = examined.agreement
    found.at_most(f"{name}: what should not be there", sum(examined.leftovers.values()), 0, "{:d}")
    found.at_most(f"{name}: worst step of an op", max(examined.steps), MOST_STEPS, "{:d}")
    found.at_least(f"{name}: runtimes within {WITHIN} steps", agreement.within, SHARE, "{:.2%}")
    found.at_least(f"{name}: runtimes give the same class", agreement.same_class, SAME_CLASS, "{:.2%}")
