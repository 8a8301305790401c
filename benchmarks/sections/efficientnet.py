"""What both files of EfficientNet-Lite0 cost: our one process against the peers' two."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from bars import Figures, Findings
from processes import median_cost
from workshop import CALIBRATION_COUNT, PEERS, Made, Workshop

MOST_TIME, MOST_MEMORY = 0.5, 1.0
ROUNDS, QUICK_ROUNDS = 3, 1
_OURS, _BARE = "ours", "ours, nothing stored"


def measure_section(shop: Workshop, quick: bool) -> Findings:
    found = Findings(
        "efficientnet", f"both files of EfficientNet-Lite0, {CALIBRATION_COUNT} samples, import to files"
    )
    rounds = QUICK_ROUNDS if quick else ROUNDS
    runs: dict[str, list[Made]] = {}
    _ = shop.peer_python and shop.calibration_file  # made before anything is timed
    for _ in range(rounds):
        runs.setdefault(_OURS, []).append(shop.ours(anew=True))
        if shop.peer_python:
            for name in ("ort", "litert"):
                runs.setdefault(name, []).append(shop.peer(name, anew=True))
        runs.setdefault(_BARE, []).append(shop.ours(anew=True, stored=False))
    found.figures += [_costs(runs), _stages(runs)]
    checked = shop.ours(check=True).stages_s["check"]
    found.notes.append(
        f"medians of {rounds} round(s), in turn; judging our files takes {checked:.1f} s on top"
    )
    found.notes.append(
        "we decode and crop the photographs inside the time; the peers are given an .npz of the crops"
    )
    found.facts = {
        "rounds": {
            name: [{"cost": vars(m.cost), "stages_s": m.stages_s} for m in made]
            for name, made in runs.items()
        },
        "check_s": checked,
    }
    _judge(found, runs)
    return found


def _judge(found: Findings, runs: Mapping[str, Sequence[Made]]) -> None:
    time, memory = "wall time, ours / (onnxruntime + litert)", "peak memory, ours / the larger peer"
    if "ort" not in runs:
        found.told(time, "no peers", f"<= {MOST_TIME:.2f}")
        found.told(memory, "no peers", f"<= {MOST_MEMORY:.2f}")
        return
    ratios = {name: _ratios(runs[name], runs["ort"], runs["litert"]) for name in (_OURS, _BARE)}
    found.at_most(time, ratios[_OURS][0], MOST_TIME)
    found.told("the same with nothing stored", f"{ratios[_BARE][0]:.2f}")
    found.at_most(memory, ratios[_OURS][1], MOST_MEMORY)
    found.facts["ratios"] = {
        name: dict(zip(("time", "memory"), pair, strict=True)) for name, pair in ratios.items()
    }


def _ratios(ours: Sequence[Made], ort: Sequence[Made], litert: Sequence[Made]) -> tuple[float, float]:
    """Wall and peak memory, each the median over the rounds of the ratio within a round."""
    rounds = [(a.cost, b.cost, c.cost) for a, b, c in zip(ours, ort, litert, strict=True)]
    time = statistics.median(a.wall_s / (b.wall_s + c.wall_s) for a, b, c in rounds)
    memory = statistics.median(a.peak_mib / max(b.peak_mib, c.peak_mib) for a, b, c in rounds)
    return time, memory


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
