"""Each gate of the target beside what was measured: what `validation.gates` compares, passed ones too.

    {"gate": "sqnr_db", "bound": "at least", "wanted": 15.0, "measured": 25.9, "where": ..., "passed": true}

`measured` is the worst over files and runtimes; where nothing could be judged it and `passed` are None.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from toolchain.report.plain import finite
from toolchain.targets import Gates
from toolchain.validation.results import Agreement, RuntimeResult, Validation

Measured: TypeAlias = Iterable[tuple[float, str]]


def judged_gates(found: Validation, gates: Gates) -> list[dict[str, Any]]:
    """One entry for each gate the target sets, in the order of its TOML table."""
    rows = (
        _most("op_steps", gates.op_steps, _op_steps(found)),
        _least("output_share", gates.output_share, ((a.share_within, _pair(a)) for a in found.agreements)),
        _least("runtime_same_class", gates.runtime_same_class, _same_between_runtimes(found)),
        _least("sqnr_db", gates.sqnr_db, ((r.sqnr_db, _place(r)) for r in _integer(found))),
        _least("cosine", gates.cosine, ((r.cosine, _place(r)) for r in _integer(found))),
        _least("same_class", gates.same_class, _same_as_float(found)),
        _most("accuracy_drop", gates.accuracy_drop, _accuracy_drops(found)),
        _most("float_error", gates.float_error, ((r.relative_error, _place(r)) for r in _float(found))),
    )
    return [row for row in rows if row is not None]


def _most(gate: str, wanted: float | None, measured: Measured) -> dict[str, Any] | None:
    if wanted is None:
        return None
    worst, where = max(measured, default=(None, None), key=lambda pair: pair[0])
    passed = None if worst is None else worst <= wanted
    return {**_row(gate, "at most", wanted, worst), "where": where, "passed": passed}


def _least(gate: str, wanted: float | None, measured: Measured) -> dict[str, Any] | None:
    if wanted is None:
        return None
    worst, where = min(measured, default=(None, None), key=lambda pair: pair[0])
    passed = None if worst is None else worst >= wanted
    return {**_row(gate, "at least", wanted, worst), "where": where, "passed": passed}


def _row(gate: str, bound: str, wanted: float, worst: float | None) -> dict[str, Any]:
    return {"gate": gate, "bound": bound, "wanted": wanted, "measured": finite(worst)}


def _integer(found: Validation) -> Iterator[RuntimeResult]:
    return (result for result in found.runtimes if result.max_error_steps is not None)


def _float(found: Validation) -> Iterator[RuntimeResult]:
    return (result for result in found.runtimes if result.max_error_steps is None)


def _op_steps(found: Validation) -> Measured:
    for tensor in found.tensors:
        for runtime, steps in tensor.op_steps.items():
            yield steps, f"{tensor.name} ({tensor.op}, {tensor.source}) in {runtime}"


def _same_between_runtimes(found: Validation) -> Measured:
    # a runtime that saw only a handful of samples says nothing about a share
    for pair in found.agreements:
        if pair.same_class is not None and pair.samples == found.samples:
            yield pair.same_class, _pair(pair)


def _same_as_float(found: Validation) -> Measured:
    for result in _integer(found):
        if result.same_class is not None and result.samples == found.samples:
            yield result.same_class, _place(result)


def _accuracy_drops(found: Validation) -> Measured:
    for result in _integer(found):
        if result.score is not None and found.reference_score is not None and result.samples == found.samples:
            yield 100 * (found.reference_score - result.score), _place(result)


def _place(result: RuntimeResult) -> str:
    return f"{result.file} in {result.runtime}"


def _pair(pair: Agreement) -> str:
    return f"{pair.first} and {pair.second}"
