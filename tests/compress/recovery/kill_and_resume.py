"""Run by test_resume in a process of its own: recovers without interruption, then again and again with SIGKILL at
given moments, and prints the digest of what came out each time, how many steps were made and which was the first."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from toolchain.compress.recovery import checkpoint, training
from toolchain.pipeline import Pipeline
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.prune import Prune
from toolchain.stages.quantize import Quantize
from toolchain.stages.recover import Recover
from toolchain.stages.states import Model, load
from toolchain.stages.trace import Trace
from toolchain.store import Store, code_digest

VALUES = np.random.default_rng(0).standard_normal((48, 3, 8, 8)).astype(np.float32)
SAMPLES = samples_from(VALUES, calibration_count=40, judging_count=8, batch_size=8)
RECOVER = Recover(samples=SAMPLES, epochs=3, learning_rate=1e-3, learned_steps=True, temperature=2.0)


def make_model() -> Model:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    pruned = Prune(ratio=0.5, kind="weights")(Trace(example_inputs=SAMPLES.first_inputs())(module))
    return Quantize()(Calibrate(samples=SAMPLES)(pruned))


def in_a_process(run: Callable[[], Any]) -> int:
    """The signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        run()
        sys.stdout.flush()
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_after(steps: int) -> None:
    """Dies once so many steps are done, before they are in a checkpoint."""
    learn = training._Loop.learn

    def counted(loop, batch):
        learn(loop, batch)
        if loop.step == steps:
            kill()

    training._Loop.learn = counted


def killed_while_writing(times: int) -> None:
    """Dies with a half-written checkpoint beside the one before."""
    save, written = checkpoint.save_file, []

    def halved(tensors, path, metadata):
        save(tensors, path, metadata)
        written.append(path)
        if len(written) == times:
            os.truncate(path, 100)
            kill()

    checkpoint.save_file = halved


def run(model: Model, folder: Path, before: Callable[[], None] = lambda: None) -> None:
    before()
    steps: list[int] = []
    learn = training._Loop.learn

    def counted(loop, batch):
        steps.append(loop.step)
        learn(loop, batch)

    training._Loop.learn = counted
    made = Pipeline((RECOVER,)).run(model, store=Store(folder))
    print(made.digest, len(steps), steps[0], flush=True)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    checkpoint.EVERY_S = 0.0
    code_digest()  # once for all: the sources may be edited while this runs
    first = make_model()
    (root / "model").mkdir(parents=True)
    first.save(root / "model")
    in_a_process(lambda: run(first, root / "whole"))
    moments = {
        "early": lambda: killed_after(2),
        "between epochs": lambda: killed_after(10),
        "writing": lambda: killed_while_writing(7),
    }
    for name, moment in moments.items():
        folder = root / name
        assert in_a_process(lambda folder=folder, moment=moment: run(first, folder, moment)) == signal.SIGKILL
        # another process finds the model in a store, its tensors in another order and elsewhere in memory
        in_a_process(lambda folder=folder: run(load(root / "model"), folder))
    print(sorted(path.name for path in root.glob("*/checkpoints/*")))
