"""Float against deployed, a line a measure: what the terminal's table and the page's first panel show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from toolchain.report.plain import ratio
from toolchain.report.units import (
    NOT_MEASURED,
    format_bytes,
    format_change,
    format_count,
    format_db,
    format_ms,
    format_score,
    format_share,
)

Facts: TypeAlias = Mapping[str, Any]
Format: TypeAlias = Callable[[float | None], str]


_WORTH_PACKING = 0.7
"""Of a file's own bytes: int8 weights alone pack to 0.8 to 0.95 of them."""


@dataclass(frozen=True)
class Measure:
    """One line. `before` and `after` are the numbers behind the texts where a bar can be drawn of them."""

    label: str
    before_text: str
    after_text: str
    change: str = ""
    better: bool | None = None
    before: float | None = None
    after: float | None = None


def measures(facts: Facts) -> list[Measure]:
    """Size of each file, accuracy or agreement, latency in each runtime, arithmetic and memory."""
    return [*_sizes(facts), *_quality(facts), *_latencies(facts), *_costs(facts)]


def deployed(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Files or runtime results of the quantized model; of the float one where nothing was quantized."""
    return [row for row in rows if not row["is_float"]] or list(rows)


def timed(facts: Facts) -> list[Mapping[str, Any]]:
    """Runtime results whose latency means something: reference kernels only check the integers."""
    return [row for row in deployed(facts["runtimes"]) if not is_reference(row)]


def is_reference(result: Mapping[str, Any]) -> bool:
    """Whether a result was computed by a runtime's portable kernels."""
    return str(result["runtime"]).endswith("reference")


def _sizes(facts: Facts) -> Iterator[Measure]:
    for file in deployed(facts["files"]):
        before, after = file["float_bytes"], file["bytes"]
        yield _compared(file["name"], before, after, format_bytes, ("smaller", "larger"))
    for row in (facts.get("prices") or {}).get("files", ()):
        # every file shrinks a little; where weights were pruned or clustered that is what it was done for
        if row["packed_bytes"] is not None and row["packed_bytes"] <= _WORTH_PACKING * row["bytes"]:
            label = f"{row['name']}, packed"
            yield _compared(label, row["float_bytes"], row["packed_bytes"], format_bytes, ("smaller", "larger"))


def _latencies(facts: Facts) -> Iterator[Measure]:
    for row in timed(facts):
        label = f"latency, {row['runtime']}"
        before, after = row["float_latency_ms"], row["latency_ms"]
        yield _compared(label, before, after, format_ms, ("faster", "slower"))


def _costs(facts: Facts) -> Iterator[Measure]:
    before, after = facts["cost"]["float"], facts["cost"]["deployed"]
    yield _compared("multiply-adds", before["macs"], after["macs"], format_count, ("fewer", "more"))
    peaks = before["peak_activation_bytes"], after["peak_activation_bytes"]
    yield _compared("peak activation memory", *peaks, format_bytes, ("smaller", "larger"))


def _compared(label: str, before: float | None, after: float, text: Format, words: tuple[str, str]) -> Measure:
    times = ratio(before, after)
    change = format_change(times, *words)
    better = None if times is None or change == "the same" else times > 1
    return Measure(label, text(before), text(after), change, better, before, after)


def _quality(facts: Facts) -> Iterator[Measure]:
    whole = [row for row in deployed(facts["runtimes"]) if row["samples"] == facts["samples"]]
    name, before = facts["score_name"], facts["float_score"]
    scores = [row["score"] for row in whole if row["score"] is not None]
    if name and scores and before is not None:
        yield _score(name, before, min(scores))
    same = [row["same_class"] for row in whole if row["same_class"] is not None]
    if same:
        yield Measure(
            "same class as float",
            NOT_MEASURED,
            format_share(min(same)),
        )
    noise = [row["sqnr_db"] for row in whole if row["sqnr_db"] is not None]
    if noise:
        yield Measure(
            "SQNR of the outputs",
            NOT_MEASURED,
            format_db(min(noise)),
        )


def _score(name: str, before: float, after: float) -> Measure:
    difference = after - before
    if name == "top-1":
        points = f"{100 * difference:+.2f}"
        change = "the same" if points in ("+0.00", "-0.00") else f"{points} points"
    else:
        change = f"{difference:+.4g}" if difference else "the same"
    better = None if change == "the same" else difference > 0
    label = "accuracy (top-1)" if name == "top-1" else name
    return Measure(
        label,
        format_score(before, name),
        format_score(after, name),
        change,
        better,
    )
