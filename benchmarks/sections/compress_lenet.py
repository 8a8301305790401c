"""Deep Compression's own table (Han et al., arXiv 1510.00149, table 1: 40x and 39x) on whole MNIST: float, gradually
pruned, clustered, in int8, packed. Ratios are of files: float32 file / packed int8 file, and / the file that runs.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bars import Figures, Findings
from compress_shop import CompressShop, Mnist
from hard.files import predictor
from lenets import Plan, ShiftedBatches, error_percent, learn, lenet_5, lenet_300_100, module_from, weights_of

from toolchain.formats.onnx import write_onnx
from toolchain.formats.tflite import write_tflite
from toolchain.graph import fold
from toolchain.packing.loader import load_packed
from toolchain.packing.packer import Packed, pack_file
from toolchain.samples import samples_from
from toolchain.samples.digits import as_inputs
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.cluster import Cluster
from toolchain.stages.export import Export
from toolchain.stages.quantize import Quantize
from toolchain.stages.states import ExportedModel, TracedModel
from toolchain.stages.trace import Trace

PLANS = {
    "LeNet-300-100": Plan(lenet_300_100, (0.03, 0.08, 0.3), 16, 1.58, 30, 60, 8, 8),
    "LeNet-5": Plan(lenet_5, (0.5, 0.1, 0.012, 0.1), 16, 0.74, 8, 12, 3, 3),
}
LEAST_RATIO = 60
MOST_MINUTES = 20
CALIBRATION = 500


@dataclass(frozen=True)
class Result:
    """One file: its bytes, deflated, packed; the float32 file's bytes; errors in percent of both."""

    bytes: int
    deflated: int
    packed: Packed
    float_bytes: int
    error: float
    float_error: float

    @property
    def ratio(self) -> float:
        return self.float_bytes / self.packed.packed_bytes


def measure_section(shop: CompressShop, quick: bool) -> Findings:
    found = Findings("compress_lenet", "prune, cluster, int8, pack: real bytes of Deep Compression's networks on MNIST")
    mnist = shop.load_mnist()
    rows = []
    for name, plan in PLANS.items():
        started = time.perf_counter()
        exported = compress(plan.quick() if quick else plan, mnist, lambda text, name=name: shop.say(f"{name}: {text}"))
        minutes = (time.perf_counter() - started) / 60
        results = judge(exported, mnist, shop.folder / name.lower())
        for suffix, result in results.items():
            rows.append(_row(f"{name} {suffix}", result))
            found.facts[f"{name} {suffix}"] = {**vars(result), "packed": result.packed.facts(), "minutes": minutes}
        worst = max(result.error for result in results.values())
        allowed = max(plan.most_error, results[".onnx"].float_error if name == "LeNet-5" else 0.0)
        found.at_least(f"{name}: float32 file / packed file", min(r.ratio for r in results.values()), LEAST_RATIO)
        found.at_most(f"{name}: error in %, worse of both files", worst, allowed)
        unpacked = min(result.float_bytes / result.bytes for result in results.values())
        found.told(f"{name}: float32 file / file that runs", f"{unpacked:.2f}")
        found.at_most(f"{name}: minutes", minutes, MOST_MINUTES)
    columns = ("file", "float32", "int8", "deflated", "packed", "ratio", "error %", "float error %")
    found.figures.append(Figures("bytes of files", columns, tuple(rows)))
    found.notes.append("Deep Compression: LeNet-300-100 40x at 1.58 %, LeNet-5 39x at 0.74 %, without a file that runs")
    return found


def compress(plan: Plan, mnist: Mnist, say: Callable[[str], None]) -> ExportedModel:
    """Float training, then every step of the recipe, each followed by training with what it fixed held."""
    torch.manual_seed(0)
    batches = ShiftedBatches(mnist, plan.shift)
    say("float ...")
    model = trained_float(plan, batches)
    teacher = model.graph
    say("prune ...")
    kept = dict(zip(weights_of(teacher), plan.kept, strict=True))
    model = _trained(model, batches, plan.prune_epochs, 2e-3, teacher, kept)
    say("cluster ...")
    clustered = Cluster(clusters=plan.clusters)(model)
    clustered = _trained(clustered, batches, plan.cluster_epochs, 1e-3, teacher)
    say("int8 ...")
    chosen = np.random.default_rng(0).permutation(len(mnist.train_images))[:CALIBRATION]
    samples = samples_from(as_inputs(mnist.train_images[chosen]), calibration_count=CALIBRATION)
    quantized = Quantize()(Calibrate(samples=samples)(clustered))
    quantized = _trained(quantized, batches, plan.integer_epochs, 3e-4, teacher)
    return Export()(quantized)


def trained_float(plan: Plan, batches: ShiftedBatches) -> TracedModel:
    """The float network, trained as the graph it is traced to, and traced again as the reference."""
    module, example = plan.make(), (np.zeros((1, 1, 28, 28), np.float32),)
    untrained = Trace(example_inputs=example)(module.eval())
    trained = _trained(untrained, batches, plan.float_epochs, 1e-3)
    return Trace(example_inputs=example)(module_from(module, trained.graph))


def _trained(model: Any, batches: ShiftedBatches, epochs: int, rate: float, *rest: Any) -> Any:
    """A traced or quantized model after training, masks, codebooks and integer grids held."""
    module = model.to_module()
    learn(module, batches, epochs, rate, *rest)
    return model.from_module(module)


def judge(exported: ExportedModel, mnist: Mnist, folder: Path) -> dict[str, Result]:
    """Both files in their runtimes on all judging images, after they have been packed and unpacked."""
    folder.mkdir(parents=True, exist_ok=True)
    reference, found = fold(exported.reference), {}
    for suffix in (".onnx", ".tflite"):
        content = exported.files[f"model{suffix}"]
        in_float = write_onnx(reference) if suffix == ".onnx" else write_tflite(reference)
        made = pack_file(_written(folder / f"model{suffix}", content), folder / f"model{suffix}.packed")
        # what is judged is what came back
        came_back = _written(folder / f"unpacked{suffix}", load_packed(folder / f"model{suffix}.packed"))
        assert came_back.read_bytes() == content
        error = _error(came_back, mnist)
        float_error = _error(_written(folder / f"float{suffix}", in_float), mnist)
        found[suffix] = Result(len(content), len(zlib.compress(content, 9)), made, len(in_float), error, float_error)
    return found


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _error(path: Path, mnist: Mnist) -> float:
    (scores,) = predictor(path, [(1, 10)])([mnist.judging])
    return error_percent(scores, mnist.test_labels)


def _row(name: str, result: Result) -> tuple[str, ...]:
    sizes = (result.float_bytes, result.bytes, result.deflated, result.packed.packed_bytes)
    return (
        name,
        *(f"{size:,}" for size in sizes),
        f"{result.ratio:.1f}",
        f"{result.error:.2f}",
        f"{result.float_error:.2f}",
    )
