"""One op applied to named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from toolchain.errors import UnsupportedError
from toolchain.graph.ops import SIGNATURES, Op
from toolchain.graph.types import Attribute, Source


@dataclass(frozen=True)
class Node:
    """One op applied to named tensors. `name` is the user's module path; `outputs` are the tensors it defines."""

    op: Op
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    source: Source = Source()

    def __post_init__(self) -> None:
        signature = SIGNATURES[self.op]
        if not signature.accepts(len(self.inputs)):
            raise ValueError(f"{self.name}: {self.op} takes {signature.inputs}, got {len(self.inputs)} inputs")
        unknown = set(self.attributes) - set(signature.attributes)
        complete = {key: self.attributes.get(key, default) for key, default in signature.attributes.items()}
        missing = [key for key, value in complete.items() if value is None]
        if unknown or missing:
            raise ValueError(f"{self.name}: {self.op} has no {sorted(unknown)}, needs {missing}")
        object.__setattr__(self, "attributes", MappingProxyType(complete))

    @property
    def output(self) -> str:
        """The only output. Raises ValueError where there are several."""
        (name,) = self.outputs
        return name

    def __getitem__(self, key: str) -> Any:
        return self.attributes[key]

    def with_attributes(self, **attributes: Attribute) -> Node:
        return replace(self, attributes={**self.attributes, **attributes})


def unsupported(node: Node, why: str, hint: str | None = None) -> UnsupportedError:
    """An error that carries the node's op, name and place in the user's model."""
    return UnsupportedError(f"{node.op} {node.name}: {why}", where=str(node.source), hint=hint)
