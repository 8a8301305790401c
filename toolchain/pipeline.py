"""Stages in a row. A row that cannot run cannot be made; running it again continues after the last finished stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from toolchain.errors import OrderError
from toolchain.progress import SILENT, Progress
from toolchain.stages.stage import Stage, state_names, state_of
from toolchain.stages.states import Model
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
        states = set(self.stages[0].takes)
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            states = _passed_on(before, stage, states)

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
        """Raises OrderError where the row, fit for one of the states its first stage takes, is not for this one."""
        first, state = self.stages[0], state_of(model)
        if state not in first.takes:
            raise OrderError(f"{first.name} takes {state_names(first.takes)}, not a {state.__name__}")
        states = {state}
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            states = _passed_on(before, stage, states)

    @staticmethod
    def _step(stage: AnyStage, model: Any, store: Store | None, progress: Progress) -> tuple[Model, bool]:
        if store is None:
            return stage(model, progress=progress), False
        if not isinstance(model, Model):
            # what a torch model computes is only known once it is traced
            made = stage(model, progress=progress)
            store.save(made.digest, made)
            return made, False
        key = entry_key(stage.name, stage.determined_by(), model.digest)
        found = store.load(key)
        if found is not None:
            return found, True
        made = stage(model, progress=progress, checkpoints=store.checkpoints(key))
        store.save(key, made)
        return made, False


def _passed_on(before: AnyStage, stage: AnyStage, states: set[type]) -> set[type]:
    """What reaches `stage` of the `states` that `before` may be given. Raises OrderError where that is nothing."""
    given = {before.result_of(state) for state in states}
    fit = given & set(stage.takes)
    if not fit:
        found = min(given, key=lambda state: state.__name__)
        raise OrderError(
            f"{stage.name} takes {state_names(stage.takes)}, but {before.name} gives a {found.__name__}",
            hint=f"move {stage.name} to where the row holds {state_names(stage.takes)}",
        )
    return fit
