"""What a quantized network is to reach, and what was measured of one.

The shortfall of a figure is how far it misses what is wanted, in units in which one is grave: 10 dB of SQNR, 1 % of
the samples in another class, 1 point of the score. A goal is met where the largest shortfall is zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

_GRAVE_DB, _GRAVE_SHARE, _GRAVE_POINTS = 10.0, 0.01, 1.0


@dataclass(frozen=True)
class Fidelity:
    """How near outputs are to the float reference's: SQNR and balanced SQNR in dB (see `toolchain.fidelity`), the share
    of samples with the same class (None where the outputs are no classes) and the points by which the user's metric
    falls (None without one)."""

    sqnr_db: float
    balanced_db: float
    same_class: float | None = None
    score_drop: float | None = None

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

    def is_met(self, found: Fidelity) -> bool:
        return self.shortfall(found) == 0.0

    def _shortfalls(self, found: Fidelity) -> Iterator[float]:
        if self.sqnr_db is not None:
            yield (self.sqnr_db - found.worse_db) / _GRAVE_DB
        if found.same_class is not None and self.least_same_class is not None and found.score_drop is None:
            yield (self.least_same_class - found.same_class) / _GRAVE_SHARE
        if found.score_drop is not None and self.score_drop is not None:
            yield (found.score_drop - self.score_drop) / _GRAVE_POINTS

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
