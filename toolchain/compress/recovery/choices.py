"""What recovery training can be told by name. Without torch, so that options are read without it."""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """Losses known by name: nearness to the teacher's outputs, or cross entropy with the labels."""

    OUTPUTS = "outputs"
    CROSS_ENTROPY = "cross_entropy"


class Optimizer(StrEnum):
    """`adamw` decays weights apart from their gradient, `sgd` has momentum 0.9."""

    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"


class Schedule(StrEnum):
    """How the learning rate falls: not at all, evenly, along half a cosine."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class BatchNorm(StrEnum):
    """What batch norms normalise by while weights move: the statistics they came with, the same but estimated anew
    after every epoch, or those of each batch (as in ordinary training), and estimated anew as well."""

    FROZEN = "frozen"
    REESTIMATED = "reestimated"
    BATCH = "batch"


class Device(StrEnum):
    """Where training runs; `auto` is CUDA where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
