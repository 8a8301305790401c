"""EfficientNet-Lite0 at w8a8 per channel, per tensor, and with 4-bit weights, on crops that calibrated nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from bars import Figures, Findings
from hard.peers import PeerFile
from ours_quantized import better_than, in_format, nearest
from pictures import pictures
from quantize_shop import Judged, QuantizeShop, check_format, judge_file, predict_torch, worst

from toolchain.zoo.resolve import load_model

MODEL, CALIBRATION = "efficientnet_lite0", 100
CROPS, QUICK_CROPS = 350, 140
MORE_DB, SAME, SAME_PER_TENSOR, SAME_INT4 = 3.0, 0.99, 0.97, 0.90
MOST_S, MOST_SIMPLE_S = 600.0, 30.0
PER_CHANNEL = ("minmax", "percentile", "entropy", "shipped", "mended")
WAYS = {"ort": ("minmax", "percentile", "tensor", "static4"), "litert": ("shipped", "mended")}
MARGIN_DB, MARGIN = 0.5, 0.005
"""What our ladder is told to reach beyond a bar: it judges by the calibration crops, the bar by others."""


def measure_section(shop: QuantizeShop, quick: bool) -> Findings:
    count = QUICK_CROPS if quick else CROPS
    samples, photographs = pictures(shop.sources, shop.folder, CALIBRATION, count)
    title = f"EfficientNet-Lite0, {CALIBRATION} calibration crops, {count} others judge ({photographs})"
    found = Findings("quantize_efficientnet", title)
    module = load_model(MODEL).module
    crops = np.concatenate([batch.inputs[0] for batch in samples.judging()])
    wanted = predict_torch(module, crops)
    peers = _peers(shop, module, samples, crops, wanted)
    ours: dict[str, tuple[Judged, float]] = {}
    for label, options in _ways(peers).items():
        shop.say(f"ours, {label} ...")
        made = shop.ours("efficientnet", MODEL, samples, options=options)
        check_format(found, label, made, options.get("weight_bits", 8))
        judged = {suffix: judge_file(path, [crops], wanted) for suffix, path in made.files.items()}
        ours[label] = worst(judged), made.seconds
        found.facts[label] = {"files": {s: vars(j) for s, j in judged.items()}, "seconds": made.seconds,
                              "ladder": made.ladder, "float_nodes": made.float_nodes}  # fmt: skip
    found.facts["peers"] = {file.label: vars(judged) for file, judged in peers.items()}
    rows = [(f"ours {label}", *_cells(judged), f"{seconds:.1f}") for label, (judged, seconds) in ours.items()]
    rows += [(file.label, *_cells(judged), f"{file.seconds:.1f}") for file, judged in peers.items()]
    found.figures.append(Figures("worse of our two files", ("whose", "SQNR dB", "same class", "seconds"), tuple(rows)))
    _judge(found, ours, peers)
    return found


def _ways(peers: dict[PeerFile, Judged]) -> dict[str, dict[str, Any]]:
    best = max((judged.sqnr_db for file, judged in peers.items() if file.way in PER_CHANNEL), default=19.5)
    tensor, narrow = {"numbers": "w8a8_per_tensor"}, {"weight_bits": 4}
    return {
        "min-max": nearest(),
        "percentile": {"method": "given", "ranges": "percentile", "histograms": True},
        "auto": in_format(better_than(best + MORE_DB + MARGIN_DB, SAME + MARGIN)),
        "per tensor, min-max": nearest(**tensor),
        "per tensor, auto": in_format(better_than(None, SAME_PER_TENSOR + MARGIN, **tensor)),
        "4-bit weights, nearest": nearest(**narrow),
        "4-bit weights, nearest, biases corrected": nearest(correct_bias=True, **narrow),
        "4-bit weights, auto": in_format(better_than(None, SAME_INT4 + 4 * MARGIN, **narrow)),
    }


def _peers(shop: QuantizeShop, module: Any, samples: Any, crops: Any, wanted: Any) -> dict[PeerFile, Judged]:
    given = {"image": np.concatenate([batch.inputs[0] for batch in samples.calibration()])}
    found = {}
    for file in shop.peers.make(MODEL, module, given, ways=WAYS):
        if file.path is None:
            shop.say(f"{file.label}: {file.error}")
            continue
        found[file] = judge_file(file.path, [crops], wanted)
    return found


def _cells(judged: Judged) -> tuple[str, str]:
    return f"{judged.sqnr_db:.2f}", f"{judged.same_class:.1%}"


def _judge(found: Findings, ours: dict[str, tuple[Judged, float]], peers: dict[PeerFile, Judged]) -> None:
    rivals = [judged.sqnr_db for file, judged in peers.items() if file.way in PER_CHANNEL]
    what = "per channel: SQNR over the best peer, dB"
    if rivals:
        found.at_least(what, ours["auto"][0].sqnr_db - max(rivals), MORE_DB)
    else:
        found.told(what, f"ours has {ours['auto'][0].sqnr_db:.2f}, no peers", f">= {MORE_DB}")
    for label, least in (("auto", SAME), ("per tensor, auto", SAME_PER_TENSOR), ("4-bit weights, auto", SAME_INT4)):
        judged, seconds = ours[label]
        found.at_least(f"{label}: same class", judged.same_class, least, "{:.1%}")
        found.at_most(f"{label}: seconds", seconds, MOST_S, "{:.0f}")
    for label in ("min-max", "percentile"):
        found.at_most(f"{label}: seconds", ours[label][1], MOST_SIMPLE_S, "{:.1f}")
