"""A depthwise separable network whose channels are scaled apart by up to 2^8, its function unchanged, per tensor.

Behind each depthwise convolution channel c is multiplied by 2^k(c) before its ReLU and divided by it in the pointwise
convolution that reads it: ReLU(s x) = s ReLU(x) for s > 0, and powers of two change no float.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from bars import Figures, Findings
from hard.ds_cnn import DsCnn
from hard.training import seeded, train
from ours_quantized import better_than, in_format
from quantize_shop import Judged, QuantizeShop, check_format, judge_file, predict_torch, worst
from torch import nn

from toolchain.samples import samples_from
from toolchain.samples.digits import as_inputs, load_digits

DOUBLINGS, MOST_LOST_DB = 8, 1.0
CALIBRATION = 100
TENSOR = {"numbers": "w8a8_per_tensor"}
WAYS: dict[str, dict[str, Any]] = {"min-max": {"method": "given"}, "auto": in_format(better_than(60.0, None))}
"""No network reaches 60 dB: the ladder is climbed to its end, but for what leaves int8."""


def measure_section(shop: QuantizeShop, quick: bool) -> Findings:
    found = Findings("quantize_depthwise", f"depthwise channels scaled apart by up to 2^{DOUBLINGS}, w8a8 per tensor")
    digits = load_digits()
    images = as_inputs(digits.images)[:, 0]
    plain = train(
        seeded(DsCnn), images[digits.training], digits.labels[digits.training], cache=shop.sources.cache, epochs=4,
        learning_rate=4e-3, augment=lambda batch: batch,
    )  # fmt: skip
    networks = {"unscaled": plain, "scaled": scaled(plain)}
    calibration = images[digits.training[:CALIBRATION]]
    judging, labels = images[digits.judging], digits.labels[digits.judging]
    samples = samples_from({"image": calibration}, judging={"image": judging}, calibration_count=CALIBRATION)
    wanted = predict_torch(plain, judging)
    change = float(np.abs(predict_torch(networks["scaled"], judging) - wanted).max())
    judged: dict[tuple[str, str], Judged] = {}
    for name, module in networks.items():
        for way, options in WAYS.items():
            shop.say(f"{name}, {way} ...")
            made = shop.ours("depthwise", module, samples, options={**options, **TENSOR})
            check_format(found, f"{name}, {way}", made)
            files = {s: judge_file(path, [judging], wanted, labels) for s, path in made.files.items()}
            judged[name, way] = worst(files)
            found.facts[f"{name}, {way}"] = {s: vars(j) for s, j in files.items()} | {"ladder": made.ladder}
    rows = [(f"{n}, ours {w}", f"{j.sqnr_db:.2f}", f"{j.same_class:.1%}") for (n, w), j in judged.items()]
    rows += _peers(found, shop, networks, calibration, judging, wanted)
    found.figures.append(Figures("worse of our two files", ("network, whose", "SQNR dB", "same class"), tuple(rows)))
    lost = judged["unscaled", "auto"].sqnr_db - judged["scaled", "auto"].sqnr_db
    found.at_most("scaled apart: dB lost to the unscaled network", lost, MOST_LOST_DB)
    found.notes.append(f"float networks differ by {change:.1e} at most")
    return found


def scaled(plain: nn.Module) -> nn.Module:
    """The same function with depthwise channels up to 2^DOUBLINGS apart."""
    import torch

    module = copy.deepcopy(plain)
    random = np.random.default_rng(0)
    layers = list(module.separable)
    for index in range(0, len(layers), 6):  # depthwise, norm, ReLU, pointwise, norm, ReLU
        norm, pointwise = layers[index + 1], layers[index + 3]
        scales = torch.from_numpy(2.0 ** random.integers(0, DOUBLINGS + 1, norm.num_features)).float()
        with torch.no_grad():
            norm.weight *= scales
            norm.bias *= scales
            pointwise.weight /= scales[:, None, None]
    return module


def _peers(
    found: Findings, shop: QuantizeShop, networks: dict[str, nn.Module], calibration: Any, judging: Any, wanted: Any
) -> list[tuple[str, str, str]]:
    rows = []
    for name, module in networks.items():
        files = shop.peers.make(
            f"depthwise-{name}", module, {"image": calibration}, ways={"ort": ("tensor",)}, tools=("ort",)
        )
        for file in files:
            if file.path is not None:
                judged = judge_file(file.path, [judging], wanted)
                rows.append((f"{name}, {file.label}", f"{judged.sqnr_db:.2f}", f"{judged.same_class:.1%}"))
                found.facts[f"{name}, {file.label}"] = vars(judged)
    return rows
