"""What the peers' scripts for any network share: float model and samples in, files of several ways and one JSON out.

`--ways` names what is made, one file each in `--out`; a way that fails is told with its error, and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_FLOAT_DB = 60.0
Samples = list["NDArray[Any]"]
Way = Callable[[Path], Any]
"""Writes the file it is given the path of."""


def arguments_of(description: str | None, ways: Mapping[str, str]) -> argparse.Namespace:
    """`ways` maps each way's name to its file's suffix."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the float model: .onnx or .pt2")
    parser.add_argument("--calibration", type=Path, required=True, help="npz: an array (N, ...) an input, in order")
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--json", type=Path, required=True, help="where the result goes")
    parser.add_argument("--ways", default=",".join(ways), help=f"of {', '.join(ways)} [all]")
    parser.add_argument("--transformer", action="store_true", help="the network is a transformer")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def load_samples(path: Path) -> tuple[list[str], Samples]:
    """Names of the inputs and their arrays (N, ...)."""
    with np.load(path) as archive:
        return list(archive.files), [archive[name] for name in archive.files]


def load_program(path: Path) -> Any:
    """The module of an exported program. Its weights are laid out anew: litert_torch misreads those that come back from
    a file with strides of their own, and gives a float file that computes something else."""
    import torch

    module = torch.export.load(path).module()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.contiguous()
    module.eval = lambda: module  # what export gives is in eval mode and refuses to be told
    return module


def check_float(found: Any, wanted: Any) -> None:
    """Refuse a float conversion that is not the float model, whose error would pass for one of quantization."""
    found, wanted = (np.asarray(array, np.float64) for array in (found, wanted))
    noise = float(((found - wanted) ** 2).sum())
    decibels = 10 * np.log10(float((wanted**2).sum()) / max(noise, 1e-300))
    if not decibels >= LEAST_FLOAT_DB:
        raise RuntimeError(f"the float file is {decibels:.1f} dB from the model: no figure of quantization")


def make_all(
    arguments: argparse.Namespace, ways: Mapping[str, Way], suffixes: Mapping[str, str], packages: tuple[str, ...]
) -> None:
    """Each way that is asked for, timed; the result as JSON."""
    made: dict[str, dict[str, Any]] = {}
    for name in arguments.ways.split(","):
        path = arguments.out / f"{name}{suffixes[name]}"
        started = time.perf_counter()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                ways[name](path)
            made[name] = {"file": str(path), "seconds": round(time.perf_counter() - started, 2)}
        except (Exception, SystemExit) as error:  # whatever a peer raises is its result
            traceback.print_exc()
            made[name] = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"[:300]}
    versions = {name: version(name) for name in packages}
    arguments.json.write_text(json.dumps({"made": made, "versions": versions}, indent=2) + "\n")
