"""Microcontrollers by tflite-micro: arena, flash and outputs of networks, weights as lookup tables, what fits where."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from bars import Figures, Findings
from device_shop import CALIBRATION_COUNT, DeviceShop
from ours_quantized import make_files
from processes import ROOT

from toolchain import samples_from
from toolchain.backends import BACKENDS, Measured, Written
from toolchain.backends.tflite_micro.interpreter import run
from toolchain.devices.bundle import golden_rows
from toolchain.devices.golden import Samples
from toolchain.engine.run import predict
from toolchain.errors import BudgetError
from toolchain.graph import fold
from toolchain.job import Request, prepare
from toolchain.profiles import check_ram, load_profile

DEVICES = ("cortex-m4", "cortex-m7", "cortex-m55")
ARCHITECTURES = ("ds_cnn", "anomaly_autoencoder")
"""Of tests/zoo, untrained: DS-CNN (arXiv 1711.07128), the anomaly detector of MLPerf Tiny (arXiv 2106.07597)."""

CLUSTERS = 16
CLUSTERED = f"""
[[recipe]]
stage = "trace"
[[recipe]]
stage = "cluster"
clusters = {CLUSTERS}
[[recipe]]
stage = "calibrate"
[[recipe]]
stage = "quantize"
[[recipe]]
stage = "export"
"""
"""What lookup tables are for: few values a weight."""
UNTRAINED_COUNT, GOLDEN_COUNT = 24, 4
STACK_STEPS = 3
"""What FULLY_CONNECTED's rounding may add up to beside LiteRT's reference kernels."""


@dataclass(frozen=True)
class Network:
    """A float model and its calibration samples, each with a batch of 1."""

    name: str
    module: Any
    samples: np.ndarray
    clustered: bool = False


def measure_section(shop: DeviceShop, quick: bool) -> Findings:
    backend = BACKENDS["tflite_micro"]
    found = Findings("device_mcu", "microcontrollers by tflite-micro on this host, no board")
    line = backend.missing()
    if line is not None:
        found.notes.append(line)
        return found
    rows = [_measured(found, shop, network) for network in _networks(shop, quick)]
    columns = ("network", "arena", "of it head", "smallest", "flash", "reference", "TOSA", "flash, tables",
               "arena, tables")  # fmt: skip
    found.figures.append(Figures("bytes, and most steps from LiteRT's and TOSA's reference", columns, tuple(rows)))
    for device in DEVICES:
        _refused(found, shop, device)
    return found


def _networks(shop: DeviceShop, quick: bool) -> list[Network]:
    job = prepare(Request(model="mnist", calibration_count=CALIBRATION_COUNT, out=shop.folder / "mcu" / "mnist"))
    digits = np.concatenate([batch.inputs[0] for batch in job.samples.calibration()])
    found = [Network("mnist", job.model.module, digits)]
    for name in ARCHITECTURES[:1] if quick else ARCHITECTURES:
        sys.path.insert(0, str(ROOT))
        module, (samples,) = getattr(importlib.import_module(f"tests.zoo.{name}"), name)(UNTRAINED_COUNT)
        found.append(Network(name, module.eval(), samples))
    if not quick:
        last = found[-1]
        found.append(Network(f"{last.name}, {CLUSTERS} values", last.module, last.samples, clustered=True))
    return found


def _written(shop: DeviceShop, network: Network) -> Written:
    folder = shop.folder / "mcu" / network.name.replace(", ", "_").replace(" ", "_")
    given = (network.module, network.samples[:1])
    recipe = shop.folder / "clustered.toml"
    recipe.write_text(CLUSTERED)
    made = make_files(given, samples_from(network.samples), folder, target=DEVICES[0],
                      recipe=str(recipe) if network.clustered else "static")  # fmt: skip
    inputs = tuple((network.samples[at : at + 1],) for at in range(GOLDEN_COUNT))
    references = tuple(tuple(predict(made.model.reference, [row])) for row in inputs)
    content, model = made.files[".tflite"].read_bytes(), made.model.quantized
    rows = golden_rows("model.tflite", content, model, Samples(inputs, references))
    return Written("model.tflite", content, model, *rows)


def _measured(found: Findings, shop: DeviceShop, network: Network) -> tuple[str, ...]:
    shop.say(f"{network.name} in tflite-micro ...")
    written = _written(shop, network)
    measured = BACKENDS["tflite_micro"].measure(written, load_profile(DEVICES[0]))
    figures = measured.by_key
    own = run(written.content, written.inputs[:1], 2**25, outputs=len(written.expected[0])).arena
    assert own is not None
    found.at_most(f"{network.name}: arena off its own report", abs(figures["arena_bytes"] / own.total - 1), 0.01,
                  "{:.1%}")  # fmt: skip
    linear = any("FULLY_CONNECTED" in note for note in measured.notes)
    found.at_most(f"{network.name}: steps from LiteRT's reference kernels", figures["reference_steps"],
                  STACK_STEPS if linear else 0, "{:.0f}")  # fmt: skip
    if "tosa_steps" in figures:
        found.at_most(f"{network.name}: steps from the TOSA reference model", figures["tosa_steps"], 0, "{:.0f}")
    if "lut_flash_bytes" in figures:
        gained = len(written.content) - figures["lut_flash_bytes"]
        lost = figures["lut_arena_bytes"] - figures["arena_bytes"]
        found.at_least(f"{network.name}: flash that tables save less arena they take", gained - lost, 1, "{:,.0f}")
    found.facts[network.name] = figures
    found.notes += [f"{network.name}: {note}" for note in measured.notes if "lut" in note or "differ" in note]
    return (network.name, *_cells(measured))


def _cells(measured: Measured) -> tuple[str, ...]:
    keys = ("arena_bytes", "arena_head_bytes", "smallest_arena_bytes", "flash_bytes", "reference_steps", "tosa_steps",
            "lut_flash_bytes", "lut_arena_bytes")  # fmt: skip
    return tuple(f"{measured.by_key[key]:,.0f}" if key in measured.by_key else "-" for key in keys)


def _refused(found: Findings, shop: DeviceShop, device: str) -> None:
    """EfficientNet-Lite0 is told what it needs and what there is, before anything slow."""
    job = prepare(Request(model="efficientnet_lite0", target=device, out=shop.folder / "mcu" / device))
    graph = fold(job.pipeline.stages[0](job.model.module).graph)
    try:
        check_ram(graph, job.profile, device)
    except BudgetError as error:
        found.notes.append(error.what)
    else:
        found.at_least(f"efficientnet_lite0 is refused on {device}", 0, 1, "{:.0f}")
