"""Recipes: rows of stage tables (TOML) and the Pipelines they stand for.

    [[recipes.default]]
    stage = "quantize"
    ranges = "percentile"

What a recipe does not say comes from the deployment: samples, the device's scheme, the target's formats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from toolchain.errors import OptionError, ProfileError
from toolchain.knowledge import did_you_mean, read_toml
from toolchain.pipeline import AnyStage, Pipeline
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.cluster import Cluster
from toolchain.stages.export import Export
from toolchain.stages.prune import Prune
from toolchain.stages.quantize import Quantize
from toolchain.stages.recover import Recover
from toolchain.stages.trace import Trace

STAGES: dict[str, type[AnyStage]] = {
    stage.name: stage for stage in (Trace, Prune, Cluster, Calibrate, Quantize, Recover, Export)
}
"""The one table of stages, in the order they usually run."""


_BY_KEY = "add it to the stage's table, or with toolchain stage: --set KEY=VALUE"
_HOW_TO_GIVE = {"samples": "give --calibration (-c): a name, a TOML, an .npz, a folder or package.module:function"}

_FROM_DEPLOYMENT = frozenset({"samples", "example_inputs", "scheme", "goal", "metric", "alternatives"})
"""Options that no TOML can say."""


def make_pipeline(
    tables: Sequence[Mapping[str, Any]],
    given: Mapping[str, Any],
    *,
    where: str,
    overriding: Mapping[str, Any] | None = None,
) -> Pipeline:
    """The pipeline that `tables` describe; `given` fills the options a table does not name, `overriding` wins over it.

    Raises ProfileError carrying `where` and the key, OrderError for a row that cannot run.
    """
    places = [(table, f"{where}[{index}]") for index, table in enumerate(tables)]
    return Pipeline(tuple(make_stage(table, given, where=at, overriding=overriding) for table, at in places))


def make_stage(
    table: Mapping[str, Any], given: Mapping[str, Any], *, where: str, overriding: Mapping[str, Any] | None = None
) -> AnyStage:
    """One stage from its table; errors and the rest as in `make_pipeline`."""
    name = table.get("stage")
    if name not in STAGES:
        hint = f"{did_you_mean(str(name), STAGES)}stages: {', '.join(STAGES)}"
        raise ProfileError(f"{where}.stage: no stage is called {name!r}", hint=hint)
    kind = STAGES[str(name)]
    known = {f.name: f for f in fields(kind)}
    unknown = [key for key in table if key != "stage" and key not in known]
    if unknown:
        near = did_you_mean(unknown[0], known)
        raise ProfileError(f"{where}.{unknown[0]}: unknown key", hint=f"{near}{name} knows: {', '.join(known)}")
    options = {key: given[key] for key in known if key in given}
    hints = get_type_hints(kind)
    for key in known:
        if key in table and key in _FROM_DEPLOYMENT:
            raise ProfileError(f"{where}.{key}: comes from the deployment, not from a recipe", hint="leave it out")
        if key in table:
            options[key] = _parsed(hints[key], table[key], f"{where}.{key}")
    options |= {key: value for key, value in (overriding or {}).items() if key in known}
    missing = [key for key, f in known.items() if key not in options and _required(f)]
    if missing:
        raise ProfileError(f"{where}.{missing[0]}: this key is missing", hint=_HOW_TO_GIVE.get(missing[0], _BY_KEY))
    try:
        return kind(**options)
    except OptionError as error:
        raise ProfileError(error.what, where=where, hint=error.hint) from error


def print_recipe(pipeline: Pipeline, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tables that `make_pipeline` reads back to an equal pipeline: what differs from defaults and from `given`."""
    return [
        {"stage": stage.name} | {key: value for key, value in stage.options().items() if _differs(stage, key, given)}
        for stage in pipeline.stages
    ]


def load_recipe(path: str | Path) -> tuple[dict[str, Any], ...]:
    """Stage tables of a recipe file: `[[recipe]]` tables in a TOML. Raises OptionError or ProfileError."""
    table = read_toml(Path(path))
    rows = table.get("recipe")
    if set(table) != {"recipe"} or not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ProfileError(
            f"{path}: a recipe file holds [[recipe]] tables and nothing else", hint="see targets/arm64.toml"
        )
    return tuple(rows)


def _parsed(annotation: Any, value: Any, where: str) -> Any:
    try:
        # JSON's strictness is TOML's: a list is a tuple and 1 is a float, but the text "1" is no number
        return TypeAdapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise ProfileError(f"{where}: {message}, found {value!r}", hint="mend that key") from error


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _differs(stage: AnyStage, key: str, given: Mapping[str, Any]) -> bool:
    value = getattr(stage, key)
    if key in given:
        return bool(value != given[key])
    field = next(f for f in fields(stage) if f.name == key)
    if field.default_factory is not MISSING:
        return bool(value != field.default_factory())
    return bool(value != field.default)
