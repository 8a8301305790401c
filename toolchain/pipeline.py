"""Stages in a row. A row that cannot run cannot be made; running it again continues after the last finished stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from toolchain.errors import OrderError
from toolchain.progress import SILENT, Progress
from toolchain.stages.stage import Stage
from toolchain.stages.states import Model, TorchModel
from toolchain.store import Store, entry_key

AnyStage: TypeAlias = Stage[Any, Any]


@dataclass(frozen=True)
class StageRun:
    """One stage as it ran: wall seconds, and whether its result came from the store."""

    stage: str
    seconds: float
    resumed: bool
    model: Model = field(repr=False)


@dataclass(frozen=True)
class Pipeline:
    """`stages` in order. Raises OrderError where one does not take what the one before gives."""

    stages: tuple[AnyStage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise OrderError("a pipeline needs at least one stage")
        state = self.stages[0].takes[0]
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            state = before.result_of(state)
            if state not in stage.takes:
                raise OrderError(
                    f"{stage.name} takes {_names(stage.takes)}, but {before.name} gives a {state.__name__}",
                    hint=f"move {stage.name} to where the row holds {_names(stage.takes)}",
                )

    def run(
        self,
        model: Any,
        /,
        *,
        store: Store | None = None,
        progress: Progress = SILENT,
        on_start: Callable[[str], None] | None = None,
        on_end: Callable[[StageRun], None] | None = None,
    ) -> Model:
        """The last stage's result. With a `store` every finished stage lands there and is taken from there."""
        self._check_start(model)
        for stage in self.stages:
            if on_start:
                on_start(stage.name)
            started = time.perf_counter()
            model, resumed = self._step(stage, model, store, progress)
            if on_end:
                on_end(StageRun(stage.name, time.perf_counter() - started, resumed, model))
        result: Model = model
        return result

    def _check_start(self, model: Any) -> None:
        first = self.stages[0]
        if TorchModel not in first.takes and type(model) not in first.takes:
            raise OrderError(f"{first.name} takes {_names(first.takes)}, not a {type(model).__name__}")

    @staticmethod
    def _step(stage: AnyStage, model: Any, store: Store | None, progress: Progress) -> tuple[Model, bool]:
        if store is None:
            return stage(model, progress=progress), False
        if not isinstance(model, Model):
            # what a torch model computes is only known once it is traced
            made = stage(model, progress=progress)
            store.save(made.digest, made)
            return made, False
        key = entry_key(stage.name, stage.version, stage.options(), model.digest)
        found = store.load(key)
        if found is not None:
            return found, True
        made = stage(model, progress=progress)
        store.save(key, made)
        return made, False


def _names(states: tuple[type, ...]) -> str:
    return " or ".join(f"a {state.__name__}" for state in states)
