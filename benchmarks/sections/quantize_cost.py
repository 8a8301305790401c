"""What calibration costs: memory of 10,000 samples and of 100, seconds of ranges against one run of the float model."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from bars import Figures, Findings
from processes import Cost, measure, median_cost
from quantize_shop import QuantizeShop

SCRIPT = Path(__file__).parents[1] / "calibration_cost.py"
FEW, MANY, QUICK_MANY = 100, 10_000, 2_000
MOST_GROWTH, MOST_TIME = 1.05, 1.2
ROUNDS, QUICK_ROUNDS = 3, 1


def measure_section(shop: QuantizeShop, quick: bool) -> Findings:
    many = QUICK_MANY if quick else MANY
    found = Findings(
        "quantize_cost", f"calibrating on {many:,} samples and on {FEW}; seconds of EfficientNet-Lite0's ranges"
    )
    _memory(found, shop, many, QUICK_ROUNDS if quick else ROUNDS)
    _seconds(found, shop, QUICK_ROUNDS if quick else ROUNDS)
    return found


def _memory(found: Findings, shop: QuantizeShop, many: int, rounds: int) -> None:
    costs: dict[int, list[Cost]] = {FEW: [], many: []}
    for _ in range(rounds):
        for count, runs in costs.items():
            shop.say(f"calibrate on {count:,} ...")
            runs.append(measure([sys.executable, SCRIPT, "memory", str(count)]))
    medians = {count: median_cost(runs) for count, runs in costs.items()}
    rows = tuple((f"{count:,}", f"{c.wall_s:.1f}", f"{c.peak_mib:.0f}") for count, c in medians.items())
    found.figures.append(Figures("mnist with histograms, whole process", ("samples", "wall s", "peak MiB"), rows))
    growth = medians[many].peak_mib / medians[FEW].peak_mib
    found.at_most(f"peak memory, {many:,} samples / {FEW}", growth, MOST_GROWTH, "{:.3f}")
    found.facts["memory"] = {str(count): [vars(run) for run in runs] for count, runs in costs.items()}


def _seconds(found: Findings, shop: QuantizeShop, rounds: int) -> None:
    result = shop.folder / "seconds.json"
    shop.say("seconds of ranges ...")
    measure([sys.executable, SCRIPT, "seconds", str(rounds), result])
    seconds: dict[str, list[float]] = json.loads(result.read_text())
    rows = tuple((name, f"{statistics.median(found_s):.2f}") for name, found_s in seconds.items())
    found.figures.append(Figures("100 crops, EfficientNet-Lite0", ("what", "seconds"), rows))
    for way in ("min-max", "percentile"):
        ratios = [ours / once for ours, once in zip(seconds[way], seconds["float model once"], strict=True)]
        found.at_most(f"{way} / the float model once", statistics.median(ratios), MOST_TIME)
    found.facts["seconds"] = seconds
