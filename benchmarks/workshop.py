"""Makes the files that are compared: ours and the peers', each in a process of its own that is measured.

Nothing is kept from one run of the benchmarks to the next. Within a run a file is made once, unless a section
asks for it anew to time it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
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
OURS, BARE, CHECKED, FLOAT_ENDS = "ours", "ours, nothing stored", "ours, and checked", "ours, float in- and outputs"
OUR_WAYS: dict[str, tuple[str, ...]] = {
    OURS: ("--store", "STORE"),
    BARE: (),
    CHECKED: ("--store", "STORE", "--check"),
    FLOAT_ENDS: ("--in-out", "float"),
}
"""Options of `ours.py`. The first does what `toolchain deploy` does: it keeps every finished stage (`STORE`)."""


@dataclass(frozen=True)
class Peer:
    """A way to a peer's file. `shipped` says whether its own documents lead there."""

    label: str
    script: str
    options: tuple[str, ...]
    suffix: str
    shipped: bool


PEERS: dict[str, Peer] = {
    "ort": Peer("onnxruntime s8", "onnxruntime_static.py", (), ".onnx", True),
    "ort-u8": Peer("onnxruntime u8", "onnxruntime_static.py", ("--activation", "u8"), ".onnx", False),
    "ort-percentile": Peer(
        "onnxruntime s8 percentile",
        "onnxruntime_static.py",
        ("--method", "percentile"),
        ".onnx",
        False,
    ),
    "litert": Peer("litert-torch", "litert_static.py", (), ".tflite", True),
    "litert-mended": Peer("litert-torch mended", "litert_static.py", ("--mended",), ".tflite", False),
}
"""onnxruntime's quantize_static (QDQ, per channel) after torch.onnx.export; litert-torch with ai-edge-quantizer's
static_wi8_ai8. Mended: its calibrator follows plain minima and maxima, not a moving average of them."""

PEER_PACKAGES = ("litert_torch", "ai_edge_quantizer", "onnxruntime", "efficientnet_lite_pytorch")


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

    def ours(self, name: str = OURS, *, anew: bool = False) -> Made:
        """Our two files of EfficientNet-Lite0, made in one of `OUR_WAYS`."""
        if anew or name not in self._made:
            out, store = self._empty("ours" if name == OURS else "ours-otherwise"), self._empty("store")
            options = [store if word == "STORE" else word for word in OUR_WAYS[name]]
            made = self._run(name, [sys.executable, SCRIPTS / "ours.py", "--out", out, *options], out / "cost.json")
            shutil.rmtree(store)
            files = {path.suffix: path for path in (out / "model.onnx", out / "model.tflite")}
            self._made[name] = Made(files, made.cost, made.stages_s)
        return self._made[name]

    def calibration_only(self, samples: int) -> Made:
        """Our process up to and with calibration."""
        out = self._empty("calibration")
        options = ["--out", out, "--samples", str(samples), "--until", "calibrate"]
        return self._run(f"calibrate {samples}", [sys.executable, SCRIPTS / "ours.py", *options], out / "cost.json")

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


_FINDS = "import importlib.util as i, sys; print(*(m for m in sys.argv[1:] if not i.find_spec(m)))"


def missing_packages(python: Path) -> list[str]:
    """The packages of `PEER_PACKAGES` that this interpreter does not find."""
    done = subprocess.run([python, "-c", _FINDS, *PEER_PACKAGES], capture_output=True, text=True, check=True)
    return done.stdout.split()


@dataclass(frozen=True)
class Candidate:
    """A file to be compared; `peer` is its name in PEERS, or None where it is ours."""

    path: Path
    peer: str | None = None

    @property
    def label(self) -> str:
        return PEERS[self.peer].label if self.peer else OURS

    @property
    def runtime(self) -> str:
        return RUNTIMES[self.path.suffix]

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size


RUNTIMES = {".onnx": "onnxruntime", ".tflite": "LiteRT"}


def candidates(shop: Workshop) -> list[Candidate]:
    """Our two files and those of all peers, made where they are not yet."""
    ours = [Candidate(path) for path in shop.ours().files.values()]
    names = PEERS if shop.peer_python else ()
    return ours + [Candidate(path, name) for name in names for path in shop.peer(name).files.values()]


def photos(calibration_count: int | None, judging_count: int | None) -> SampleSet:
    """Crops of photographs: those that calibrate, and others, of other photographs, that judge."""
    return load_samples("photos", calibration_count=calibration_count, judging_count=judging_count)
