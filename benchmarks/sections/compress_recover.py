"""What a step of recovery costs beside one of an ordinary torch loop with torch's own fake quantization.

The network is MobileNet-like: a strided convolution, six depthwise separable blocks, a mean, a linear layer; batches of
32 pictures, Adam, one thread. Theirs is `torch.ao`'s quantization-aware training, as it comes and with its observers
switched off. Steps are timed in turn: theirs run inside our loop, between two steps of it, and are taken out again.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from bars import Figures, Findings
from compress_shop import CompressShop
from torch import Tensor, nn

from toolchain.compress.recovery.batches import EpochBatches
from toolchain.compress.recovery.objective import Objective
from toolchain.compress.recovery.training import Training, train
from toolchain.samples import SampleSet, samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.quantize import Quantize
from toolchain.stages.states import QuantizedModel
from toolchain.stages.trace import Trace

MOST = 1.25
BATCH, SIZE, CLASSES = 32, 96, 100
STEPS, QUICK_STEPS, WARM_UP = 24, 8, 2
CHANNELS, STRIDES = (32, 64, 128, 128, 256, 256, 512), (1, 2, 1, 2, 1, 2)


def measure_section(shop: CompressShop, quick: bool) -> Findings:
    found = Findings("compress_recover", f"a training step, batch {BATCH} of 3x{SIZE}x{SIZE}, one thread")
    network, samples = _network(), _samples()
    quantized = _quantized(network, samples)
    theirs = {
        "float, no fake quantization": _torch_step(deepcopy(network).train(), samples),
        "torch.ao": _torch_step(_fake_quantized(network, samples, observers=True), samples),
        "torch.ao, observers off": _torch_step(_fake_quantized(network, samples, observers=False), samples),
    }
    ours = {
        "straight-through": (False, Objective(teacher=quantized.reference, weight_pull=1e-2)),
        "learned steps": (True, Objective(teacher=quantized.reference, weight_pull=1e-2)),
        "soft classes, teacher's features": (False, _with_features(quantized)),
    }
    steps = QUICK_STEPS if quick else STEPS
    rows = []
    for name, (learned, objective) in ours.items():
        shop.say(f"recover, {name}: {steps} steps beside torch's ...")
        mine, others = _in_turn(quantized, samples, objective, learned, theirs, steps)
        ratios = {
            label: statistics.median(a / b for a, b in zip(mine, ms, strict=True)) for label, ms in others.items()
        }
        rows.append((f"recover, {name}", f"{statistics.median(mine):.0f}", *(f"{r:.2f}" for r in ratios.values())))
        found.facts[name] = {"ms": mine, **others}
        found.at_most(f"{name}: step / torch.ao's", ratios["torch.ao"], MOST)
        found.told(f"{name}: step / torch.ao's with observers off", f"{ratios['torch.ao, observers off']:.2f}")
    medians = {label: statistics.median(ms) for label, ms in others.items()}
    rows += [(label, f"{ms:.0f}", *([""] * len(theirs))) for label, ms in medians.items()]
    found.figures.append(Figures("a step", ("loop", "ms", *(f"/ {label}" for label in theirs)), tuple(rows)))
    found.notes.append("medians over steps taken in turn; ours with the regulariser and with targets of the teacher")
    return found


class _Separable(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = _layer(nn.Conv2d(fan_in, fan_in, 3, stride, 1, groups=fan_in, bias=False))
        self.pointwise = _layer(nn.Conv2d(fan_in, fan_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def _layer(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


def _network() -> nn.Module:
    torch.manual_seed(0)
    blocks = [_Separable(a, b, s) for a, b, s in zip(CHANNELS, CHANNELS[1:], STRIDES, strict=False)]
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], CLASSES))
    network = nn.Sequential(_layer(nn.Conv2d(3, CHANNELS[0], 3, 2, 1, bias=False)), *blocks, *pool)
    with torch.no_grad():
        for _ in range(4):  # statistics of something
            network(torch.randn(BATCH, 3, SIZE, SIZE))
    return network.eval()


def _samples() -> SampleSet:
    values = np.random.default_rng(0).standard_normal((BATCH * 4, 3, SIZE, SIZE)).astype(np.float32)
    return samples_from(values, calibration_count=BATCH * 3, judging_count=BATCH, batch_size=BATCH)


def _quantized(network: nn.Module, samples: SampleSet) -> QuantizedModel:
    traced = Trace(example_inputs=samples.first_inputs())(network)
    return Quantize()(Calibrate(samples=samples)(traced))


def _with_features(model: QuantizedModel) -> Objective:
    from toolchain.compress.recovery.features import choose_features

    features = choose_features(model.graph, model.reference)
    return Objective(teacher=model.reference, temperature=4.0, features=features, weight_pull=1e-2)


def _fake_quantized(network: nn.Module, samples: SampleSet, *, observers: bool) -> nn.Module:
    from torch.ao.quantization import disable_observer, get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    example = torch.from_numpy(samples.first_inputs()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_qat_fx(deepcopy(network).train(), get_default_qat_qconfig_mapping("x86"), (example,))
    prepared(_pictures(samples))  # scales of something
    if not observers:
        prepared.apply(disable_observer)
    return prepared


def _pictures(samples: SampleSet) -> Tensor:
    return torch.from_numpy(next(samples.calibration()).inputs[0])


def _torch_step(network: nn.Module, samples: SampleSet) -> Callable[[], None]:
    pictures, target = _pictures(samples), torch.zeros(BATCH, CLASSES)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        loss = (network(pictures) - target).square().mean()
        loss.backward()
        optimizer.step()

    return step


def _in_turn(
    model: QuantizedModel,
    samples: SampleSet,
    objective: Objective,
    learned: bool,
    theirs: dict[str, Callable[[], None]],
    steps: int,
) -> tuple[list[float], dict[str, list[float]]]:
    """Milliseconds of each of our steps, and of theirs taken just before it."""
    mine: list[float] = []
    others: dict[str, list[float]] = {name: [] for name in theirs}
    left = [0.0]

    def on_step(step: int, _: int) -> None:
        now = time.perf_counter()
        if step:
            mine.append(1e3 * (now - left[0]))
        for name, run in theirs.items():
            started = time.perf_counter()
            run()
            others[name].append(1e3 * (time.perf_counter() - started))
        left[0] = time.perf_counter()

    batches = EpochBatches(samples=samples)
    training = Training(epochs=-(-(steps + WARM_UP + 1) // batches.steps_per_epoch), learning_rate=1e-5)
    train(
        model.to_module(learned_steps=learned),
        objective,
        batches,
        training,
        steps_per_epoch=batches.steps_per_epoch,
        on_step=on_step,
    )
    return mine[WARM_UP:], {name: ms[WARM_UP : len(mine)] for name, ms in others.items()}
