"""What the sections of `make bench-device` share: our deployments, and litert-torch's int8 files of the same models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hard.peers import PeerBench, PeerFile

from toolchain.deployment import Deployment, deploy
from toolchain.job import Request, prepare

CALIBRATION_COUNT = 100


@dataclass
class DeviceShop:
    """`folder` holds what is made in this run; peers' files are kept beside it."""

    folder: Path
    peers: PeerBench
    say: Callable[[str], None] = print
    _made: dict[tuple[str, str, str], Deployment] = field(default_factory=dict)

    def deployed(self, model: str, target: str, recipe: str = "static") -> Deployment:
        """A zoo model deployed to a target: files, bundle, report. Made once a run."""
        key = model, target, recipe
        if key not in self._made:
            self.say(f"{model} to {target} ...")
            out = self.folder / target / model
            self._made[key] = deploy(model, target=target, recipe=recipe, out=out, store=None,
                                     calibration_count=CALIBRATION_COUNT)  # fmt: skip
        return self._made[key]

    def peer(self, model: str, way: str = "shipped") -> PeerFile | None:
        """litert-torch and ai-edge-quantizer's static int8 file of a zoo model, calibrated by the samples that
        calibrate ours; None without its venv, or where it fails (the reason is said)."""
        if not self.peers.has("litert"):
            return None
        job = prepare(Request(model=model, calibration_count=CALIBRATION_COUNT, out=self.folder / "peer" / model))
        arrays: list[Any] = [batch.inputs for batch in job.samples.calibration()]
        given = {f"input_{port}": np.concatenate(column) for port, column in enumerate(zip(*arrays, strict=True))}
        made = self.peers.make(model, job.model.module, given, tools=("litert",), ways={"litert": (way,)})
        for file in made:
            if file.path is None:
                self.say(f"{file.label}: {file.error}")
        return next((file for file in made if file.path is not None), None)
