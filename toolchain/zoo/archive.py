"""A `.pt2` of torch.export, read without ever running code that the file brings along.

`torch.export.load` (2.13) trusts its file: it unpickles opaque objects and subclassed tensors, unpickles
sample inputs anew without restrictions when the restricted way fails, hands symbolic shapes to sympy, which
evaluates them, imports modules named in pytree contexts, pastes names and guards into generated code, and
loads compiled libraries. So the archive is looked through first, with the reader that torch itself uses, and
refused when it holds any of that; guards are dropped (samples are checked against the inputs anyway), and
torch.load is held to weights_only besides.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import PT2ArchiveReader

from toolchain.errors import OptionError

_SAMPLE_INPUTS: Final = "data/sample_inputs/"
_MODELS: Final = "models/"
_LEGACY: Final = re.compile(r"data/(weights|constants)/[^/]*\.pt")
_NAME: Final = re.compile(r"[\w.]*")
_SYMBOL: Final = re.compile(r"[a-z]{1,2}\d+|True|False|true|false|oo|int_oo")
_SHAPE_FUNCTION: Final = re.compile(
    r"Abs|Add|And|CeilDiv|CeilToInt|CleanDiv|Eq|Equality|Float|FloatPow|FloatTrueDiv|FloorDiv|FloorToInt|Ge|GreaterThan"
    r"|Gt|Identity|IntTrueDiv|Integer|IsNonOverlappingAndDenseIndicator|LShift|Le|LessThan|Lt|Max|Min|Mod"
    r"|ModularIndexing|Mul|Ne|Not|Or|Piecewise|Pow|PowByNatural|PythonMod|RShift|Rational|RoundDecimal|RoundToInt"
    r"|StrictGreaterThan|StrictLessThan|Symbol|ToFloat|TruncToFloat|TruncToInt|Unequality|Where|ceiling|floor"
)
_SHAPE_NODES: Final = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Tuple),
    *(ast.Load, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


def load_exported(path: Path) -> ExportedProgram:
    """Load a `.pt2`. Raises OptionError: missing, damaged, no `.pt2`, or with code of its own."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise OptionError(f"the model {path} {what}", hint="give a .pt2 file that torch.export.save wrote")
    try:
        content = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise OptionError(f"the model {path} cannot be read: {error.strerror}", hint="check the file") from error
    try:
        refusal = _what_it_would_run(PT2ArchiveReader(content))
    except Exception as error:  # a damaged archive fails in the reader in any way there is
        raise _damaged(path, error) from error
    if refusal is not None:
        raise OptionError(
            f"the model {path} {refusal}, which could run code that the file brings along",
            hint="save it anew with torch.export.save, of plain tensors only",
        )
    content.seek(0)
    try:
        with _weights_only():
            exported = torch.export.load(content)
    except Exception as error:
        raise _damaged(path, error) from error
    exported._guards_code.clear()
    return exported


def _damaged(path: Path, error: Exception) -> OptionError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return OptionError(
        f"the model {path} is damaged, or no .pt2 of this torch ({torch.__version__})",
        where=reason[:200],
        hint="write it with torch.export.save(torch.export.export(model, inputs), path)",
    )


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Hold every torch.load to weights_only, also where it asks for less, and keep torch's logs quiet."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(silenced)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _what_it_would_run(archive: PT2ArchiveReader) -> str | None:
    """Return what in the archive could run code, or None where it holds tensors and a graph only."""
    names = archive.get_file_names()
    if not any(name.startswith(_MODELS) for name in names):
        raise ValueError("it holds no exported program")
    refusals = (_refusal(name, archive) for name in names)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _refusal(name: str, archive: PT2ArchiveReader) -> str | None:
    """Return what one file in the archive could run."""
    if name.startswith("data/aotinductor/"):
        return "holds compiled code (AOTInductor)"
    if _LEGACY.fullmatch(name):
        return "holds weights in the old pickled form"
    if name.endswith("_config.json") and _has_pickles(json.loads(archive.read_bytes(name))):
        return "holds pickled objects"
    if name.startswith(_SAMPLE_INPUTS) and not _is_plain(archive.read_bytes(name)):
        return "holds sample inputs that are more than tensors"
    if name.startswith(_MODELS):
        odd = _odd_text(json.loads(archive.read_bytes(name)))
        return None if odd is None else f"holds the text {odd[:60]!r}"
    return None


def _has_pickles(config: Any) -> bool:
    """Say whether a table of weights or constants has an entry that torch would unpickle."""
    return any(entry["use_pickle"] or "_obj_" in entry["path_name"] for entry in config["config"].values())


def _is_plain(content: bytes) -> bool:
    if not content:
        return True
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:
        return False
    return True


def _odd_text(value: Any) -> str | None:
    """Return the first text that torch would evaluate and that is no shape, name or plain container."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, str) and _is_odd(key, inner):
                return inner
    inners = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((odd for inner in inners if (odd := _odd_text(inner)) is not None), None)


def _is_odd(key: str, text: str) -> bool:
    match key:
        case "expr_str":
            return not is_shape_expression(text)
        case "in_spec" | "out_spec":
            return "default_factory" in text or "__enum__" in text
        case "name":
            return _NAME.fullmatch(text) is None
    return False


def is_shape_expression(text: str) -> bool:
    """Say whether a text is arithmetic over shape symbols and nothing else.

    Such as `Add(Integer(2), Symbol('s77', integer=True))`, which is how torch writes it, or `s77 + 2`.
    """
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    if not all(isinstance(call.func, ast.Name) for call in calls):
        return False
    called = {id(call.func) for call in calls}
    # A text may only be what a symbol is called, or the digits of a number.
    texts = {id(c.args[0]) for c in calls if c.args and ast.unparse(c.func) in ("Symbol", "Float")}
    return all(_is_arithmetic(node, id(node) in called, id(node) in texts) for node in nodes)


def _is_arithmetic(node: ast.AST, called: bool, may_be_text: bool) -> bool:
    match node:
        case ast.Name():
            return (_SHAPE_FUNCTION if called else _SYMBOL).fullmatch(node.id) is not None
        case ast.Constant():
            if isinstance(node.value, str):
                return may_be_text and _NAME.fullmatch(node.value) is not None
            return isinstance(node.value, (int, float))
        case ast.keyword():
            return isinstance(node.value, ast.Constant)
    return isinstance(node, _SHAPE_NODES)
