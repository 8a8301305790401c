"""The ladder: where it stops, that it is the same twice, and that what it claims is what the files do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bars import Bar, Figures, Findings
from ours_quantized import OurFiles, better_than
from quantize_shop import QuantizeShop, judge_file, predict_torch

from toolchain.samples import load_samples
from toolchain.zoo.resolve import load_model

MOST_APART_DB = 0.3
GOALS_DB = {"easy": 20.0, "hard": 33.0}
CALIBRATION = 200
FREE = ("bias correction",)
NARROW: dict[str, Any] = {"weight_bits": 4}


def measure_section(shop: QuantizeShop, quick: bool) -> Findings:
    found = Findings("quantize_ladder", "mnist with 4-bit weights under two goals, each climbed twice for one seed")
    samples = load_samples("mnist", calibration_count=CALIBRATION)
    images = np.concatenate([batch.inputs[0] for batch in samples.calibration()])
    wanted = predict_torch(load_model("mnist").module, images)
    for name, goal in GOALS_DB.items():
        shop.say(f"{name} goal ...")
        first, second = (
            shop.ours(f"ladder-{name}-{turn}", "mnist", samples, options={**better_than(goal, None), **NARROW})
            for turn in (1, 2)
        )
        _judge(found, name, goal, first, second)
        _claims(found, name, first, images, wanted)
    return found


def _judge(found: Findings, name: str, goal: float, first: OurFiles, second: OurFiles) -> None:
    rows = tuple(
        (
            str(rung["rung"]),
            "-" if rung["worst"] is None else f"{rung['worst']['sqnr_db']:.2f}",
            "-" if rung["gain_db"] is None else f"{rung['gain_db']:+.2f}",
            "yes" if rung["kept"] else "no",
            "yes" if rung["meets_goal"] else "no",
        )
        for rung in first.ladder
    )
    columns = ("rung", "worst file, dB", "gain", "kept", "meets the goal")
    found.figures.append(Figures(f"{name} goal, {goal:.0f} dB, {first.seconds:.0f} s", columns, rows))
    same = first.ladder == second.ladder and all(
        path.read_bytes() == second.files[suffix].read_bytes() for suffix, path in first.files.items()
    )
    found.bars.append(Bar(f"{name} goal: twice the same", "yes", "yes" if same else "no", same))
    stops = stops_where_met(first.ladder)
    found.bars.append(Bar(f"{name} goal: nothing dear after it is met", "yes", "yes" if stops else "no", stops))
    found.facts[name] = {"ladder": first.ladder, "seconds": [first.seconds, second.seconds]}


def stops_where_met(ladder: Sequence[dict[str, Any]]) -> bool:
    """Whether nothing but rungs that cost no time stands behind the first that meets the goal."""
    met = next((index for index, rung in enumerate(ladder) if rung["meets_goal"]), len(ladder))
    return all(rung["rung"] in FREE for rung in ladder[met + 1 :])


def _claims(found: Findings, name: str, made: OurFiles, images: Any, wanted: Any) -> None:
    """Simulation against file on the same samples at every rung; the last rung against the exported files."""
    apart = [
        abs(rung["judged"]["simulated_db"] - db)
        for rung in made.ladder
        if rung["judged"] and rung["judged"]["simulated_db"] is not None
        for db in rung["judged"]["same_samples_db"].values()
    ]
    found.at_most(f"{name} goal: simulation and file, dB apart at most", max(apart, default=0.0), MOST_APART_DB)
    kept = [rung for rung in made.ladder if rung["kept"] and rung["judged"]]
    for kind, claimed in kept[-1]["judged"]["files"].items() if kept else ():
        db = judge_file(made.files[f".{kind}"], [images], wanted).sqnr_db
        found.at_most(f"{name} goal: claimed and measured anew, {kind}", abs(db - claimed["sqnr_db"]), MOST_APART_DB)
