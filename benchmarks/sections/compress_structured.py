"""Channels and whole layers removed from residual networks: what is left of accuracy and of measured latency, in float
and in int8, in both runtimes; Torch-Pruning at equal MACs and equal training beside it.
"""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bars import Figures, Findings
from compress_shop import CompressShop, Mnist
from processes import CommandFailed, measure
from residual import BATCH, SIZE, ResNet20, accuracy, learn, pictures
from runtimes import interleaved_ms, load, median_ratio

from toolchain.engine.run import predict
from toolchain.formats.artifact import Format
from toolchain.formats.onnx import OnnxRunner
from toolchain.formats.tflite import TfliteRunner
from toolchain.graph.cost import total_macs
from toolchain.quantization import Scheme, quantize_inputs
from toolchain.samples import SampleSet, samples_from
from toolchain.samples.digits import as_inputs
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.export import Export
from toolchain.stages.latency import measure_latencies
from toolchain.stages.prune import Prune
from toolchain.stages.quantize import Quantize
from toolchain.stages.recover import Recover
from toolchain.stages.states import QuantizedModel, TracedModel
from toolchain.stages.trace import Trace
from toolchain.targets import load_target
from toolchain.zoo.resolve import load_model

SHARES = {0.5: (1.6, 0.5), 0.25: (2.6, 1.5)}
"""MACs kept: by how much latency must fall at least, points of accuracy that may be lost."""

PREDICTION = 0.15
LAYER_RATIOS = (0.2, 0.4)
RATE = 1e-3
ROUND_TO = load_target("x86-64" if platform.machine() == "x86_64" else "arm64")[1].kernels.simd_channels
"""What the profile of the processor that is timed says."""

SMALL_ROUND_TO = 8
"""Of the mnist net, which has 16 to 48 channels and is not timed."""

LOADS = 4
SCORED = 1000
RANKED = 32
"""Images that layers are ranked on."""
PEER = ".venv-torch-pruning"


@dataclass(frozen=True)
class Budget:
    """Training images, epochs of the float network and of each recovery, images to judge, rounds of timing."""

    images: int
    epochs: int
    recovery: int
    judged: int
    rounds: int


FULL = Budget(20_000, 3, 3, 10_000, 31)
QUICK = Budget(3_000, 2, 1, 1_000, 15)


@dataclass(frozen=True)
class Task:
    """A trained network with what trains and judges it."""

    model: TracedModel
    samples: SampleSet
    images: np.ndarray
    labels: np.ndarray
    float_accuracy: float


def measure_section(shop: CompressShop, quick: bool) -> Findings:
    found = Findings(
        "compress_structured", "ResNet-20, three times as wide, and the mnist net without channels or layers"
    )
    budget, mnist = (QUICK if quick else FULL), shop.load_mnist()
    folder = shop.folder / "structured"
    folder.mkdir(parents=True, exist_ok=True)
    task, state = _residual(budget, mnist, folder, shop.say)
    files = _files(task.model, task, folder / "whole")
    timed = {(1.0, *key): path for key, path in files.items()}
    rows = []
    for share, (_, drop) in SHARES.items():
        shop.say(f"ResNet-20 at {share:.0%} of its MACs ...")
        model, before = _smaller(task, share, budget)
        files = _files(model, task, folder / f"{share:g}")
        timed |= {(share, *key): path for key, path in files.items()}
        scores = _scores(model, task)
        rows.append(_row(f"ResNet-20 {share:.0%}", model, task, before, scores))
        found.facts[f"ResNet-20 {share}"] = {"before": before, **scores}
        _judge(found, f"ResNet-20 at {share:.0%} of its MACs", task, scores, drop)
        _peer(found, shop, folder, state, share, budget, scores["float"])
    rows += _digits(found, budget, mnist, shop.say)
    columns = ("network", "MACs", "float %", "pruned %", "recovered %", "int8 %, ONNX", "int8 %, TFLite")
    found.figures.append(Figures("accuracy", columns, tuple(rows)))
    _latency(found, timed, budget.rounds)
    _layers(found, task, shop.say)
    return found


# ---- networks ----------------------------------------------------------------------------------------------


def _residual(budget: Budget, mnist: Mnist, folder: Path, say: Callable[[str], None]) -> tuple[Task, Path]:
    say("ResNet-20: float training ...")
    images, labels = pictures(mnist.train_images[: budget.images]), mnist.train_labels[: budget.images]
    test, test_labels = pictures(mnist.test_images[: budget.judged]), mnist.test_labels[: budget.judged]
    torch.manual_seed(0)
    module = ResNet20()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    learn(module, images, labels, epochs=budget.epochs, rate=RATE)
    torch.set_num_threads(threads)
    state = folder / "resnet20.pt"
    torch.save(module.state_dict(), state)
    np.savez(folder / "images.npz", train=images, train_labels=labels, test=test, test_labels=test_labels)
    samples = _samples(images, labels)
    model = Trace(example_inputs=(np.zeros((1, 3, SIZE, SIZE), np.float32),))(module)
    return Task(model, samples, test, test_labels, accuracy(module, test, test_labels)), state


def _digits(found: Findings, budget: Budget, mnist: Mnist, say: Callable[[str], None]) -> list[tuple[str, ...]]:
    """The mnist net, which was trained on other digits, at the same shares."""
    images, labels = as_inputs(mnist.train_images[: budget.images]), mnist.train_labels[: budget.images]
    test, test_labels = as_inputs(mnist.test_images[: budget.judged]), mnist.test_labels[: budget.judged]
    model = Trace(example_inputs=(np.zeros((1, 1, 28, 28), np.float32),))(load_model("mnist").module)
    whole = Task(model, _samples(images, labels), test, test_labels, 0.0)
    # equal training for the whole net, so that what is lost is lost to pruning
    model = _recovered(model, whole, budget.recovery)
    task = Task(model, whole.samples, test, test_labels, _accuracy(model, test, test_labels))
    rows = []
    for share, (_, drop) in SHARES.items():
        say(f"mnist net at {share:.0%} of its MACs ...")
        smaller, before = _smaller(task, share, budget, SMALL_ROUND_TO)
        scores = _scores(smaller, task)
        rows.append(_row(f"mnist net {share:.0%}", smaller, task, before, scores))
        _judge(found, f"mnist net at {share:.0%} of its MACs", task, scores, drop)
    return rows


def _samples(images: np.ndarray, labels: np.ndarray) -> SampleSet:
    return samples_from(
        (images, labels), judging=(images[:1], labels[:1]), calibration_count=len(images), batch_size=BATCH
    )


def _smaller(task: Task, share: float, budget: Budget, round_to: int = ROUND_TO) -> tuple[TracedModel, float]:
    """Pruned and trained as the peer is; and the accuracy before that training."""
    options: dict[str, Any] = {"of": "macs", "scope": "global", "importance": "taylor", "round_to": round_to}
    pruned = Prune(ratio=1 - share, samples=task.samples.narrowed(512, None), **options)(task.model)
    before = _accuracy(pruned, task.images, task.labels)
    return _recovered(pruned, task, budget.recovery), before


def _recovered(model: TracedModel, task: Task, epochs: int) -> TracedModel:
    recover = Recover(
        samples=task.samples,
        epochs=epochs,
        learning_rate=RATE,
        loss="cross_entropy",
        batch_norm="batch",  # type: ignore[arg-type]
        validation=0.05,
        weight_pull=0.0,
    )
    return recover(model)


def _scores(model: TracedModel, task: Task) -> dict[str, float]:
    """Accuracy in percent of the float network, and of both int8 files in their runtimes on the first images."""
    quantized = _quantized(model, task)
    files = Export()(quantized).files
    onnx = OnnxRunner(files["model.onnx"], quantized.quantized)
    tflite = TfliteRunner(files["model.tflite"])
    images, labels = task.images[:SCORED], task.labels[:SCORED]
    rows = quantize_inputs(quantized.quantized, [images])[0]
    int8 = {
        name: [int(runner.run([rows[i : i + 1]])[0].argmax()) for i in range(len(rows))]
        for name, runner in (("onnx", onnx), ("tflite", tflite))
    }
    scored = {name: float(100 * np.mean(np.array(classes) == labels)) for name, classes in int8.items()}
    return {
        "float": _accuracy(model, task.images, task.labels),
        "float on the same": _accuracy(task.model, images, labels),
        **scored,
    }


def _accuracy(model: TracedModel, images: np.ndarray, labels: np.ndarray) -> float:
    batches = [(images[start : start + 250],) for start in range(0, len(images), 250)]
    return float(100 * np.mean(predict(model.graph, batches)[0].argmax(1) == labels))


def _quantized(model: TracedModel, task: Task) -> QuantizedModel:
    return Quantize()(Calibrate(samples=task.samples.narrowed(200, None))(model))


def _row(name: str, model: TracedModel, task: Task, before: float, scores: Mapping[str, float]) -> tuple[str, ...]:
    macs = total_macs(model.graph) / 1e6
    numbers = (task.float_accuracy, before, scores["float"], scores["onnx"], scores["tflite"])
    return (name, f"{macs:.1f} M", *(f"{number:.2f}" for number in numbers))


def _judge(found: Findings, what: str, task: Task, scores: Mapping[str, float], drop: float) -> None:
    found.at_most(f"{what}: points lost, float", task.float_accuracy - scores["float"], drop)
    lost = scores["float on the same"] - min(scores["onnx"], scores["tflite"])
    found.at_most(f"{what}: points lost, worse int8 file", lost, drop)


# ---- latency -----------------------------------------------------------------------------------------------


def _files(model: TracedModel, task: Task, folder: Path) -> dict[tuple[str, str], Path]:
    """The float and the int8 files by (numbers, suffix)."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for numbers, made in (("float32", model), ("int8", _quantized(model, task))):
        for name, content in Export()(made).files.items():
            path = folder / f"{numbers}{Path(name).suffix}"
            path.write_bytes(content)
            found[numbers, path.suffix] = path
    return found


def _calls(files: Mapping[tuple[float, str, str], Path], image: np.ndarray) -> dict[str, Callable[[], Any]]:
    calls: dict[str, Callable[[], Any]] = {}
    for key, path in files.items():
        file = load(path)
        calls["|".join(map(str, key))] = partial(file.invoke, file.given(image))
    return calls


def _latency(found: Findings, files: Mapping[tuple[float, str, str], Path], rounds: int) -> None:
    image = np.random.default_rng(0).random((1, 3, SIZE, SIZE)).astype(np.float32)
    ms: dict[str, list[float]] = {}
    for _ in range(LOADS):
        timed = interleaved_ms(_calls(files, image), -(-rounds // LOADS), 15)
        # where a file's memory comes to lie can double what a run takes: the better load counts
        ms |= {k: v for k, v in timed.items() if k not in ms or statistics.median(v) < statistics.median(ms[k])}
    rows = []
    for numbers, suffix in dict.fromkeys(key[1:] for key in files):
        whole = ms[f"1.0|{numbers}|{suffix}"]
        cells = [f"{statistics.median(whole):.3f}"]
        for share, (faster, _) in SHARES.items():
            ratio = median_ratio(whole, ms[f"{share}|{numbers}|{suffix}"])
            cells += [f"{statistics.median(ms[f'{share}|{numbers}|{suffix}']):.3f}", f"{ratio:.2f}"]
            found.at_least(f"{numbers} {suffix}: whole / {share:.0%} of the MACs", ratio, faster)
        rows.append((f"{numbers} {suffix}", *cells))
    found.facts["latency_ms"] = ms
    columns = ("file", "whole ms", *(c for share in SHARES for c in (f"{share:.0%} ms", "faster")))
    found.figures.append(Figures("latency of one image, one thread, files in turn", columns, tuple(rows)))


def _layers(found: Findings, task: Task, say: Callable[[str], None]) -> None:
    """Whole layers go by what latency they cost: the plan's prediction beside the measurement."""
    rows: list[Sequence[str]] = []
    for runtime in (Format.TFLITE, Format.ONNX):
        for int8 in (False, True):
            for ratio in LAYER_RATIOS:
                name = f"{'int8' if int8 else 'float32'} {runtime}, {ratio:.0%} of the latency"
                say(f"layers: {name} ...")
                few = task.samples.narrowed(RANKED, None)
                options: dict[str, Any] = {"kind": "layers", "of": "latency", "runtime": runtime, "int8_latency": int8}
                plan: Any = Prune(ratio=ratio, samples=few, **options).plan(task.model)
                scheme = Scheme() if int8 else None
                measured = measure_latencies([task.model.graph, plan.graph], runtime=runtime, scheme=scheme, rounds=21)
                predicted, real = plan.latency_ms[1] / plan.latency_ms[0], measured[1] / measured[0]
                off = abs(predicted / real - 1)
                found.at_most(f"layers, {name}: predicted / measured, off by", off, PREDICTION)
                pairs = ("{:.3f} -> {:.3f}".format(*pair) for pair in (plan.latency_ms, measured))
                gone = ", ".join(removal.block.name for removal in plan.removed)
                rows.append((name, "{} -> {}".format(*plan.layers), *pairs, f"{predicted:.3f}", f"{real:.3f}", gone))
    columns = ("latency of", "layers", "predicted ms", "measured ms", "predicted share", "measured share", "removed")
    found.figures.append(Figures("layers of ResNet-20", columns, tuple(tuple(row) for row in rows)))


# ---- Torch-Pruning -----------------------------------------------------------------------------------------


def _peer(
    found: Findings, shop: CompressShop, folder: Path, state: Path, share: float, budget: Budget, ours: float
) -> None:
    python = (shop.peers or Path()) / PEER / "bin" / "python"
    what = f"ResNet-20 at {share:.0%} of its MACs: ours - Torch-Pruning's, points"
    if not python.is_file():
        found.told(what, f"no {PEER}")
        return
    shop.say(f"Torch-Pruning at {share:.0%} ...")
    out = folder / f"torch_pruning_{share:g}.json"
    script = Path(__file__).parents[1] / "peers" / "torch_pruning_channels.py"
    options = {"state": state, "images": folder / "images.npz", "keep": share, "epochs": budget.recovery, "rate": RATE}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    try:
        measure([python, script, *words, "--json", out])
    except CommandFailed as error:
        found.told(what, "failed")
        found.notes += str(error).splitlines()
        return
    theirs = json.loads(out.read_text())
    found.facts[f"Torch-Pruning {share}"] = theirs
    found.at_least(what, ours - theirs["after"], 0.0)
    line = "Torch-Pruning {version} at {macs_share:.1%}: {before:.2f} % pruned, {after:.2f} % trained"
    found.notes.append(line.format(**theirs))
