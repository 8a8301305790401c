"""A stage: a frozen, keyword-only dataclass whose fields are its options; one call does the work.

The model a stage is given stays as it was. A stage never imports another.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from toolchain.errors import DisagreementError, OrderError, raise_collected
from toolchain.progress import SILENT, Progress
from toolchain.samples import SampleSet
from toolchain.stages.states import Model, TorchModel

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[Given, Made]):
    """Base of all stages. Subclasses say what they take and give, and do their work in `_run`."""

    name: ClassVar[str]
    takes: ClassVar[tuple[type, ...]]
    gives: ClassVar[type]

    def __call__(self, model: Given, /, *, progress: Progress = SILENT, checkpoints: Path | None = None) -> Made:
        """Run the stage. Raises OrderError for a model in a state it does not take, DisagreementError where masks or
        codebooks do not hold in what it made.

        `checkpoints` is a folder where a stage that trains keeps what it has reached, and takes up what a killed run
        of the same stage on the same model has left; the result is the same.
        """
        state = state_of(model)
        if state not in self.takes:
            raise OrderError(f"{self.name} takes {state_names(self.takes)}, not a {state.__name__}")
        made = self._resume(model, progress, checkpoints)
        if isinstance(made, Model):
            raise_collected(DisagreementError, f"{self.name} broke what compression had fixed:", made.violations())
        return made

    def _resume(self, model: Given, progress: Progress, checkpoints: Path | None) -> Made:
        """As `_run`; overridden by stages that keep checkpoints."""
        return self._run(model, progress)

    def _run(self, model: Given, progress: Progress) -> Made:
        raise NotImplementedError

    @classmethod
    def result_of(cls, state: type) -> type:
        """The state this stage makes of `state`."""
        return cls.gives

    def options(self) -> dict[str, Any]:
        """The fields as plain JSON values; samples are their calibration part's digest."""
        return {f.name: as_plain(getattr(self, f.name)) for f in fields(self)}

    def determined_by(self) -> dict[str, Any]:
        """All that decides the result beside the model: the options, and what they name."""
        return self.options()


def state_of(model: Any) -> type:
    """The state a model is in; what the toolchain has not made is a torch model."""
    return type(model) if isinstance(model, Model) else TorchModel


def state_names(states: Iterable[type]) -> str:
    """`a TracedModel or a QuantizedModel`."""
    return " or ".join(f"a {state.__name__}" for state in states)


def as_plain(value: Any) -> Any:
    """`value` as plain JSON: what has no form there is told by a name, samples and code by a digest."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {as_plain(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, SampleSet):
        return {f.name: as_plain(getattr(value, f.name)) for f in fields(value)}
    return _named(value)


def _named(value: Any) -> Any:
    """What stands for a value that JSON has no form for."""
    if isinstance(value, SampleSet):
        return value.calibration_digest
    if isinstance(value, Path):
        return str(value)
    if callable(value):
        name = getattr(value, "__qualname__", repr(value))
        return f"{getattr(value, '__module__', '')}:{name} {_source_digest(value)}"
    return value


def _source_digest(function: Any) -> str:
    """Changes with what a user's function says, as far as its source can be found."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return ""
