"""What pruning can be told by name. Without torch, so that options are read without it."""

from __future__ import annotations

from enum import StrEnum


class Importance(StrEnum):
    """How much a channel or a weight matters (`importance`: formulas and papers)."""

    L1 = "l1"
    L2 = "l2"
    BATCH_NORM = "batch_norm"
    PATH = "path"
    CONTRIBUTION = "contribution"
    ACTIVATION_AWARE = "activation_aware"
    TAYLOR = "taylor"
    FISHER = "fisher"
    APOZ = "apoz"
    RANDOM = "random"


NEEDS_SAMPLES = frozenset(
    {
        Importance.CONTRIBUTION,
        Importance.ACTIVATION_AWARE,
        Importance.TAYLOR,
        Importance.FISHER,
        Importance.APOZ,
    }
)
"""Importances that are measured."""

OF_WEIGHTS = frozenset(Importance) - {Importance.BATCH_NORM, Importance.PATH, Importance.APOZ}
"""Importances that single weights have; channels have all."""


class Measure(StrEnum):
    """What of a network a ratio is a share of."""

    COUNT = "count"
    MACS = "macs"
    PARAMETERS = "parameters"
    BYTES = "bytes"
    LATENCY = "latency"


class Scope(StrEnum):
    """Whether every layer loses the same share, or all together what matters least; `output` for single weights: every
    row of a weight, one output channel, loses the same share."""

    LOCAL = "local"
    GLOBAL = "global"
    OUTPUT = "output"


class Only(StrEnum):
    """Which layers lose single weights: 1x1 convolutions without groups are the ones whose zeros CPUs' sparse kernels
    skip, and hold most of what a mobile network computes."""

    POINTWISE = "pointwise"


class PruneSchedule(StrEnum):
    """When things go: at once, in rounds with training between them, or little by little while training."""

    ONE_SHOT = "one_shot"
    ITERATIVE = "iterative"
    GRADUAL = "gradual"
