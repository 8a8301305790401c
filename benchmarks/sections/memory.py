"""Whether calibrating on ten times the samples needs more memory."""

from __future__ import annotations

from collections.abc import Sequence

from bars import Figures, Findings
from processes import Cost, median_cost
from workshop import CALIBRATION_COUNT, Workshop

MOST_GROWTH = 1.05
FACTOR = 10
ROUNDS, QUICK_ROUNDS = 3, 1


def measure_section(shop: Workshop, quick: bool) -> Findings:
    few, many = CALIBRATION_COUNT, FACTOR * CALIBRATION_COUNT
    found = Findings("memory", f"peak memory of calibrating EfficientNet-Lite0 on {many:,} samples and on {few}")
    rounds = QUICK_ROUNDS if quick else ROUNDS
    runs: dict[int, list[Cost]] = {few: [], many: []}
    for _ in range(rounds):
        for count, costs in runs.items():
            costs.append(shop.calibration_only(count).cost)
    medians = {count: median_cost(costs) for count, costs in runs.items()}
    rows = tuple(
        (f"{count:,}", f"{medians[count].wall_s:.1f}", f"{medians[count].peak_mib:.0f}", _range(costs))
        for count, costs in runs.items()
    )
    found.figures.append(Figures("the whole process", ("samples", "wall s", "peak MiB", "from - to"), rows))
    growth = medians[many].peak_mib / medians[few].peak_mib
    found.at_most(f"peak memory, {many:,} samples / {few}", growth, MOST_GROWTH, "{:.3f}")
    found.notes.append(f"medians of {rounds} round(s), in turn")
    found.facts = {str(count): [vars(cost) for cost in costs] for count, costs in runs.items()}
    return found


def _range(costs: Sequence[Cost]) -> str:
    peaks = [cost.peak_mib for cost in costs]
    return f"{min(peaks):.0f} - {max(peaks):.0f}"
