"""A stage: a frozen, keyword-only dataclass whose fields are its options; one call does the work.

The model a stage is given stays as it was. A stage never imports another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from toolchain.progress import SILENT, Progress

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[Given, Made]):
    """Base of all stages. `version` changes whenever the same options would give another result."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    takes: ClassVar[tuple[type, ...]]
    gives: ClassVar[type]

    def __call__(self, model: Given, /, *, progress: Progress = SILENT) -> Made:
        raise NotImplementedError

    @classmethod
    def result_of(cls, state: type) -> type:
        """The state this stage makes of `state`."""
        return cls.gives

    def options(self) -> dict[str, Any]:
        """The fields as plain JSON values; what stands for more than a value (samples, a profile) is its digest."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, (Enum, Path)):
        return value.value if isinstance(value, Enum) else str(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "digest"):
        return value.digest
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return value
