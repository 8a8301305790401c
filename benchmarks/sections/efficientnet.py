"""What both files of EfficientNet-Lite0 cost: our one process against the peers' two."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from bars import Figures, Findings
from processes import Cost, median_cost
from workshop import BARE, CALIBRATION_COUNT, CHECKED, OURS, PEERS, Made, Workshop

MOST_TIME, MOST_MEMORY = 0.5, 1.0
ROUNDS, QUICK_ROUNDS = 3, 1
RIVALS = ("ort", "litert")


def measure_section(shop: Workshop, quick: bool) -> Findings:
    found = Findings("efficientnet", f"both files of EfficientNet-Lite0, {CALIBRATION_COUNT} samples, import to files")
    rounds = QUICK_ROUNDS if quick else ROUNDS
    runs = _runs(shop, rounds)
    found.figures += [_costs(runs), _stages(runs)]
    checked = shop.ours(CHECKED).stages_s["check"]
    found.notes.append(f"medians of {rounds} round(s), in turn; judging our files takes {checked:.1f} s on top")
    found.notes.append("ours decodes and crops the photographs inside the time; peers are given an .npz of the crops")
    found.notes.append("where other work takes the cores, look at CPU seconds")
    found.facts = {
        "rounds": {n: [{"cost": vars(m.cost), "stages_s": m.stages_s} for m in made] for n, made in runs.items()},
        "check_s": checked,
    }
    _judge(found, runs)
    return found


def _runs(shop: Workshop, rounds: int) -> dict[str, list[Made]]:
    """Every process `rounds` times, in turn."""
    if shop.peer_python:
        _ = shop.calibration_file  # made before anything is timed
    runs: dict[str, list[Made]] = {}
    for _ in range(rounds):
        runs.setdefault(OURS, []).append(shop.ours(anew=True))
        for name in RIVALS if shop.peer_python else ():
            runs.setdefault(name, []).append(shop.peer(name, anew=True))
        runs.setdefault(BARE, []).append(shop.ours(BARE, anew=True))
    return runs


def _judge(found: Findings, runs: Mapping[str, Sequence[Made]]) -> None:
    time, memory = "wall time, ours / (onnxruntime + litert-torch)", "peak memory, ours / the larger peer"
    if not set(RIVALS) <= set(runs):
        found.told(time, "no peers", f"<= {MOST_TIME:.2f}")
        found.told(memory, "no peers", f"<= {MOST_MEMORY:.2f}")
        return
    ratios = {name: _ratios(runs[name], *(runs[rival] for rival in RIVALS)) for name in (OURS, BARE)}
    found.at_most(time, ratios[OURS].wall_s, MOST_TIME)
    found.told("  with nothing stored", f"{ratios[BARE].wall_s:.2f}")
    found.told("  CPU time", f"{ratios[OURS].cpu_s:.2f}")
    found.at_most(memory, ratios[OURS].peak_mib, MOST_MEMORY)
    found.facts["ratios"] = {name: vars(ratio) for name, ratio in ratios.items()}


def _ratios(ours: Sequence[Made], ort: Sequence[Made], litert: Sequence[Made]) -> Cost:
    """Ours over the sum of the peers (memory: over the larger), the median over the rounds of the ratio within one."""
    rounds = [(a.cost, b.cost, c.cost) for a, b, c in zip(ours, ort, litert, strict=True)]
    return Cost(
        wall_s=statistics.median(a.wall_s / (b.wall_s + c.wall_s) for a, b, c in rounds),
        cpu_s=statistics.median(a.cpu_s / (b.cpu_s + c.cpu_s) for a, b, c in rounds),
        peak_mib=statistics.median(a.peak_mib / max(b.peak_mib, c.peak_mib) for a, b, c in rounds),
    )


def _costs(runs: Mapping[str, Sequence[Made]]) -> Figures:
    rows = []
    for name, made in runs.items():
        cost = median_cost([m.cost for m in made])
        label = PEERS[name].label if name in PEERS else name
        rows.append((label, f"{cost.wall_s:.2f}", f"{cost.cpu_s:.2f}", f"{cost.peak_mib:.0f}"))
    return Figures("cost of the whole process", ("who", "wall s", "CPU s", "peak MiB"), tuple(rows))


def _stages(runs: Mapping[str, Sequence[Made]]) -> Figures:
    rows = []
    for name, made in runs.items():
        label = PEERS[name].label if name in PEERS else name
        for stage in made[0].stages_s:
            rows.append((label, stage, f"{statistics.median(m.stages_s[stage] for m in made):.2f}"))
            label = ""
    return Figures("where the time goes", ("who", "stage", "s"), tuple(rows))
