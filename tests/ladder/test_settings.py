"""What rounding leaves open, as a value."""

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import Calibrate, Quantize, Trace, samples_from
from toolchain.engine import range_choice


def test_the_percentile_holds_where_ranges_are_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    choose = range_choice.choose_measured
    monkeypatch.setattr(
        range_choice, "choose_measured", lambda *a, **k: asked.append(k["percentile"]) or choose(*a, **k)
    )
    samples = samples_from(np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32))
    calibrated = Calibrate(samples=samples)(Trace(example_inputs=(torch.zeros(1, 8),))(nn.Linear(8, 4)))
    Quantize(ranges="auto", percentile=90.0, samples=samples)(calibrated)
    assert asked == [90.0]
