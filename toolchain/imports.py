"""`package.module:function` to the function itself; what a user's code raises becomes one OptionError.

The current directory can be imported from, as `python -m` would allow, also when the console script runs.
"""

from __future__ import annotations

import importlib
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from toolchain.errors import OptionError, ToolchainError
from toolchain.knowledge import did_you_mean

_SPEC: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_LIBRARIES: Final = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
_TOOLCHAIN: Final = str(Path(__file__).resolve().parent)


def is_import_spec(text: str) -> bool:
    """Say whether a text has the form `package.module:function`."""
    return _SPEC.fullmatch(text) is not None


def import_callable(spec: str, *, what: str) -> Callable[..., Any]:
    """Import the callable a user named, e.g. `my_package.models:build`.

    `what` says what it is for ("model", "sample set", "metric") and opens each message. Raises OptionError
    where the spec is malformed, the module is not found or raises on import, or holds no such callable.
    """
    if not is_import_spec(spec):
        raise OptionError(f"{what} {spec!r} is not of the form package.module:function")
    module_name, _, path = spec.partition(":")
    value: Any = _import_module(module_name, what)
    for name in path.split("."):
        if not hasattr(value, name):
            near = did_you_mean(name, [n for n in dir(value) if not n.startswith("_")])
            raise OptionError(
                f"{what}: {module_name} has no {path!r}",
                where=_file_of(sys.modules.get(module_name)),
                hint=f"{near}name a function that the module defines",
            )
        value = getattr(value, name)
    if not callable(value):
        raise OptionError(
            f"{what}: {spec} is {_a(type(value).__name__)}, not a function",
            hint="name a function that takes no arguments, or wrap the value in one",
        )
    return value  # type: ignore[no-any-return]


def call_user_function(function: Callable[..., Any], *arguments: Any, what: str, spec: str) -> Any:
    """Call a user's function; what it raises becomes an OptionError with the exception and its line.

    Errors of the toolchain itself pass through as they are, and so does Ctrl-C.
    """
    try:
        return function(*arguments)
    except ToolchainError:
        raise
    except (Exception, SystemExit) as error:
        raise OptionError(
            f"{what}: {spec} raised {describe(error)}",
            where=user_line(error),
            hint="mend the function; it is called without arguments" if not arguments else "mend the function",
        ) from error


def _import_module(name: str, what: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last: a file of the user's never takes a library's place
    importlib.invalidate_caches()  # a file written since the last import would go unseen
    try:
        return importlib.import_module(name)
    except ToolchainError:
        raise
    except (Exception, SystemExit) as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        # `import a.b` fails with name "a" or "a.b" when the user's own module is missing; any other name is
        # something that module imports in its turn.
        if missing and (name == missing or name.startswith(f"{missing}.")):
            raise OptionError(
                f"{what}: there is no module {missing!r}",
                where=f"looked in {here} and in the installed packages",
                hint=f"run from the folder that holds {name.partition('.')[0]}, or install the package",
            ) from error
        raise OptionError(
            f"{what}: importing {name} raised {describe(error)}",
            where=user_line(error),
            hint=f"mend the module, so that `python -c 'import {name}'` passes",
        ) from error


def describe(error: BaseException) -> str:
    """Return the type of an exception and the last line of its message: `KeyError: 'weights'`."""
    lines = [line for line in traceback.format_exception_only(error) if line.strip()]
    return lines[-1].strip()


def user_line(error: BaseException) -> str | None:
    """Return `file:line` where an exception came from: the deepest line of user code, else of all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    own = [f for f in frames if not f.filename.startswith((*_LIBRARIES, _TOOLCHAIN))] or frames
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def _file_of(module: ModuleType | None) -> str | None:
    return getattr(module, "__file__", None)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"
