"""Which tensor of one artifact is which of the other.

In order: in- and outputs with their counterparts; tensors of one name; and what is left by the order of the ops, whose
sequences are aligned as texts are (the longest common run first): the results of ops that meet are one tensor, and so
are the constants they read in the same place. Conversions between reals and integers are seen through: the result of
an op in a QDQ file is the integer tensor behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from enum import StrEnum
from math import prod
from typing import Final

from toolchain.formats.artifact import ArtifactFacts, OperatorFacts

_TO_REAL: Final = frozenset({"DequantizeLinear", "DEQUANTIZE"})
_TO_INTEGER: Final = frozenset({"QuantizeLinear", "QUANTIZE"})

_WORDS: Final = {
    "depthwiseconv": "conv",
    "gemm": "linear",
    "matmul": "linear",
    "fullyconnected": "linear",
    "batchmatmul": "linear",
    "logistic": "sigmoid",
    "averagepool": "avgpool",
    "globalaveragepool": "mean",
    "reducemean": "mean",
    "concatenation": "concat",
    "permute": "transpose",
    "hardswish": "hardswish",
    "resizebilinear": "resize",
    "resizenearestneighbor": "resize",
    "clip": "relu6",
}
"""One word for what the formats call differently, after case, `_`, `2d` and `QLinear` are left out."""

_MOST_ALIGNED: Final = 3000
"""Beyond so many ops left on a side an alignment takes too long, and only equal places meet."""


class By(StrEnum):
    """What two tensors were found to be one by."""

    PLACE = "place"
    NAME = "name"
    ORDER = "order"


@dataclass(frozen=True)
class Match:
    """A tensor of the first artifact and of the second, by their names."""

    first: str
    second: str
    by: By


@dataclass(frozen=True)
class Computation:
    """An op without the conversions around it: a word that both formats share, its result (also under the names that
    it has before and after conversions) and its constants."""

    word: str
    result: str
    aliases: tuple[str, ...]
    constants: tuple[str, ...]


@dataclass
class _Matches:
    """What is matched so far; a tensor is matched once."""

    found: list[Match] = field(default_factory=list)
    first: set[str] = field(default_factory=set)
    second: set[str] = field(default_factory=set)

    def add(self, first: str, second: str, by: By) -> None:
        if first not in self.first and second not in self.second:
            self.found.append(Match(first, second, by))
            self.first.add(first)
            self.second.add(second)


def match_tensors(first: ArtifactFacts, second: ArtifactFacts) -> tuple[Match, ...]:
    """Every pair found, in the order of the first artifact's tensors."""
    matches = _Matches()
    for ends, others in ((first.inputs, second.inputs), (first.outputs, second.outputs)):
        for one, other in pair_ends(ends, others):
            if one in first.tensors and other in second.tensors:
                matches.add(one, other, By.NAME if one == other else By.PLACE)
    beside = conversion_tensors(first) | conversion_tensors(second)
    for name in first.tensors:
        if name in second.tensors and name not in beside:
            matches.add(name, name, By.NAME)
    _match_in_order(first, second, matches)
    places = {name: place for place, name in enumerate(first.tensors)}
    return tuple(sorted(matches.found, key=lambda match: places[match.first]))


def conversion_tensors(facts: ArtifactFacts) -> set[str]:
    """Tensors that stand only between reals and integers: scales, zero points, and the reals around each op."""
    read: dict[str, list[OperatorFacts]] = {}
    for operator in facts.operators:
        for name in operator.inputs:
            read.setdefault(name, []).append(operator)
    found: set[str] = set()
    for operator in facts.operators:
        if operator.op in _TO_REAL:
            found.update(operator.outputs)
        if operator.op in _TO_REAL | _TO_INTEGER:
            found.update(operator.inputs[1:])
        found.update(name for name in operator.outputs if _stored(name, read) != name)
    return found - {*facts.inputs, *facts.outputs}


def pair_ends(first: Iterable[str], second: Iterable[str]) -> list[tuple[str, str]]:
    """In- or outputs with their counterparts: by name where the names are the same, else by place where there are as
    many."""
    ends, others = list(first), list(second)
    if sorted(ends) == sorted(others):
        return [(name, name) for name in ends]
    return list(zip(ends, others, strict=True)) if len(ends) == len(others) else []


def computations(facts: ArtifactFacts) -> list[Computation]:
    """The ops of an artifact in order, without conversions between reals and integers."""
    made = {name: operator for operator in facts.operators for name in operator.outputs if name}
    read: dict[str, list[OperatorFacts]] = {}
    for operator in facts.operators:
        for name in operator.inputs:
            read.setdefault(name, []).append(operator)
    found = []
    for operator in facts.operators:
        if operator.outputs and operator.op not in _TO_REAL | _TO_INTEGER:
            stored = _stored(operator.outputs[0], read)
            reals = (name for reader in read.get(stored, ()) if reader.op in _TO_REAL for name in reader.outputs)
            aliases = stored, operator.outputs[0], *reals
            found.append(Computation(_word(operator.op), stored, aliases, tuple(_constants(operator, made, facts))))
    return found


def _word(op: str) -> str:
    word = op.casefold().replace("_", "").removeprefix("qlinear").removesuffix("integer").replace("2d", "")
    return _WORDS.get(word, word)


def _stored(name: str, read: dict[str, list[OperatorFacts]]) -> str:
    """The integer tensor that alone is made of `name`, or `name`."""
    readers = read.get(name, [])
    if len(readers) == 1 and readers[0].op in _TO_INTEGER and readers[0].outputs:
        return readers[0].outputs[0]
    return name


def _constants(operator: OperatorFacts, made: dict[str, OperatorFacts], facts: ArtifactFacts) -> Iterator[str]:
    for name in operator.inputs:
        maker = made.get(name)
        source = maker.inputs[0] if maker is not None and maker.op in _TO_REAL and maker.inputs else name
        if source in facts.tensors and facts.tensors[source].is_constant:
            yield source


def _match_in_order(first: ArtifactFacts, second: ArtifactFacts, matches: _Matches) -> None:
    ours, theirs = computations(first), computations(second)
    by_name = {name: computation for computation in theirs for name in computation.aliases}
    known = {match.first: match.second for match in matches.found}
    # ops whose results are matched meet already
    pairs, left = [], []
    for computation in ours:
        names = [known[name] for name in computation.aliases if name in known]
        met = next((by_name[name] for name in names if name in by_name), None)
        if met is not None:
            pairs.append((computation, met))
        elif not names:
            left.append(computation)
    right = [computation for computation in theirs if not matches.second.intersection(computation.aliases)]
    for one, other in (*pairs, *_aligned(first, left, second, right)):
        if one.result in first.tensors and other.result in second.tensors:
            matches.add(one.result, other.result, By.ORDER)
        for constant, counterpart in zip(one.constants, other.constants, strict=False):
            if len(first.tensors[constant].shape) == len(second.tensors[counterpart].shape):
                matches.add(constant, counterpart, By.ORDER)


def _aligned(
    first: ArtifactFacts, left: list[Computation], second: ArtifactFacts, right: list[Computation]
) -> Iterator[tuple[Computation, Computation]]:
    known = all(_elements(f, c) is not None for f, part in ((first, left), (second, right)) for c in part)
    keys = [
        [(c.word, _elements(facts, c) if known else _constant_elements(facts, c)) for c in part]
        for facts, part in ((first, left), (second, right))
    ]
    if max(len(left), len(right)) > _MOST_ALIGNED:
        yield from (
            pair for pair, one, other in zip(zip(left, right, strict=False), *keys, strict=False) if one == other
        )
        return
    for block in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks():
        for place in range(block.size):
            yield left[block.a + place], right[block.b + place]


def _constant_elements(facts: ArtifactFacts, computation: Computation) -> int:
    """Elements of the largest constant, which tell ops apart where shapes are not known."""
    return max((prod(facts.tensors[name].shape) for name in computation.constants), default=0)


def _elements(facts: ArtifactFacts, computation: Computation) -> int | None:
    """Elements of the result, which no layout changes; None where its shape is not known."""
    tensor = facts.tensors.get(computation.result)
    return None if tensor is None or min(tensor.shape, default=0) < 0 else prod(tensor.shape)
