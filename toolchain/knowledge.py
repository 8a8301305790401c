"""The knowledge folders (targets, device_profiles, calibration): find a TOML and read it into a frozen type.

    find_shipped("targets", "arm64")     -> the path of a shipped name, or of a user's own file
    load_toml(path, TargetSpec)          -> a validated value, or one ProfileError that lists every wrong key

A checkout keeps the three folders beside the package; the wheel carries them inside it, in
`toolchain/knowledge/KIND`. A complaint names file and key path:
`x.toml: source.cuont: unknown key, did you mean 'count'?`
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from toolchain.errors import OptionError, ProfileError, raise_collected

Kind = Literal["targets", "device_profiles", "calibration"]
ONE_OF: Final[Mapping[str, str]] = {
    "targets": "target",
    "device_profiles": "device profile",
    "calibration": "sample set",
}
_PLAIN_WORDS: Final[Mapping[str, str]] = {
    "model_type": "should be a table",
    "model_attributes_type": "should be a table",
    "dict_type": "should be a table",
    "tuple_type": "should be a list",
    "frozen_set_type": "should be a list",
    "string_type": "should be a text in quotes",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
}
_ONES_OWN = ("description", "extends")
"""Keys that no file takes from the one it extends."""
_PACKAGE = Path(__file__).resolve().parent

Model = TypeVar("Model", bound=BaseModel)


# --- finding --------------------------------------------------------------------------------------


def knowledge_folder(kind: Kind) -> Path:
    """Return the folder of the shipped TOMLs of a kind: inside an installed wheel, else in the checkout."""
    installed = _PACKAGE / "knowledge" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def shipped_names(kind: Kind) -> tuple[str, ...]:
    """Return the names that ship with the toolchain, sorted."""
    return tuple(sorted(path.stem for path in knowledge_folder(kind).glob("*.toml")))


def find_shipped(kind: Kind, name: str | Path) -> Path:
    """Return the TOML of a shipped name, or of a path to a user's own file.

    A name that ends in `.toml` or holds a separator is a path; every other one is a shipped name, so that a
    file or folder which happens to lie in the current directory never changes what a name means.
    Raises OptionError: no such file (with its nearest neighbour), or no such name (with the nearest and all).
    """
    text = str(name)
    if isinstance(name, Path) or text.endswith(".toml") or "/" in text or "\\" in text:
        return _own_file(Path(name), kind)
    names = shipped_names(kind)
    if text in names:
        return knowledge_folder(kind) / f"{text}.toml"
    own = Path(f"{text}.toml")
    if own.is_file():
        offer = f"your own file is named by its path: ./{own}"
    else:
        offer = f"{did_you_mean(text, names)}shipped: {', '.join(names) or 'none'}; "
        offer += "or give the path of your own TOML"
    raise OptionError(f"no {ONE_OF[kind]} is called {text!r}", hint=offer)


def _own_file(path: Path, kind: Kind) -> Path:
    if path.is_file():
        return path
    what = "is a folder, not a TOML file" if path.is_dir() else "does not exist"
    near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else [])
    names = ", ".join(shipped_names(kind)) or "none"
    raise OptionError(f"{ONE_OF[kind]} {path} {what}", hint=f"{near}check the path, or use a shipped name: {names}")


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that looks most like `name`, or None; letter case does not count."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.55)
    return by_folded[found[0]] if found else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return `did you mean 'count'? ` (with the space that joins it to more text), or an empty text."""
    near = nearest(name, candidates)
    return f"did you mean {near!r}? " if near else ""


# --- reading --------------------------------------------------------------------------------------


def load_toml(path: str | Path, model: type[Model]) -> Model:
    """Read a TOML file into a frozen pydantic model.

    Raises OptionError where the file is missing, ProfileError where it is malformed (with the line) or where
    keys do not hold (all of them at once, each with its key path).
    """
    return _checked(Path(path), read_toml(Path(path)), model)


def load_extended(kind: Kind, path: Path, model: type[Model]) -> Model:
    """Read a TOML file on top of the one of the same kind that its key `extends` names, a shipped name or a path
    beside the file, if there is that key.

    Tables are joined key by key; a list or a single value takes the place of the one below. A description is the
    file's own. Errors as in `load_toml`; each names the file whose keys do not hold.
    """
    return _checked(path, _read_extended(kind, path, model, ()), model)


def _read_extended(kind: Kind, path: Path, model: type[Model], above: tuple[Path, ...]) -> dict[str, Any]:
    table = read_toml(path)
    name = table.get("extends")
    if not isinstance(name, str):  # absent, or a value that the model refuses
        return table
    above = (*above, path.resolve())
    try:
        beside = path.parent / name
        base = beside if beside.is_file() else find_shipped(kind, name)
    except OptionError as error:
        raise ProfileError(f"{path}: extends: {error.what}", hint=error.hint) from error
    if base.resolve() in above:
        raise ProfileError(f"{path}: extends: {base} extends this file in turn", hint="leave one of the two out")
    below = _read_extended(kind, base, model, above)
    _checked(base, below, model)
    below = {key: _from(base.parent, value) for key, value in below.items() if key not in _ONES_OWN}
    return _joined_tables(below, table)


def _from(folder: Path, value: Any) -> Any:
    """A value of a file in `folder`: where it is the path of a file beside it, that file wherever it is read."""
    beside = folder / value if isinstance(value, str) else folder
    return str(beside.resolve()) if beside.is_file() else value


def _joined_tables(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            joined[key] = _joined_tables(below[key], above[key])
    return joined


def _checked(path: Path, table: Mapping[str, Any], model: type[Model]) -> Model:
    try:
        # JSON's strictness is TOML's: a list is a tuple and 1 is a float, but the text "1" is no number.
        return model.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        findings = [_finding(detail, table, model) for detail in error.errors()]
        _raise_findings(path, findings)
        raise  # not reached: a ValidationError always carries findings


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into a plain table; errors as in `load_toml`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionError(f"{path} does not exist", hint="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}", hint="give a UTF-8 text file") from None
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{path}: not valid TOML: {error}", hint="mend that line; see toml.io") from None


def _raise_findings(path: Path, findings: list[str]) -> None:
    hint = "mend the keys named above; unknown keys are errors, so that a slip never passes unseen"
    if len(findings) == 1:
        raise ProfileError(f"{path}: {findings[0]}", hint=hint.replace("keys named", "key named"))
    raise_collected(ProfileError, f"{path}: {len(findings)} keys do not hold", findings, hint=hint)


def _finding(detail: ErrorDetails, table: Mapping[str, Any], model: type[BaseModel]) -> str:
    """Put one pydantic complaint in the user's words: key path, what is wrong, what was found."""
    keys, models = _walk(detail, table, model)
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            near = did_you_mean(str(keys[-1]), _field_names(models))
            return f"{where}: unknown key{', ' + near.strip() if near else _all_names(models)}"
        case "missing":
            return f"{where}: this key is missing"
        case "union_tag_not_found":
            return f"{_joined(where, context)}: this key is missing"
        case "union_tag_invalid":
            choices = str(context["expected_tags"])
            return f"{_joined(where, context)}: {_no_such_choice(str(context['tag']), choices)}"
        case "literal_error" | "enum":
            return f"{where}: {_no_such_choice(detail['input'], str(context['expected']))}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = _PLAIN_WORDS.get(detail["type"], message.removeprefix("Input "))
    found = "" if isinstance(detail["input"], Mapping) else f", found {detail['input']!r}"
    return f"{where}: {message}{found}" if where else f"{message}"


def _joined(where: str, context: Mapping[str, Any]) -> str:
    discriminator = str(context["discriminator"]).strip("'")
    return f"{where}.{discriminator}" if where else discriminator


def _no_such_choice(found: object, expected: str) -> str:
    choices = [choice.strip().strip("'") for choice in expected.replace(" or ", ", ").split(",")]
    near = did_you_mean(found, choices) if isinstance(found, str) else ""
    return f"{found!r} is none of {', '.join(choices)}{'; ' + near.strip() if near else ''}"


def _all_names(models: Iterable[type[BaseModel]]) -> str:
    names = _field_names(models)
    return f"; known here: {', '.join(names)}" if names else ""


def _field_names(models: Iterable[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(field.alias or name for m in models for name, field in m.model_fields.items()))


# --- from pydantic's location to the user's key path ----------------------------------------------


def _walk(
    detail: ErrorDetails, table: Mapping[str, Any], model: type[BaseModel]
) -> tuple[list[str | int], list[type[BaseModel]]]:
    """Return the key path as the file has it, and the models whose fields the last key is matched against.

    pydantic's location also holds the tags of unions, which no file contains: a step that the file does not
    have is such a tag (but for the last step of a missing key), and it narrows the models instead.
    """
    keys: list[str | int] = []
    models = [model]
    value: Any = table
    location = detail["loc"]
    for position, step in enumerate(location):
        last = position == len(location) - 1
        if not _has(value, step) and not (last and detail["type"] == "missing"):
            models = [m for m in models if _carries_tag(m, str(step))] or models
            continue
        keys.append(step)
        if not last:
            value = value[step]
            models = _stepped(models, step)
    return keys, models


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, Mapping):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _stepped(models: list[type[BaseModel]], step: str | int) -> list[type[BaseModel]]:
    """Return the models a step leads to; an index or a key of a plain table stays with the models it has."""
    fields = [
        field
        for m in models
        for name, field in m.model_fields.items()
        if isinstance(step, str) and step in (name, field.alias)
    ]
    return [found for field in fields for found in _models_in(field.annotation)] if fields else models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]


def _carries_tag(model: type[BaseModel], tag: str) -> bool:
    if model.__name__ == tag:
        return True
    annotations = [field.annotation for field in model.model_fields.values()]
    return any(get_origin(a) is Literal and tag in get_args(a) for a in annotations)
