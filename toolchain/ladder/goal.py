"""What a quantized network is to reach, and what was measured of one.

The shortfall of a figure is how far it misses what is wanted, in units in which one is grave: 10 dB of SQNR, 1 % of
the samples in another class, 1 point of the score. A goal is met where the largest shortfall is zero.

A share p of n samples in the same class is known to its standard error, sqrt(p (1 - p) / n), the fall of a score to
that of the jackknife (`ladder.judge`). Where two networks are no further apart than that, SQNR says which is nearer to
the goal; and a score may fall by no more than what is allowed, less its error or half of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any

_GRAVE_DB, _GRAVE_SHARE, _GRAVE_POINTS = 10.0, 0.01, 1.0


@dataclass(frozen=True)
class Fidelity:
    """How near outputs are to the float reference's: SQNR and balanced SQNR in dB (see `toolchain.fidelity`), the share
    of samples with the same class (None where the outputs are no classes), the points by which the user's metric falls
    (None without one) with its standard error, and how many samples that was measured on (0: not told)."""

    sqnr_db: float
    balanced_db: float
    same_class: float | None = None
    score_drop: float | None = None
    score_error: float = 0.0
    samples: int = 0

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def worse_db(self) -> float:
        """The lower of the two SQNRs."""
        return min(self.sqnr_db, self.balanced_db)


@dataclass(frozen=True)
class Goal:
    """Bounds, each None where it does not matter: SQNR of the outputs in dB (of all features alike too), share of
    samples with the same class, points by which the score may fall. Without a metric of the user's, `score_drop`
    bounds the share of samples whose class changes, which bounds any loss of accuracy."""

    sqnr_db: float | None = None
    same_class: float | None = None
    score_drop: float | None = None

    def shortfall(self, found: Fidelity) -> float:
        """The largest of all figures; 0 where the goal is met."""
        return max((0.0, *self._shortfalls(found)))

    def is_nearer(self, found: Fidelity, before: Fidelity) -> bool:
        """Whether `found` is nearer to the goal than `before`; whatever meets the goal is nearer than what does not."""
        if self.is_met(found) != self.is_met(before):
            return self.is_met(found)
        if _same_classes(found, before):
            before = replace(before, same_class=found.same_class)
        if _same_score(found, before):
            before = replace(before, score_drop=found.score_drop, score_error=found.score_error)
        one, other = self.shortfall(found), self.shortfall(before)
        return one < other or (one == other and found.worse_db > before.worse_db)

    def is_met(self, found: Fidelity) -> bool:
        return self.shortfall(found) == 0.0

    def _shortfalls(self, found: Fidelity) -> Iterator[float]:
        if self.sqnr_db is not None:
            yield (self.sqnr_db - found.worse_db) / _GRAVE_DB
        if found.same_class is not None and self.least_same_class is not None and found.score_drop is None:
            yield (self.least_same_class - found.same_class) / _GRAVE_SHARE
        if found.score_drop is not None and self.score_drop is not None:
            # samples that cannot tell the allowed fall at all would ask for float whatever is done
            kept = min(found.score_error, 0.5 * self.score_drop)
            yield (found.score_drop + kept - self.score_drop) / _GRAVE_POINTS

    @property
    def least_same_class(self) -> float | None:
        """The stricter of the two bounds on changed classes."""
        bounds = [] if self.same_class is None else [self.same_class]
        bounds += [] if self.score_drop is None else [1 - self.score_drop / 100]
        return max(bounds, default=None)

    def __str__(self) -> str:
        parts = [] if self.sqnr_db is None else [f"SQNR >= {self.sqnr_db:g} dB"]
        if self.least_same_class is not None:
            parts.append(f"same class >= {self.least_same_class:.1%}")
        if self.score_drop is not None:
            parts.append(f"score falls <= {self.score_drop:g} points")
        return ", ".join(parts) or "none"


def _same_classes(one: Fidelity, other: Fidelity) -> bool:
    """Whether shares of the same class differ by no more than one standard error."""
    if one.same_class is None or other.same_class is None or not other.samples:
        return False
    share = other.same_class
    # of no error seen among n, at most one is likely
    error = max(sqrt(share * (1 - share) / other.samples), 1 / other.samples)
    return abs(one.same_class - share) <= error + 1e-9


def _same_score(one: Fidelity, other: Fidelity) -> bool:
    """Whether scores fall by amounts that differ by no more than one standard error."""
    if one.score_drop is None or other.score_drop is None:
        return False
    return abs(one.score_drop - other.score_drop) <= max(one.score_error, other.score_error)
