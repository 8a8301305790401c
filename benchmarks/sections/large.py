"""What writing a network of 100 M parameters takes: memory beside the model's own, and time by size."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bars import Figures, Findings
from processes import Cost, measure, median_cost
from workshop import Workshop

MOST_EXTRA = 2.5
"""Extra peak memory, in the network's own float bytes."""

MOST_SECONDS_GROWTH = 1.5
"""Seconds a parameter of the large network, over those of the small one; 1 is linear."""

SMALL, LARGE = 6, 24  # layers; 4.2 M parameters each
LAYER_MIB = 2048 * 2049 * 4 / 2**20
ROUNDS, QUICK_ROUNDS = 3, 1
FORMATS = ("onnx", "tflite")
NUMBERS = ("float32", "w8a8", "dynamic_int8")

_SCRIPT = Path(__file__).parents[1] / "large_network.py"


def measure_section(shop: Workshop, quick: bool) -> Findings:
    del shop
    found = Findings("large", f"writing {LARGE} linear layers, {LARGE * LAYER_MIB * 2**20 / 4e6:.0f} M parameters")
    rounds = QUICK_ROUNDS if quick else ROUNDS
    rows = []
    for numbers in NUMBERS:
        costs = {
            (layers, kind): _cost(layers, kind, numbers, rounds)
            for layers in (SMALL, LARGE)
            for kind in ("none", *FORMATS)
        }
        for kind in FORMATS:
            extra = (costs[LARGE, kind].peak_mib - costs[LARGE, "none"].peak_mib) / (LARGE * LAYER_MIB)
            seconds = {n: costs[n, kind].cpu_s for n in (SMALL, LARGE)}
            growth = seconds[LARGE] / seconds[SMALL] / (LARGE / SMALL)
            rows.append((f"{kind} {numbers}", f"{extra:.2f}", f"{seconds[SMALL]:.2f}", f"{seconds[LARGE]:.2f}"))
            found.at_most(f"{kind} {numbers}: extra peak memory / float bytes", extra, MOST_EXTRA)
            found.at_most(f"{kind} {numbers}: CPU time a parameter, large / small", growth, MOST_SECONDS_GROWTH)
        found.facts[numbers] = {f"{layers} {kind}": vars(cost) for (layers, kind), cost in costs.items()}
    columns = ("file", "extra / float bytes", f"CPU s, {SMALL} layers", f"CPU s, {LARGE} layers")
    found.figures.append(Figures("writing alone", columns, tuple(rows)))
    found.notes.append(f"medians of {rounds} round(s); the peak of the same process without writing is taken off")
    return found


def _cost(layers: int, kind: str, numbers: str, rounds: int) -> Cost:
    """Peak memory of the process, and the CPU seconds of writing alone, which it measures itself."""
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result")
        for _ in range(rounds):
            whole = measure([sys.executable, _SCRIPT, str(layers), kind, numbers, result])
            costs.append(replace(whole, cpu_s=float(result.read_text().split()[1])))
    return median_cost(costs)
