"""The float TFLite file of EfficientNet-Lite0 against litert-torch, and what writing both quantized files takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bars import Figures, Findings
from processes import ROOT, Cost, measure, median_cost
from workshop import SCRIPTS, Workshop

MOST_WALL, MOST_MEMORY = 0.35, 0.8
"""Of litert_torch.convert and export, whole processes."""

MOST_WRITING_S = 1.0
ROUNDS, QUICK_ROUNDS = 3, 1


def measure_section(shop: Workshop, quick: bool) -> Findings:
    found = Findings("conversion", "EfficientNet-Lite0 as a float TFLite file, tracing included")
    rounds = QUICK_ROUNDS if quick else ROUNDS
    ours = SCRIPTS / "float_conversion.py"
    commands: dict[str, list[str | Path]] = {"ours": [sys.executable, ours, "convert", shop.folder / "ours.tflite"]}
    if shop.peer_python is not None:
        script = SCRIPTS / "peers" / "litert_float.py"
        commands["litert-torch"] = [shop.peer_python, script, shop.folder / "litert.tflite"]
    costs = {who: _cost(command, rounds) for who, command in commands.items()}
    rows = [(who, f"{cost.wall_s:.2f}", f"{cost.cpu_s:.2f}", f"{cost.peak_mib:.0f}") for who, cost in costs.items()]
    found.figures.append(Figures("whole processes", ("who", "wall s", "CPU s", "peak MiB"), tuple(rows)))
    if "litert-torch" in costs:
        one, other = costs["ours"], costs["litert-torch"]
        found.at_most("wall time, ours / litert-torch", one.wall_s / other.wall_s, MOST_WALL)
        found.at_most("peak memory, ours / litert-torch", one.peak_mib / other.peak_mib, MOST_MEMORY)
    found.at_most("seconds of writing both quantized files", _writing_s(shop), MOST_WRITING_S)
    found.notes.append(f"medians of {rounds} round(s), in turn")
    found.facts["costs"] = {who: vars(cost) for who, cost in costs.items()}
    return found


def _cost(command: list[str | Path], rounds: int) -> Cost:
    return median_cost([measure(command) for _ in range(rounds)])


def _writing_s(shop: Workshop) -> float:
    command = [sys.executable, SCRIPTS / "float_conversion.py", "write", shop.folder / "written.tflite"]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()[-1])
