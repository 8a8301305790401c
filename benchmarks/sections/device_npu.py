"""Arm Ethos-U by its compiler: what runs on the NPU, cycles and memory, beside litert-torch's file of the network."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bars import Figures, Findings
from device_shop import CALIBRATION_COUNT, DeviceShop
from ours_quantized import make_files
from processes import ROOT

from toolchain import lint, samples_from
from toolchain.backends.vela.compiler import compile_file
from toolchain.backends.vela.installation import missing, vela_options, vela_version
from toolchain.backends.vela.measure import NpuFile, compile_operators
from toolchain.backends.vela.readings import read_layers, read_summary
from toolchain.errors import ToolchainError
from toolchain.job import Request, prepare
from toolchain.profiles import load_profile

NETWORKS = ("mnist", "ds_cnn", "mobilenet_v1", "efficientnet_lite0")
ARCHITECTURES = ("ds_cnn", "mobilenet_v1")
"""Published architectures of tests/zoo, untrained: DS-CNN (arXiv 1711.07128), MobileNetV1 0.25 (arXiv 1704.04861)."""

BAR, OTHERS = "ethos-u55-128", ("ethos-u55-256", "ethos-u65-512", "ethos-u85-256")
UNTRAINED_COUNT = 24


@dataclass(frozen=True)
class Network:
    """A float model, its calibration samples `(N, ...)`, and the quantized file of ours."""

    name: str
    module: Any
    samples: np.ndarray
    content: bytes


def measure_section(shop: DeviceShop, quick: bool) -> Findings:
    found = Findings("device_npu", f"Arm Ethos-U by Vela {vela_version()}: estimates of the compiler, no board")
    line = missing()
    if line is not None:
        found.notes.append(line)
        return found
    for name in NETWORKS[:2] if quick else NETWORKS:
        shop.say(f"{name} to Ethos-U ...")
        network = _network(shop, name)
        _beside_peer(found, shop, network)
        _on_every_device(found, network)
    _refused(found)
    found.notes.append("cycles are Vela's estimate for the NPU; no operator of these files is left out of them")
    return found


def _network(shop: DeviceShop, name: str) -> Network:
    if name in ARCHITECTURES:
        sys.path.insert(0, str(ROOT))
        module, (samples,) = getattr(importlib.import_module(f"tests.zoo.{name}"), name)(UNTRAINED_COUNT)
        given: Any = (module.eval(), samples[:1])
    else:
        job = prepare(Request(model=name, calibration_count=CALIBRATION_COUNT, out=shop.folder / "npu" / name))
        module, given = job.model.module, name
        samples = np.concatenate([batch.inputs[0] for batch in job.samples.calibration()])
    made = make_files(given, samples_from(samples), shop.folder / "npu" / name, target=BAR)
    return Network(name, module, samples, made.files[".tflite"].read_bytes())


def _beside_peer(found: Findings, shop: DeviceShop, network: Network) -> None:
    profile = load_profile(BAR)
    ours = compile_operators("model.tflite", network.content, profile)
    found.at_least(f"{network.name}: share of multiply-adds on {BAR}", ours.macs_share, 1.0, "{:.1%}")
    found.at_least(f"{network.name}: share of operators on {BAR}", ours.ops_share, 1.0, "{:.1%}")
    what, cycles = f"{network.name}: cycles on {BAR}, ours / litert-torch", ours.summary.cycles
    path = _peer(shop, network)
    if path is None:
        found.told(what, f"{cycles:,}, no peer", "<= 1")
        return
    compiled = compile_file(path.read_bytes(), vela_options(profile))
    theirs, left = read_summary(compiled.summary), [row for row in read_layers(compiled.layers) if not row.on_npu]
    found.at_most(what, cycles / theirs.cycles, 1.0, "{:.4f}")
    found.facts[f"{network.name}_cycles"] = {"ours": cycles, "litert-torch": theirs.cycles}
    rows = [("ours", *_cells(ours.summary), len(ours.on_cpu)), ("litert-torch", *_cells(theirs), len(left))]
    columns = ("whose", "cycles", "SRAM KiB", "flash KiB", "operators on the CPU")
    found.figures.append(Figures(f"{network.name} on {BAR}", columns, tuple(tuple(map(str, row)) for row in rows)))


def _cells(summary: Any) -> tuple[str, str, str]:
    return f"{summary.cycles:,}", f"{summary.sram_bytes / 1024:.1f}", f"{summary.flash_bytes / 1024:.1f}"


def _peer(shop: DeviceShop, network: Network) -> Path | None:
    if not shop.peers.has("litert"):
        return None
    ways = {"litert": ("shipped",)}
    made = shop.peers.make(network.name, network.module, {"x": network.samples}, tools=("litert",), ways=ways)
    for file in made:
        if file.path is None:
            shop.say(f"{file.label}: {file.error}")
    return next((file.path for file in made if file.path is not None), None)


def _on_every_device(found: Findings, network: Network) -> None:
    rows = []
    for device in (BAR, *OTHERS):
        try:
            made = compile_operators("model.tflite", network.content, load_profile(device))
        except ToolchainError as error:
            found.notes.append(f"{network.name} on {device}: {error.what}")
            continue
        rows.append(_row(device, made))
        found.facts[f"{network.name}_{device}"] = vars(made.summary) | {"macs_share": made.macs_share}
    columns = ("device", "on NPU", "ms", "cycles", "SRAM", "flash", "DRAM", "weights", "encoded")
    found.figures.append(Figures(f"{network.name}: one file on every Ethos-U, memory in KiB", columns, tuple(rows)))


def _row(device: str, made: NpuFile) -> tuple[str, ...]:
    summary = made.summary
    sizes = (summary.sram_bytes, summary.flash_bytes, summary.dram_bytes, summary.weight_bytes,
             summary.encoded_weight_bytes)  # fmt: skip
    milliseconds = f"{1e3 * summary.cycles / summary.clock_hz:.3f}"
    return (device, f"{made.macs_share:.1%}", milliseconds, f"{summary.cycles:,}",
            *(f"{size / 1024:.1f}" for size in sizes))  # fmt: skip


def _refused(found: Findings) -> None:
    """A network with an op that the NPU has not, before Vela runs."""
    from torch import nn

    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Mish(), nn.Conv2d(8, 12, 3), nn.PixelShuffle(2))
    report = lint(network, target=BAR, example_inputs=(np.zeros((1, 3, 32, 32), np.float32),))
    told = [finding for finding in report.findings if finding.blocks and finding.why and finding.instead]
    found.at_least("unsupported ops told before Vela runs, with why and what instead, of 2", len(told), 2, "{:.0f}")
    found.notes += [str(finding) for finding in told]
