"""`MODEL=` to a model: a name of the zoo, `package.module:function`, a `.pt2` file, or the module itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from toolchain.errors import OptionError
from toolchain.imports import call_user_function, import_callable, is_import_spec
from toolchain.knowledge import did_you_mean
from toolchain.progress import SILENT, Progress
from toolchain.zoo import ZOO, ZooEntry
from toolchain.zoo.archive import load_exported

ModelSpec = str | Path | nn.Module | ExportedProgram | tuple[nn.Module | ExportedProgram, Any]

_RETURNS: Final = "return an nn.Module, or (nn.Module, example inputs), the inputs tensors of the shapes to deploy"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to trace.

    module: as it was given; tracing puts it in eval mode and back. example_inputs: one tensor (N, ...) an input,
    where the model came with any; else the first calibration sample may serve. samples: the sample set that suits it,
    if known.
    """

    name: str
    module: nn.Module | ExportedProgram
    example_inputs: tuple[Any, ...] | dict[str, Any] | None = None
    samples: str | None = None


def load_model(spec: ModelSpec, *, progress: Progress = SILENT) -> LoadedModel:
    """Load what MODEL= names, or take a module as it is.

    `progress` follows the training, where the zoo has to train first.
    Raises OptionError: no such name, an import or a function that fails, a wrong thing returned, a bad
    `.pt2`.
    """
    if isinstance(spec, (str, Path)):
        text = str(spec)
        if text in ZOO and isinstance(spec, str):
            return _from_zoo(text, ZOO[text], progress)
        if text.endswith(".pt2") or isinstance(spec, Path):
            return _from_file(Path(spec))
        if is_import_spec(text):
            made = call_user_function(import_callable(text, what="model"), what="model", spec=text)
            return _from_value(made, name=text.replace(":", "."), what=f"{text} returned")
        raise _unknown(text)
    return _from_value(spec, name=None, what="the model is")


def _from_zoo(name: str, entry: ZooEntry, progress: Progress) -> LoadedModel:
    loader = import_callable(entry.loader, what=f"model {name!r}")
    module = loader(progress) if entry.trains else loader()
    return LoadedModel(name, module.eval(), (torch.zeros(entry.shape),), entry.samples)


def _from_file(path: Path) -> LoadedModel:
    if path.suffix != ".pt2":
        raise _unknown(str(path))
    exported = load_exported(path)
    return LoadedModel(path.stem, exported, _exported_inputs(exported))


def _exported_inputs(exported: ExportedProgram) -> tuple[Tensor, ...] | None:
    """Return the inputs a program was exported with, where all are positional tensors."""
    arguments, named = exported.example_inputs or ((), {})
    if named or not arguments or not all(isinstance(argument, Tensor) for argument in arguments):
        return None
    return tuple(arguments)


def _from_value(value: Any, *, name: str | None, what: str) -> LoadedModel:
    module, inputs = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if isinstance(module, ExportedProgram):
        given = _exported_inputs(module) if inputs is None else _as_inputs(inputs, what)
        return LoadedModel(name or "model", module, given)
    if not isinstance(module, nn.Module):
        if isinstance(value, type) and issubclass(value, nn.Module):
            raise OptionError(f"{what} the class {value.__name__}, not a module", hint="return an instance of it")
        raise OptionError(f"{what} {_describe(value)}, not a model", hint=_RETURNS)
    examples = None if inputs is None else _as_inputs(inputs, what)
    return LoadedModel(name or type(module).__name__, module, examples)


def _as_inputs(inputs: Any, what: str) -> tuple[Any, ...] | dict[str, Any]:
    """Return example inputs as tensors, nested as they were given: a tuple of forward's arguments or a dict of them by
    name; one tensor or array stands for a model of one input."""
    several = inputs if isinstance(inputs, (tuple, dict)) else tuple(inputs) if isinstance(inputs, list) else (inputs,)
    tensors: tuple[Any, ...] | dict[str, Any] = pytree.tree_map_only(np.ndarray, torch.from_numpy, several)
    flat = pytree.tree_leaves(tensors)
    wrong = [value for value in flat if not isinstance(value, Tensor)]
    if wrong or not flat:
        found = f"{_describe(wrong[0])} among them" if wrong else "none"
        raise OptionError(f"{what} example inputs that are no tensors: {found}", hint=_RETURNS)
    return tensors


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(type(item).__name__ for item in value)})"
    if isinstance(value, dict):
        return f"a dict of {len(value)} entries (a state dict holds weights only)"
    return f"a {type(value).__name__}"


def _unknown(text: str) -> OptionError:
    path = Path(text)
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return OptionError(
            f"the model {text} is a pickle, and unpickling runs whatever code a file holds",
            hint="build the module in a function and name it package.module:function, or save a .pt2",
        )
    hint = f"{did_you_mean(text, ZOO)}shipped: {', '.join(ZOO)}; or give package.module:function or a .pt2 file"
    return OptionError(f"no model is called {text!r}", hint=hint)
