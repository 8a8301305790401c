"""One recipe in a row: half of the weights pruned, 16 values a codebook, int8, recovered after each. All three are read
back from both files, and the accuracy is that of the files in their runtimes, on samples that nothing was trained or
calibrated with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from bars import Figures, Findings
from compress_shop import CompressShop
from hard import Sources, load_hard
from hard.files import predictor
from hard.speech import load_keywords
from numpy.typing import NDArray
from quantize_shop import predict_torch

from toolchain.compress.clustering.codebook import Granularity
from toolchain.compress.pruning.choices import Scope
from toolchain.errors import OptionError
from toolchain.packing.packer import pack
from toolchain.pipeline import Pipeline
from toolchain.samples import samples_from
from toolchain.samples.digits import as_inputs
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.cluster import Cluster
from toolchain.stages.export import Export
from toolchain.stages.prune import Prune, PruneKind
from toolchain.stages.quantize import Quantize
from toolchain.stages.recover import Recover
from toolchain.stages.states import ExportedModel
from toolchain.stages.trace import Trace
from toolchain.validation.proof import TensorProof, prove
from toolchain.zoo.resolve import load_model

RATIO, CLUSTERS = 0.5, 16
MOST_LOST = 0.5
EPOCHS, QUICK_EPOCHS = 14, 2
TRAINED_DIGITS = 10_000


@dataclass(frozen=True)
class Task:
    """A trained float network, samples (N, ...) and labels (N,) that train it further, and others that judge."""

    name: str
    module: Any
    training: tuple[NDArray[np.float32], NDArray[np.int64]]
    judging: tuple[NDArray[np.float32], NDArray[np.int64]]
    granularity: Granularity = Granularity.PER_TENSOR


def measure_section(shop: CompressShop, quick: bool) -> Findings:
    title = f"prune {RATIO:.0%}, {CLUSTERS} clusters, int8, recover, in one recipe"
    found, rows = Findings("compress_recipe", title), []
    for task in _tasks(shop, found):
        shop.say(f"{task.name} ...")
        made = _compressed(task, QUICK_EPOCHS if quick else EPOCHS)
        inputs, labels = task.judging
        right = _percent(predict_torch(task.module, inputs), labels)
        proof = prove(made)
        for name, content in made.files.items():
            path = shop.folder / f"{task.name}-{name}"
            path.write_bytes(content)
            kept = _percent(predictor(path, [(1, int(labels.max()) + 1)])([inputs])[0], labels)
            found.at_most(f"{task.name}, {name}: points lost", right - kept, MOST_LOST)
            packed = pack(content)[1].packed_bytes
            rows.append((f"{task.name}, {name}", f"{right:.2f}", f"{kept:.2f}", f"{len(content):,}", f"{packed:,}"))
        _told(found, task.name, proof)
        found.facts[task.name] = {"float": right, "proof": [row.to_plain() for row in proof]}
    columns = ("file", "float, % right", "% right", "bytes", "packed")
    found.figures.append(Figures("what it costs and saves", columns, tuple(rows)))
    return found


def _compressed(task: Task, epochs: int) -> ExportedModel:
    inputs, labels = task.training
    samples = samples_from({"x": inputs, "labels": labels}, calibration_count=len(inputs) - 1, judging_count=1)
    samples = samples.with_batch_size(64)
    learned = {"samples": samples, "epochs": epochs, "loss": "cross_entropy", "temperature": 3.0, "weight_pull": 0.0}
    recipe = Pipeline((
        Trace(example_inputs=(inputs[:1],)),
        Prune(kind=PruneKind.WEIGHTS, ratio=RATIO, scope=Scope.GLOBAL),
        Recover(learning_rate=3e-3, **learned),
        Cluster(clusters=CLUSTERS, granularity=task.granularity),
        Recover(learning_rate=1e-3, **learned),
        Calibrate(samples=samples),
        Quantize(),
        Recover(learning_rate=3e-4, **learned),
        Export(),
    ))  # fmt: skip
    made = recipe.run(task.module)
    assert isinstance(made, ExportedModel)
    return made


def _tasks(shop: CompressShop, found: Findings) -> Iterator[Task]:
    """Those whose data was given; a note on any other."""
    for load in (_digits, _spoken):
        try:
            yield load(shop)
        except OptionError as error:
            found.notes.append(str(error))


def _digits(shop: CompressShop) -> Task:
    mnist = shop.load_mnist()
    chosen = np.random.default_rng(0).permutation(len(mnist.train_images))[:TRAINED_DIGITS]
    training = as_inputs(mnist.train_images[chosen]), mnist.train_labels[chosen]
    return Task("mnist", load_model("mnist").module, training, (mnist.judging, mnist.test_labels))


def _spoken(shop: CompressShop) -> Task:
    if shop.speech is None:
        raise OptionError("spoken digits are left out: --speech names no file")
    sources = Sources(shop.speech, shop.folder, shop.folder / "networks")
    words, network = load_keywords(shop.speech), load_hard("ds_cnn", sources)
    training = words.training, words.training_labels
    return Task("spoken digits", network.module, training, (words.judging, words.judging_labels))


def _told(found: Findings, name: str, proof: tuple[TensorProof, ...]) -> None:
    """The three, from the bytes of both files."""
    files = [(row, file) for row in proof for file in row.files]
    broken = sum(len(file.findings) for _, file in files)
    zeros = sum(file.zeros for _, file in files) / sum(row.elements for row, _ in files)
    found.at_most(f"{name}: findings in both files", broken, 0, "{:.0f}")
    found.at_least(f"{name}: share of zeros read back", zeros, RATIO - 0.005, "{:.3f}")
    found.at_most(f"{name}: distinct values a tensor", max(file.distinct for _, file in files), CLUSTERS, "{:.0f}")
    kinds = {file.dtype for _, file in files}
    found.told(f"{name}: element types of weights", ", ".join(sorted(kinds)), "int8")


def _percent(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(100 * (scores.reshape(len(labels), -1).argmax(1) == labels).mean())
