"""The target's gates beside what was measured: a verdict each, and a line for everything that misses one.

One table, `RULES`: the gate's name in the TOML, which way it bounds, what it is measured on, and how a miss is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite, isnan
from typing import TypeAlias

from toolchain.targets import Gates
from toolchain.validation.results import Agreement, Bound, RuntimeResult, Validation, Verdict

Measured: TypeAlias = Iterable[tuple[float, str]]
"""(figure, where it was measured), in evaluation order."""


_FIRST = "first diverging tensor"


@dataclass(frozen=True)
class Rule:
    """One gate. `says` puts a figure and the bound that it misses in words."""

    gate: str
    bound: Bound
    measure: Callable[[Validation], Measured]
    says: Callable[[float, float], str]

    def misses(self, figure: float, wanted: float) -> bool:
        # written so that what is not a number misses
        return not (figure <= wanted if self.bound is Bound.AT_MOST else figure >= wanted)


def judge(found: Validation, gates: Gates) -> Validation:
    """`found` with a verdict for each gate the target sets and a line for each miss."""
    verdicts: list[Verdict] = []
    missed: list[str] = []
    for rule in RULES:
        wanted = getattr(gates, rule.gate)
        if wanted is not None:
            measured = list(rule.measure(found))
            verdicts.append(_verdict(rule, wanted, measured))
            missed += _missed(rule, wanted, measured)
    origin = _where_error_arises(found) if missed and not missed[0].startswith(_FIRST) else None
    return replace(found, verdicts=tuple(verdicts), missed=tuple(missed), origin=origin)


def _where_error_arises(found: Validation) -> str | None:
    """Where every op computes what it should, the tensor before which the error is far smaller: there rounding costs
    most."""
    layers = [tensor for tensor in found.tensors if tensor.op not in ("input", "reshape") and isfinite(tensor.sqnr_db)]
    drops = [(before.sqnr_db - after.sqnr_db, before, after) for before, after in pairwise(layers)]
    if not drops:
        return None
    _, before, tensor = max(drops, key=lambda drop: drop[0])
    return (
        f"every op computes what it specifies; rounding costs most at {tensor.name} ({tensor.op}, {tensor.source}), "
        f"from {before.sqnr_db:.1f} dB to {tensor.sqnr_db:.1f} dB"
    )


def _verdict(rule: Rule, wanted: float, measured: list[tuple[float, str]]) -> Verdict:
    if not measured:
        return Verdict(rule.gate, rule.bound, wanted, None, None, None)
    sign = 1 if rule.bound is Bound.AT_MOST else -1
    worst, where = max(measured, key=lambda pair: inf if isnan(pair[0]) else sign * pair[0])
    return Verdict(rule.gate, rule.bound, wanted, worst, where, not rule.misses(worst, wanted))


def _missed(rule: Rule, wanted: float, measured: list[tuple[float, str]]) -> Iterator[str]:
    failing = [(figure, where) for figure, where in measured if rule.misses(figure, wanted)]
    if rule.gate == "op_steps":
        # the first in evaluation order is where to look
        failing = [(figure, f"{_FIRST}: {where}") for figure, where in failing[:1]]
    for figure, where in failing:
        yield f"{where}: {rule.says(figure, wanted)}"


def _op_steps(found: Validation) -> Measured:
    seen = {runtime for tensor in found.tensors for runtime in tensor.op_steps}
    for result in found.runtimes:
        if result.max_error_steps is not None and result.runtime not in seen:
            yield inf, f"no op of {result.file} could be seen in {result.runtime}"
    for tensor in found.tensors:
        for runtime, steps in tensor.op_steps.items():
            yield steps, f"{tensor.name} ({tensor.op}, {tensor.source}) in {runtime}"


def _output_share(found: Validation) -> Measured:
    return ((pair.share_within, _pair(pair)) for pair in found.agreements if pair.gated)


def _runtime_same_class(found: Validation) -> Measured:
    for pair in found.agreements:
        if pair.gated and pair.same_class is not None:
            yield pair.same_class, _pair(pair)


def _sqnr_db(found: Validation) -> Measured:
    return ((result.sqnr_db, _place(result)) for result in _near(found))


def _cosine(found: Validation) -> Measured:
    return ((result.cosine, _place(result)) for result in _near(found))


def _same_class(found: Validation) -> Measured:
    for result in _changed(found):
        # a runtime that saw only a handful of samples says nothing about a share
        if result.same_class is not None and result.samples == found.samples:
            yield result.same_class, _place(result)


def _accuracy_drop(found: Validation) -> Measured:
    for result in _changed(found):
        if result.score is not None and found.reference_score is not None and result.samples == found.samples:
            yield 100 * (found.reference_score - result.score), _place(result)


def _float_error(found: Validation) -> Measured:
    return ((r.relative_error, _place(r)) for r in found.runtimes if r.max_error_steps is None and not r.is_reduced)


def _changed(found: Validation) -> Iterator[RuntimeResult]:
    """Files that stray from the float reference on purpose: of rounded or of compressed weights."""
    return (r for r in found.runtimes if r.max_error_steps is not None or r.is_reduced or r.is_compressed)


def _near(found: Validation) -> Iterator[RuntimeResult]:
    """Those whose outputs are to stay near. Pruning changes the function and training moves it on: where there are
    classes or a score these say whether it serves, else nearness is all there is."""
    return (r for r in _changed(found) if not r.is_compressed or (r.same_class is None and r.score is None))


def _place(result: RuntimeResult) -> str:
    return f"{result.file} in {result.runtime}"


def _pair(pair: Agreement) -> str:
    return f"{pair.first} and {pair.second}"


RULES: tuple[Rule, ...] = (
    Rule("op_steps", Bound.AT_MOST, _op_steps, lambda x, w: f"off by {x:.0f} steps, allowed {w:.0f}"),
    Rule("output_share", Bound.AT_LEAST, _output_share, lambda x, w: f"outputs agree on {x:.2%}, wanted {w:.0%}"),
    Rule(
        "runtime_same_class", Bound.AT_LEAST, _runtime_same_class, lambda x, w: f"one class on {x:.2%}, wanted {w:.1%}"
    ),
    Rule("sqnr_db", Bound.AT_LEAST, _sqnr_db, lambda x, w: f"SQNR {x:.1f} dB, wanted {w:.1f}"),
    Rule("cosine", Bound.AT_LEAST, _cosine, lambda x, w: f"cosine {x:.5f}, wanted {w}"),
    Rule("same_class", Bound.AT_LEAST, _same_class, lambda x, w: f"same class as float on {x:.1%}, wanted {w:.1%}"),
    Rule("accuracy_drop", Bound.AT_MOST, _accuracy_drop, lambda x, w: f"falls by {x:.2f} points, allowed {w}"),
    Rule("float_error", Bound.AT_MOST, _float_error, lambda x, w: f"error {x:.1e} of the range, allowed {w:.0e}"),
)
