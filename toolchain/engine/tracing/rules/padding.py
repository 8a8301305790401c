"""Pads: with a value, mirrored, with the edge repeated, or around the other end (circular)."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.images import join, take
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.graph import Op


def _pad(b: GraphBuilder, x: str, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> str:
    rank = len(b.shapes[x])
    before, after = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = int(pad[2 * i]), int(pad[2 * i + 1])
    x = _cropped(b, x, before, after)
    before, after = [max(amount, 0) for amount in before], [max(amount, 0) for amount in after]
    if mode == "circular":
        for axis in range(rank):
            x = _wrapped(b, x, axis, before[axis], after[axis])
        return x
    _check_reach(b.shapes[x], before, after, mode)
    return b.add(Op.PAD, x, amounts=(*before, *after), value=float(value or 0.0), mode=mode)


def _cropped(b: GraphBuilder, x: str, before: Sequence[int], after: Sequence[int]) -> str:
    """Negative amounts cut off."""
    for axis, (front, back) in enumerate(zip(before, after, strict=True)):
        size = b.shapes[x][axis]
        x = take(b, x, axis, range(max(-front, 0), size - max(-back, 0)))
    return x


def _wrapped(b: GraphBuilder, x: str, axis: int, before: int, after: int) -> str:
    size = b.shapes[x][axis]
    front = [take(b, x, axis, range(size - before, size))] if before else []
    back = [take(b, x, axis, range(after))] if after else []
    return join(b, [*front, x, *back], axis)


def _check_reach(shape: Sequence[int], before: Sequence[int], after: Sequence[int], mode: str) -> None:
    if mode == "reflect" and any(max(pads) >= size for *pads, size in zip(before, after, shape, strict=True)):
        raise CannotLower(f"a reflection reaches past the other end of {tuple(shape)}")
    if mode not in ("constant", "reflect", "replicate"):
        raise CannotLower(f"padding mode {mode!r} is not supported")


def _constant_pad(b: GraphBuilder, x: str, pad: Sequence[int], value: float = 0.0) -> str:
    return _pad(b, x, pad, "constant", value)


def _mode(mode: str) -> Rule:
    return lambda b, x, pad: _pad(b, x, pad, mode)


PADDING: dict[str, Rule] = {
    "pad": _pad,
    "constant_pad_nd": _constant_pad,
    "_pad_circular": _mode("circular"),
    **dict.fromkeys(("reflection_pad1d", "reflection_pad2d"), _mode("reflect")),
    **dict.fromkeys(("replication_pad1d", "replication_pad2d"), _mode("replicate")),
}
