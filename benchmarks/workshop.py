"""Makes the files that are compared: ours and the peers', each in a process of its own that is measured.

Nothing is kept from one run of the benchmarks to the next. Within a run a file is made once, unless a section
asks for it anew to time it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from processes import Cost, measure

from toolchain.samples import SampleSet, load_samples

SCRIPTS = Path(__file__).parent
CALIBRATION_COUNT = 100
OURS = "ours"


@dataclass(frozen=True)
class Peer:
    """A way to a peer's file. `shipped` says whether its own documents lead there."""

    label: str
    script: str
    options: tuple[str, ...]
    suffix: str
    shipped: bool


PEERS: dict[str, Peer] = {
    "ort": Peer("onnxruntime static, s8, min-max", "onnxruntime_static.py", (), ".onnx", True),
    "ort-u8": Peer(
        "onnxruntime static, u8, min-max", "onnxruntime_static.py", ("--activation", "u8"), ".onnx", False
    ),
    "ort-percentile": Peer(
        "onnxruntime static, s8, percentile",
        "onnxruntime_static.py",
        ("--method", "percentile"),
        ".onnx",
        False,
    ),
    "litert": Peer("litert-torch + ai-edge-quantizer", "litert_static.py", (), ".tflite", True),
    "litert-mended": Peer(
        "the same, calibration mended", "litert_static.py", ("--mended",), ".tflite", False
    ),
}
"""The first of each runtime, as shipped, are those whose cost is compared."""


@dataclass(frozen=True)
class Made:
    """Files by suffix, what the process took, and what it says its stages took."""

    files: dict[str, Path]
    cost: Cost
    stages_s: dict[str, float]


@dataclass
class Workshop:
    """`folder` holds all that is made; `peer_python` is the interpreter of the peers' venv, if any."""

    folder: Path
    peer_python: Path | None
    say: Callable[[str], None] = print
    _made: dict[str, Made] = field(default_factory=dict)

    def ours(self, *, anew: bool = False, stored: bool = True, check: bool = False) -> Made:
        """Our two files of EfficientNet-Lite0; `stored` keeps finished stages, as `toolchain deploy` does."""
        key = OURS if stored else f"{OURS}, nothing stored"
        if anew or check or key not in self._made:
            out, store = self._empty("ours"), self._empty("store")
            options = [*(["--store", store] if stored else []), *(["--check"] if check else [])]
            made = self._run(
                key, [sys.executable, SCRIPTS / "ours.py", "--out", out, *options], out / "cost.json"
            )
            shutil.rmtree(store)
            files = {path.suffix: path for path in (out / "model.onnx", out / "model.tflite")}
            self._made[key] = Made(files, made.cost, made.stages_s)
        return self._made[key]

    def calibration_only(self, samples: int) -> Made:
        """Our process up to and with calibration."""
        out = self._empty("calibration")
        options = ["--out", out, "--samples", str(samples), "--until", "calibrate"]
        return self._run(
            f"calibrate {samples}", [sys.executable, SCRIPTS / "ours.py", *options], out / "cost.json"
        )

    def peer(self, name: str, *, anew: bool = False) -> Made:
        """A peer's file. Only where there is a `peer_python`."""
        assert self.peer_python is not None
        if anew or name not in self._made:
            peer, out = PEERS[name], self._empty(name)
            path = out / f"model{peer.suffix}"
            options = ["--calibration", self.calibration_file, "--out", path, *peer.options]
            command = [self.peer_python, SCRIPTS / "peers" / peer.script, *options]
            made = self._run(peer.label, command, out / "cost.json")
            self._made[name] = Made({peer.suffix: path}, made.cost, made.stages_s)
        return self._made[name]

    @cached_property
    def calibration_file(self) -> Path:
        """The crops that calibrate us, as an .npz for the peers."""
        path = self.folder / "calibration.npz"
        samples = photos(CALIBRATION_COUNT, None)
        np.savez(path, inputs=np.concatenate([batch.inputs[0] for batch in samples.calibration()]))
        return path

    def _run(self, label: str, command: list[Any], report: Path) -> Made:
        self.say(f"{label} ...")
        cost = measure([*command, "--json", report])
        return Made({}, cost, json.loads(report.read_text())["stages_s"])

    def _empty(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def photos(calibration_count: int | None, judging_count: int | None) -> SampleSet:
    """Crops of photographs: those that calibrate, and others, of other photographs, that judge."""
    return load_samples("photos", calibration_count=calibration_count, judging_count=judging_count)
