"""How long-running work reports how far it is: a stage tells, whoever runs it decides what is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Passes items through and reports each; `total` is the number of items where it is known."""

    def track(self, items: Iterable[T], *, description: str, total: int | None = None) -> Iterator[T]: ...


class Silent:
    """Reports nothing: what a stage called from Python uses."""

    def track(self, items: Iterable[T], *, description: str, total: int | None = None) -> Iterator[T]:
        yield from items


SILENT: Progress = Silent()
