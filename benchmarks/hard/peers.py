"""The peers' files of a network, made in venvs of their own from one float ONNX file and one exported program.

Made once for a network, its samples and the scripts, and kept: a file's name is the hash of all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hard.files import predictor
from hard.network import Array
from toolchain.fidelity import sqnr_db

LEAST_FLOAT_DB = 60.0
SCRIPTS = Path(__file__).parents[1] / "peers"


@dataclass(frozen=True)
class PeerTool:
    """A script, the venv it runs in, and the ways of it that are made by default."""

    label: str
    script: str
    venv: str
    module: str
    takes: str
    ways: tuple[str, ...]


TOOLS: dict[str, PeerTool] = {
    "ort": PeerTool("onnxruntime", "onnxruntime_network.py", ".venv-peers", "onnxruntime", ".onnx",
                    ("minmax", "percentile", "entropy", "tensor", "dynamic")),
    "litert": PeerTool("litert-torch", "litert_network.py", ".venv-peers", "litert_torch", ".pt2",
                       ("shipped", "mended", "dynamic")),
    "nncf": PeerTool("nncf", "nncf_network.py", ".venv-nncf", "nncf", ".onnx", ("shipped",)),
    "mct": PeerTool("model-compression-toolkit", "mct_network.py", ".venv-mct", "model_compression_toolkit", ".pt2",
                    ("shipped",)),
}  # fmt: skip
"""Static ways but `dynamic`, which keeps activations in float."""

STATIC_WAYS = ("minmax", "percentile", "entropy", "tensor", "tensor-entropy", "shipped", "mended", "u8")


@dataclass(frozen=True)
class PeerFile:
    """What one way of one tool gave: a file, or the error."""

    tool: str
    way: str
    path: Path | None
    seconds: float = 0.0
    error: str = ""

    @property
    def label(self) -> str:
        return f"{TOOLS[self.tool].label} {self.way}"

    @property
    def is_static(self) -> bool:
        return self.way in STATIC_WAYS


@dataclass(frozen=True)
class PeerBench:
    """Where the venvs are (`root`) and what is made is kept (`folder`)."""

    root: Path
    folder: Path
    limit_s: float = 900.0
    say: Callable[[str], None] = print

    def has(self, tool: str) -> bool:
        return self._python(TOOLS[tool]).is_file()

    def missing(self) -> list[str]:
        """Tools without a venv."""
        return [tool for tool in TOOLS if not self.has(tool)]

    def make(
        self,
        name: str,
        module: Any,
        calibration: Mapping[str, Array],
        *,
        tools: Iterable[str] = TOOLS,
        ways: Mapping[str, Sequence[str]] | None = None,
        transformer: bool = False,
    ) -> list[PeerFile]:
        """Files of every tool that is here."""
        given = self._export(name, module, calibration)
        found: list[PeerFile] = []
        for tool in tools:
            if self.has(tool):
                wanted = (ways or {}).get(tool, TOOLS[tool].ways)
                found += self._run(tool, wanted, given, transformer)
        return found

    def _run(self, tool: str, ways: Sequence[str], given: Path, transformer: bool) -> list[PeerFile]:
        kind = TOOLS[tool]
        scripts = b"".join((SCRIPTS / script).read_bytes() for script in (kind.script, "_network.py"))
        out = given / f"{tool}-{hashlib.sha256(scripts + repr(ways).encode()).hexdigest()[:12]}"
        result = out / "result.json"
        if not result.is_file():
            out.mkdir(parents=True, exist_ok=True)
            self.say(f"{kind.label} on {given.name.rpartition('-')[0]} ...")
            command: list[Any] = [self._python(kind), SCRIPTS / kind.script, "--model", given / f"float{kind.takes}"]
            command += ["--calibration", given / "calibration.npz", "--out", out, "--json", result]
            command += ["--ways", ",".join(ways), *(["--transformer"] if transformer else [])]
            error = self._spawn(command, out / "log")
            if error:
                result.write_text(json.dumps({"made": {way: {"error": error} for way in ways}}, indent=2))
        made = json.loads(result.read_text())["made"]
        return [_peer_file(tool, way, facts) for way, facts in made.items()]

    def _spawn(self, command: list[Any], log: Path) -> str:
        """What went wrong, or nothing."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        try:
            with log.open("w") as printed:
                done = subprocess.run(command, stdout=printed, stderr=subprocess.STDOUT, timeout=self.limit_s,
                                      env=environment, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"not done after {self.limit_s:.0f} s"
        lines = log.read_text(errors="replace").strip().splitlines()
        return (lines[-1][:200] if lines else f"exit {done.returncode}") if done.returncode else ""

    def _export(self, name: str, module: Any, calibration: Mapping[str, Array]) -> Path:
        """A folder with the samples and the float network in both forms that peers take."""
        import torch

        whole = hashlib.sha256()
        for key, value in module.state_dict().items():
            whole.update(key.encode() + np.ascontiguousarray(value.detach().numpy()).tobytes())
        for key, array in calibration.items():
            whole.update(key.encode() + np.ascontiguousarray(array).tobytes())
        folder = self.folder / f"{name}-{whole.hexdigest()[:12]}"
        if (folder / "float.onnx").is_file():
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "calibration.npz", **calibration)
        inputs = tuple(torch.from_numpy(array[:1].copy()) for array in calibration.values())
        program, onnx_file = folder / "float.pt2", folder / "float.onnx"
        torch.export.save(torch.export.export(module, inputs), program)
        try:  # this exporter keeps a recurrent layer one operator, which the other unrolls
            torch.onnx.export(module, inputs, str(onnx_file), input_names=list(calibration), opset_version=17,
                              dynamo=False, external_data=False)  # fmt: skip
        except torch.onnx.errors.OnnxExporterError:
            command = [self._python(TOOLS["ort"]), SCRIPTS / "export_onnx.py", program, onnx_file, *calibration]
            self._spawn(command, folder / "export.log")
        self._check_float(onnx_file, module, calibration)
        return folder

    def _check_float(self, path: Path, module: Any, calibration: Mapping[str, Array]) -> None:
        """Leave no float file that is not the float model: its error would pass for one of quantization."""
        import torch

        if not path.is_file():
            return
        given = [array[:1] for array in calibration.values()]
        with torch.inference_mode():
            wanted = module(*(torch.from_numpy(array.copy()) for array in given))
        wanted = [array.numpy() for array in (wanted if isinstance(wanted, tuple) else (wanted,))]
        found = predictor(path, [array.shape for array in wanted])(given)
        decibels = sqnr_db(wanted[0], found[0])
        if not decibels >= LEAST_FLOAT_DB:
            path.unlink()
            self.say(f"{path.parent.name}: the float ONNX file is {decibels:.1f} dB from the model and is not used")

    def _python(self, kind: PeerTool) -> Path:
        return self.root / kind.venv / "bin" / "python"


def _peer_file(tool: str, way: str, facts: Mapping[str, Any]) -> PeerFile:
    made = PeerFile(tool, way, None, error=str(facts.get("error", "")))
    return replace(made, path=Path(facts["file"]), seconds=facts["seconds"]) if "file" in facts else made
