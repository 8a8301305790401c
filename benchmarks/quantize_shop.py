"""What the sections of `make bench-quantize` share: sources, peers, our files, and files judged on arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bars import Bar, Findings
from hard import Array, HardNetwork, Sources
from hard.files import predictor
from hard.peers import PeerBench
from ours_quantized import OurFiles, make_files

from toolchain.fidelity import Comparison


@dataclass(frozen=True)
class Judged:
    """A file against the float module: SQNR of the first output in dB, share of samples of the same class, and, where
    there are labels, the share that is right."""

    sqnr_db: float
    same_class: float
    right: float | None = None


@dataclass
class QuantizeShop:
    """`folder` holds what is made in this run; peers' files and trained networks are kept beside it."""

    folder: Path
    sources: Sources
    peers: PeerBench
    digits: Path | None = None
    say: Callable[[str], None] = print

    def ours(self, name: str, model: Any, samples: Any, **options: Any) -> OurFiles:
        """Our two files; options are those of `make_files`."""
        return make_files(model, samples, self.folder / name, **options)

    @staticmethod
    def shapes(network: HardNetwork) -> list[tuple[int, ...]]:
        """Shapes of the outputs for one sample."""
        return [array.shape for array in network.predict_float([array[:1] for array in network.judging.values()])]


def judge_file(path: Path, inputs: Sequence[Array], wanted: Array, labels: Array | None = None) -> Judged:
    """A file of class scores on inputs (N, ...), against the float module's `wanted` (N, C)."""
    return judge_scores(predictor(path, [(1, *wanted.shape[1:])])(inputs)[0], wanted, labels)


def judge_scores(outputs: Array, wanted: Array, labels: Array | None = None) -> Judged:
    compared = Comparison()
    compared.add([outputs], [wanted])
    right = None if labels is None else float((outputs.argmax(-1) == labels).mean())
    return Judged(compared.sqnr_db, float((outputs.argmax(-1) == wanted.argmax(-1)).mean()), right)


def check_format(found: Findings, what: str, made: OurFiles, weight_bits: int = 8) -> None:
    """A bar on what a row is called: files that left 8-bit activations, or weights of so many bits, earn no figure."""
    wanted = f"int8, weights of {weight_bits} bits"
    measured = f"{'+'.join(sorted(made.activation_types))}, weights of {made.weight_bits} bits"
    found.bars.append(Bar(f"{what}: format", wanted, measured, made.keeps(weight_bits)))


def worst(found: Mapping[str, Judged]) -> Judged:
    """The worse figure of each kind over our two files."""
    rights = [judged.right for judged in found.values() if judged.right is not None]
    return Judged(
        min(judged.sqnr_db for judged in found.values()),
        min(judged.same_class for judged in found.values()),
        min(rights) if rights else None,
    )


def predict_torch(module: Any, inputs: Array, batch: int = 25) -> Array:
    """The float module's scores for inputs (N, ...)."""
    import torch

    with torch.inference_mode():
        parts = [module(torch.from_numpy(inputs[i : i + batch])).numpy() for i in range(0, len(inputs), batch)]
    return np.concatenate(parts)
