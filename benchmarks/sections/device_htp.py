"""Qualcomm's HTP by its compiler and host emulator: what runs on the NPU, and steps of every op from onnxruntime's CPU.
The emulator's cycles are no performance figure and are not shown."""

from __future__ import annotations

import sys
import time
from typing import Any

from bars import Figures, Findings
from device_shop import CALIBRATION_COUNT, DeviceShop
from processes import ROOT

from toolchain import lint, samples_from
from toolchain.backends.qnn import QNN
from toolchain.backends.qnn.compiler import version
from toolchain.deployment import Deployment, deploy

TARGET, RECIPE = "qualcomm-htp", "static"
NETWORKS = ("mnist", "mobilenet_v2", "efficientnet_lite0")
"""MobileNetV2 is tests/zoo's, in full width and untrained, with batch norms that have seen its inputs."""

UNTRAINED_COUNT, UNTRAINED_SIZE = 24, 224
MOST_STEPS = 1.0


def measure_section(shop: DeviceShop, quick: bool) -> Findings:
    line = QNN.missing()
    if line is not None:
        return Findings("device_htp", "Qualcomm HTP by QNN", notes=[line])
    found = Findings(
        "device_htp", f"Qualcomm HTP by onnxruntime-qnn {version()}: compiler and host emulator, no device"
    )
    rows = []
    for name in NETWORKS[:1] if quick else NETWORKS:
        started = time.perf_counter()
        done = _deployed(shop, name)
        seconds = time.perf_counter() - started
        (measured,) = done.facts["backends"]["measured"]
        figures = {row["key"]: float(row["value"]) for row in measured["figures"]}
        found.at_least(f"{name}: ops on the NPU of every SoC", figures["npu_nodes_share"], 1.0, "{:.1%}")
        found.at_least(f"{name}: multiply-adds on the NPU", figures["npu_macs_share"], 1.0, "{:.1%}")
        found.at_most(f"{name}: steps of one op from onnxruntime's CPU", figures["htp_op_steps"], MOST_STEPS, "{:g}")
        rows.append(_row(name, measured, figures, seconds))
        found.facts[name] = figures | {"seconds": seconds}
    columns = ("network", "ops", "output steps", "outputs within a step", "largest context", "deployed in")
    found.figures.append(Figures(f"onnxruntime-qnn {measured['version']}; the worst of them", columns, tuple(rows)))
    _refused(found)
    found.notes.append("outputs lie further apart than ops, as deviations of a step add up over a network's depth")
    return found


def _row(name: str, measured: dict[str, Any], figures: dict[str, float], seconds: float) -> tuple[str, ...]:
    steps, share = figures["htp_output_steps"], figures["htp_output_share"]
    context = f"{figures['context_bytes'] / 2**20:.2f} MiB"
    return name, str(len(measured["placements"])), f"{steps:g}", f"{share:.1%}", context, f"{seconds:.0f} s"


def _deployed(shop: DeviceShop, name: str) -> Deployment:
    if name != "mobilenet_v2":
        return shop.deployed(name, TARGET, RECIPE)
    sys.path.insert(0, str(ROOT))
    import torch

    from tests.zoo.mobilenet_v2 import MobileNetV2
    from tests.zoo.networks import pictures, settled

    shop.say(f"{name} to {TARGET} ...")
    torch.manual_seed(0)
    inputs = pictures(UNTRAINED_COUNT, 3, UNTRAINED_SIZE)
    out = shop.folder / TARGET / name
    return deploy(settled(MobileNetV2(), inputs), target=TARGET, recipe=RECIPE, calibration=samples_from(inputs),
                  out=out, store=None, calibration_count=min(CALIBRATION_COUNT, UNTRAINED_COUNT * 4 // 5))  # fmt: skip


def _refused(found: Findings) -> None:
    """An op that QNN lacks is named before anything is compiled."""
    import numpy as np
    import torch
    from torch import nn

    class Erf(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.erf(x)

    module = nn.Sequential(nn.Conv2d(3, 8, 3), Erf(), nn.Conv2d(8, 4, 1))
    report = lint(module, target=TARGET, example_inputs=(np.zeros((1, 3, 16, 16), np.float32),))
    said = [str(finding) for finding in report.findings]
    found.told("a network with erf, before QNN runs", said[0] if said else "nothing is said")
