"""Einstein sums, operand by operand from the left, each pair as one product of matrices.

Of the axes of a pair, those in both that are needed later form a batch, those in both that are not are summed, the rest
are rows and columns. Where nothing is summed the product is elementwise, which integers compute to a step.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod
from string import ascii_letters
from typing import Any

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.matmul import matmul
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.engine.tracing.rules.shape import permute
from toolchain.graph import Op


@dataclass(frozen=True)
class _Term:
    """A tensor and the letters of its axes."""

    tensor: str
    letters: str


def _einsum(b: GraphBuilder, equation: str, operands: Sequence[str], path: Any = None) -> str:
    names, result = _parsed(equation, [len(b.shapes[name]) for name in operands])
    terms = [_Term(tensor, letters) for tensor, letters in zip(operands, names, strict=True)]
    found = terms[0]
    for position, term in enumerate(terms[1:], start=1):
        later = set(result).union(*names[position + 1 :])
        found = _contracted(b, found, term, later)
    found = _summed(b, found, set(result))
    return permute(b, found.tensor, tuple(found.letters.index(letter) for letter in result))


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Letters of every operand and of the result; an ellipsis becomes letters the equation does not use."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    given = left.split(",")
    widths = [
        rank - len(term.replace("...", "")) if "..." in term else 0 for term, rank in zip(given, ranks, strict=True)
    ]
    spare = "".join(letter for letter in ascii_letters if letter not in equation)[: max(widths)]
    names = [term.replace("...", spare[len(spare) - width :]) for term, width in zip(given, widths, strict=True)]
    if not arrow:
        letters = "".join(term.replace("...", "") for term in given)
        result = "..." + "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    for name in names:
        if len(set(name)) != len(name):
            raise CannotLower(f"einsum {equation!r}: an operand that has an axis twice (a diagonal) is not supported")
    return names, result.replace("...", spare)


def _contracted(b: GraphBuilder, left: _Term, right: _Term, later: Collection[str]) -> _Term:
    left, right = _without_unit_axes(b, left, right), _without_unit_axes(b, right, left)
    left = _summed(b, left, {*later, *right.letters})
    right = _summed(b, right, {*later, *left.letters})
    if b.value_of(left.tensor) is not None and b.value_of(right.tensor) is None:
        left, right = right, left  # a constant on the right can make a linear layer
    both = [letter for letter in left.letters if letter in right.letters]
    batch = [letter for letter in both if letter in later]
    summed = [letter for letter in both if letter not in later]
    rows, columns = (
        [letter for letter in own if letter not in other]
        for own, other in ((left.letters, right.letters), (right.letters, left.letters))
    )
    combine = _product if summed else _elementwise
    return _Term(combine(b, left, right, (batch, rows, columns, summed)), "".join([*batch, *rows, *columns]))


def _without_unit_axes(b: GraphBuilder, term: _Term, other: _Term) -> _Term:
    """`term` without the axes along which it is broadcast to `other`."""
    sizes, others = _sizes(b, term), _sizes(b, other)
    kept = [letter for letter in term.letters if not (sizes[letter] == 1 and others.get(letter, 1) > 1)]
    if len(kept) == len(term.letters):
        return term
    return _Term(b.reshape(term.tensor, [sizes[letter] for letter in kept]), "".join(kept))


def _summed(b: GraphBuilder, term: _Term, needed: Collection[str]) -> _Term:
    axes = tuple(axis for axis, letter in enumerate(term.letters) if letter not in needed)
    if not axes:
        return term
    kept = "".join(letter for letter in term.letters if letter in needed)
    return _Term(b.add(Op.SUM, term.tensor, axes=axes, keepdim=False), kept)


_Axes = tuple[list[str], list[str], list[str], list[str]]


def _elementwise(b: GraphBuilder, left: _Term, right: _Term, axes: _Axes) -> str:
    batch, rows, columns, _ = axes
    sizes = _sizes(b, left) | _sizes(b, right)
    ahead = [sizes[letter] for letter in batch]
    tall = [*ahead, *(sizes[letter] for letter in rows), *[1] * len(columns)]
    wide = [*ahead, *[1] * len(rows), *(sizes[letter] for letter in columns)]
    operands = (_arranged(b, left, [*batch, *rows], tall), _arranged(b, right, [*batch, *columns], wide))
    return b.add(Op.MUL, *operands)


def _product(b: GraphBuilder, left: _Term, right: _Term, axes: _Axes) -> str:
    batch, rows, columns, summed = axes
    sizes = _sizes(b, left) | _sizes(b, right)
    ahead, own, others = ([sizes[letter] for letter in letters] for letters in (batch, rows, columns))
    depth = prod(sizes[letter] for letter in summed)
    is_layer = not batch and b.value_of(right.tensor) is not None
    tall = own if is_layer and own else [prod(own)]  # a linear layer takes rows of any rank
    product = matmul(
        b,
        _arranged(b, left, [*batch, *rows, *summed], [*ahead, *tall, depth]),
        _arranged(b, right, [*batch, *summed, *columns], [*ahead, depth, prod(others)]),
    )
    return _shaped(b, product, (*ahead, *own, *others))


def _arranged(b: GraphBuilder, term: _Term, order: Sequence[str], shape: Sequence[int]) -> str:
    return _shaped(b, permute(b, term.tensor, tuple(term.letters.index(letter) for letter in order)), shape)


def _shaped(b: GraphBuilder, x: str, shape: Sequence[int]) -> str:
    return x if b.shapes[x] == tuple(shape) else b.reshape(x, shape)


def _sizes(b: GraphBuilder, term: _Term) -> dict[str, int]:
    return dict(zip(term.letters, b.shapes[term.tensor], strict=True))


EINSUM: dict[str, Rule] = {"einsum": _einsum}
