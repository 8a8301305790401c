"""Whether calibrating on ten times the samples needs more memory."""

from __future__ import annotations

from bars import Figures, Findings
from processes import median_cost
from workshop import CALIBRATION_COUNT, Workshop

MOST_GROWTH = 1.05
FACTOR = 10


def measure_section(shop: Workshop, quick: bool) -> Findings:
    few, many = CALIBRATION_COUNT, FACTOR * CALIBRATION_COUNT
    found = Findings("memory", f"peak memory of calibrating EfficientNet-Lite0 on {many:,} samples and on {few}")
    runs = {count: [shop.calibration_only(count) for _ in range(1 if quick else 2)] for count in (few, many)}
    costs = {count: median_cost([made.cost for made in made_all]) for count, made_all in runs.items()}
    rows = tuple((f"{count:,}", f"{cost.wall_s:.1f}", f"{cost.peak_mib:.0f}") for count, cost in costs.items())
    found.figures.append(Figures("the whole process", ("samples", "wall s", "peak MiB"), rows))
    found.at_most(
        f"peak memory, {many:,} samples / {few}",
        costs[many].peak_mib / costs[few].peak_mib,
        MOST_GROWTH,
        "{:.3f}",
    )
    found.facts = {str(count): vars(cost) for count, cost in costs.items()}
    return found
