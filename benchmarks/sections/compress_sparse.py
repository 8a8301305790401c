"""What zeros in the 1x1 convolutions of a float32 MobileNet are worth in LiteRT: files without them against dense ones.

The files come from the stages trace, prune (single weights) and export. Timed on this processor; where it is an x86-64
one with AVX, on which XNNPACK never uses its sparse kernels, also as one without; and, where `EMULATED_ARM64` is a
command that runs python on emulated arm64 with ai-edge-litert, there as well.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import without_avx
from bars import Figures, Findings
from processes import ROOT, CommandFailed
from runtimes import median_ratio

LEAST = 1.3
SHARES = (0.8, 0.85, 0.9)
ROUNDS, QUICK_ROUNDS, EMULATED_ROUNDS = 41, 11, 3
SIZE = 224
WITHOUT = "this processor without AVX"
EMULATOR = "EMULATED_ARM64"
_LINES_SHOWN = 5
_CHILD = Path(__file__).parents[1] / "sparse_child.py"


@dataclass(frozen=True)
class Place:
    """Where files are timed. `judged`: XNNPACK uses its sparse kernels there, and the times are a processor's own."""

    label: str
    command: tuple[str, ...]
    variables: Mapping[str, str]
    rounds: int
    judged: bool


def measure_section(shop: Any, quick: bool) -> Findings:
    found = Findings("compress_sparse", f"float32 MobileNetV1 at {SIZE}x{SIZE}, zeros in its 1x1 convolutions, LiteRT")
    folder = shop.folder / "sparse"
    folder.mkdir(parents=True, exist_ok=True)
    files = {share: _files(share, folder, shop) for share in SHARES}
    for place in _places(folder, QUICK_ROUNDS if quick else ROUNDS, found):
        shop.say(f"timing in turn: {place.label} ...")
        try:
            _time(found, place, files)
        except CommandFailed as error:
            found.notes += [f"not timed: {place.label}", *str(error).splitlines()]
    found.notes.append("medians of rounds that take the files in turn, one thread; a ratio is the median of rounds'")
    return found


def _files(share: float, folder: Path, shop: Any) -> tuple[Path, Path]:
    """The dense and the sparse file of the network with this share of zeros in every weight."""
    from toolchain.formats.artifact import Format, SparseWeights
    from toolchain.stages.export import Export
    from toolchain.stages.prune import Prune, PruneKind

    shop.say(f"the files of {share:.0%} zeros ...")
    pruned = Prune(ratio=share, kind=PruneKind.WEIGHTS)(_traced())
    paths = []
    for sparse in (SparseWeights.NEVER, SparseWeights.AUTO):
        path = folder / f"{sparse}-{round(100 * share)}.tflite"
        path.write_bytes(Export(formats=(Format.TFLITE,), sparse=sparse)(pruned).files["model.tflite"])
        paths.append(path)
    return paths[0], paths[1]


def _traced() -> Any:
    import numpy as np
    import torch

    from toolchain.stages.trace import Trace

    sys.path.insert(0, str(ROOT))
    zoo = importlib.import_module("tests.zoo.mobilenet_v1")
    networks = importlib.import_module("tests.zoo.networks")
    images = np.random.default_rng(0).normal(size=(8, 3, SIZE, SIZE)).astype(np.float32)
    torch.manual_seed(0)
    return Trace(example_inputs=(images[:1],))(networks.settled(zoo.MobileNetV1(), images))


def _places(folder: Path, rounds: int, found: Findings) -> list[Place]:
    here = (sys.executable,)
    places = [Place("this processor", here, {}, rounds, judged=not without_avx.has_avx())]
    if without_avx.has_avx():
        found.notes.append("XNNPACK does not use its sparse kernels on x86-64 processors with AVX, as this one is")
        if missing := without_avx.missing_tools():
            found.told(f"dense / sparse, {WITHOUT}", f"no {', '.join(missing)}", f">= {LEAST:.2f}")
        else:
            variables = without_avx.environment(folder / "without_avx")
            places.append(Place(WITHOUT, here, variables, rounds, judged=True))
    if command := os.environ.get(EMULATOR):
        places.append(Place("emulated arm64", tuple(shlex.split(command)), {}, EMULATED_ROUNDS, judged=False))
    return places


def _time(found: Findings, place: Place, files: Mapping[float, Sequence[Path]]) -> None:
    rows, facts = [], []
    for share, (dense, sparse) in files.items():
        measured = _child(place, [dense, sparse])
        slow, fast = (measured["ms"][str(path)] for path in (dense, sparse))
        ratio = median_ratio(slow, fast)
        sizes = [path.stat().st_size for path in (dense, sparse)]
        cells = (statistics.median(slow), statistics.median(fast), ratio, *(size / 1e6 for size in sizes))
        rows.append((f"{share:.0%}", *(f"{cell:.2f}" for cell in cells), f"{measured['differences'][1]:.1e}"))
        facts.append({"share": share, "dense_ms": slow, "sparse_ms": fast, "bytes": sizes})
        what = f"{share:.0%} zeros, dense / sparse, {place.label}"
        if place.judged:
            found.at_least(what, ratio, LEAST)
        else:
            found.told(what, f"{ratio:.2f}")
    columns = ("zeros", "dense ms", "sparse ms", "dense / sparse", "dense MB", "sparse MB", "difference")
    found.figures.append(Figures(place.label, columns, tuple(rows)))
    found.facts[place.label] = facts


def _child(place: Place, paths: Sequence[Path]) -> dict[str, Any]:
    words = [*place.command, str(_CHILD), str(place.rounds), *map(str, paths)]
    done = subprocess.run(words, env={**os.environ, **place.variables}, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise CommandFailed("\n".join([f"failed: {shlex.join(words)}", *done.stderr.splitlines()[-_LINES_SHOWN:]]))
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured
