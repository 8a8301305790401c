"""One process of the section "quantize_cost".

python calibration_cost.py memory COUNT             calibrate mnist with histograms on so many digits
python calibration_cost.py seconds ROUNDS RESULT    EfficientNet-Lite0: the float model once, and both ranges
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolchain import Calibrate, Quantize, Trace, load_samples, samples_from
from toolchain.job import sized_batches
from toolchain.samples.digits import as_inputs, load_digits
from toolchain.zoo.resolve import load_model


def memory(count: int) -> None:
    """Digits moved by some pixels, as many as wanted, made one by one."""
    digits = load_digits()
    random = np.random.default_rng(0)

    def images() -> Iterator[Any]:
        for index in range(count + 1):
            yield np.roll(as_inputs(digits.images[index % 4000][None])[0], random.integers(-2, 3, 2), (1, 2))

    samples = samples_from(images(), calibration_count=count, judging_count=1)
    traced = Trace(example_inputs=samples.first_inputs())(load_model("mnist").module)
    Calibrate(samples=samples, histograms=True)(traced)


def seconds(rounds: int, result: Path) -> None:
    """In turn, so that a machine that slows down meets all three."""
    import torch

    module = load_model("efficientnet_lite0").module
    samples = sized_batches(load_samples("photos", calibration_count=100, judging_count=1))
    traced = Trace(example_inputs=samples.first_inputs())(module)

    def once() -> None:
        with torch.inference_mode():
            for batch in samples.calibration():
                module(torch.from_numpy(batch.inputs[0]))

    def minmax() -> None:
        Quantize()(Calibrate(samples=samples)(traced))

    def percentile() -> None:
        Quantize(ranges="percentile")(Calibrate(samples=samples, histograms=True)(traced))  # type: ignore[arg-type]

    ways: dict[str, Callable[[], None]] = {"float model once": once, "min-max": minmax, "percentile": percentile}
    found: dict[str, list[float]] = {name: [] for name in ways}
    once()
    for _ in range(rounds):
        for name, way in ways.items():
            before = time.perf_counter()
            way()
            found[name].append(time.perf_counter() - before)
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        memory(int(sys.argv[2]))
    else:
        seconds(int(sys.argv[2]), Path(sys.argv[3]))
