"""The states a model passes through, each a frozen type of its own, so that a stage can say what it takes and gives.

    TracedModel ──▶ CalibratedModel ──▶ QuantizedModel ──▶ ExportedModel

Every state carries the float `reference` it started from (teacher of recovery, truth of validation), the `structure`
that compression fixed, and its `history`. `digest` is the sha256 of everything `save` writes but seconds.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from toolchain.errors import OptionError
from toolchain.graph import Graph, Structure
from toolchain.graph.archive import (
    graph_from_plain,
    graph_to_plain,
    structure_from_arrays,
    structure_to_arrays,
)
from toolchain.quantization import AffineParams, QuantizedGraph, Reals, TensorStatistics, refit_weights
from toolchain.quantization.rescale import rescale

if TYPE_CHECKING:
    from torch import nn

    from toolchain.stages.stage import Stage

FORMAT = 2
"""Version of the saved form; a state saved by another is refused."""


_STATISTICS_ARRAYS = ("means", "counts", "channel_min", "channel_max")
_STATISTICS = tuple(f.name for f in fields(TensorStatistics) if f.name not in _STATISTICS_ARRAYS)


class TorchModel:
    """Stands for the user's `nn.Module` or `ExportedProgram` where stages say what they take."""


@dataclass(frozen=True)
class Record:
    """One stage in a model's history: its name, its options and what it found or did, as plain JSON values. `seconds`
    is how long parts of it took; no two runs agree on that, so that it is no part of a model's digest."""

    stage: str
    options: Mapping[str, Any]
    facts: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, kw_only=True)
class Model:
    """What every state has. Subclasses add fields and say in `_plain`/`_arrays` how these are saved."""

    state: ClassVar[str]

    graph: Graph
    reference: Graph
    structure: Structure = field(default_factory=Structure)
    history: tuple[Record, ...] = ()

    def after(self, stage: Stage[Any, Any], *, facts: Mapping[str, Any], **changes: Any) -> Self:
        """A copy with `changes` and one more record in its history."""
        return replace(self, history=self.recorded(stage, facts), **changes)

    def violations(self) -> list[str]:
        """Masks and codebooks that the present weights, or their integers, do not obey, a line each; none as a rule."""
        found = self.structure.violations(self.graph.constants)
        quantized = getattr(self, "quantized", None)
        if isinstance(quantized, QuantizedGraph) and (self.structure.masks or self.structure.codebooks):
            found += [f"{line} in integers" for line in self.structure.violations(quantized.integers)]
        return found

    def recorded(
        self, stage: Stage[Any, Any], facts: Mapping[str, Any], seconds: Mapping[str, float] | None = None
    ) -> tuple[Record, ...]:
        """The history with one more record."""
        return (*self.history, Record(stage.name, stage.options(), facts, seconds or {}))

    def to_module(self) -> nn.Module:
        """The model as a `torch.nn.Module` to look at or to train: parameters named as in the user's `state_dict`,
        masks and codebooks held, and fake quantization where the state is quantized. `from_module` brings it back."""
        from toolchain.engine.module import GraphModule

        return GraphModule(self.graph, structure=self.structure)

    def from_module(self, module: nn.Module) -> Self:
        """This model with the weights of a module that `to_module` gave. Raises OptionError for any other module."""
        from toolchain.engine.module import GraphModule

        if not isinstance(module, GraphModule) or not _same_form(module.graph, self.graph):
            raise OptionError(
                "the module was not made by this model's to_module()", hint="train model.to_module() itself"
            )
        changed = module.trained_constants()
        return replace(self, graph=self.graph.with_constants(changed), structure=module.trained_structure())

    @cached_property
    def digest(self) -> str:
        """sha256 over everything `save` writes but the seconds, as hex."""
        digest = hashlib.sha256(self._json().encode())
        for name, content in self._stored.contents.items():
            digest.update(f"{name} {content}\n".encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write `model.json`, `arrays.safetensors` and `seconds.json` into the existing, empty `folder`. Raises
        OSError."""
        try:
            save_file(self._stored.arrays, Path(folder) / "arrays.safetensors")
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from error
        (Path(folder) / "model.json").write_text(self._json())
        (Path(folder) / "seconds.json").write_text(json.dumps([dict(record.seconds) for record in self.history]))

    @cached_property
    def _stored(self) -> _Stored:
        return _stored_once(self._arrays())

    def _json(self) -> str:
        plain = {"format": FORMAT, "state": self.state, "shared": self._stored.shared, **self._plain()}
        return json.dumps(plain, sort_keys=True, allow_nan=True)

    def _plain(self) -> dict[str, Any]:
        return {
            "graph": graph_to_plain(self.graph),
            "reference": graph_to_plain(self.reference),
            "history": [[r.stage, dict(r.options), dict(r.facts)] for r in self.history],
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"graph/{name}": array for name, array in self.graph.constants.items()}
        arrays |= {f"reference/{name}": array for name, array in self.reference.constants.items()}
        return arrays | structure_to_arrays(self.structure)

    @classmethod
    def _fields(cls, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {
            "graph": graph_from_plain(plain["graph"], _under("graph/", arrays)),
            "reference": graph_from_plain(plain["reference"], _under("reference/", arrays)),
            "structure": structure_from_arrays(arrays),
            "history": tuple(
                Record(stage, options, found, seconds)
                for (stage, options, found), seconds in zip(plain["history"], plain["seconds"], strict=True)
            ),
        }


@dataclass(frozen=True, kw_only=True)
class TracedModel(Model):
    """A float graph as the user's model computes it."""

    state = "traced"


@dataclass(frozen=True, kw_only=True)
class CalibratedModel(Model):
    """A folded float graph and the statistics of every activation on the calibration samples."""

    state = "calibrated"

    statistics: Mapping[str, TensorStatistics]

    def _plain(self) -> dict[str, Any]:
        found = {n: {field: getattr(s, field) for field in _STATISTICS} for n, s in self.statistics.items()}
        return {**super()._plain(), "statistics": found}

    def _arrays(self) -> dict[str, np.ndarray]:
        held = {f"{field}/{n}": getattr(s, field) for n, s in self.statistics.items() for field in _STATISTICS_ARRAYS}
        return super()._arrays() | {name: array for name, array in held.items() if array is not None}

    @classmethod
    def _fields(cls, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        statistics: dict[str, Any] = {name: dict(numbers) for name, numbers in plain["statistics"].items()}
        for field_name in _STATISTICS_ARRAYS:
            for name, array in _under(f"{field_name}/", arrays).items():
                statistics[name][field_name] = array
        statistics = {name: TensorStatistics(**held) for name, held in statistics.items()}
        return {**super()._fields(plain, arrays), "statistics": statistics}


@dataclass(frozen=True, kw_only=True)
class QuantizedModel(Model):
    """A folded graph with float master weights, the affine parameters of every tensor and the biases' corrections."""

    state = "quantized"

    params: Mapping[str, AffineParams]
    corrections: Mapping[str, np.ndarray] = field(default_factory=dict)
    float_nodes: Mapping[str, str] = field(default_factory=dict)
    reals: Reals = Reals.FLOAT32

    @cached_property
    def quantized(self) -> QuantizedGraph:
        return QuantizedGraph(self.graph, self.params, self.corrections, self.float_nodes, self.reals)

    def to_module(self, *, learned_steps: bool = False) -> nn.Module:
        """As for every state, with fake quantization; with `learned_steps` the scales are parameters as well (LSQ)."""
        from toolchain.engine.module import GraphModule

        return GraphModule(
            self.graph,
            params=self.params,
            corrections=self.corrections,
            structure=self.structure,
            float_nodes=self.float_nodes,
            learned_steps=learned_steps,
        )

    def from_module(self, module: nn.Module) -> Self:
        from toolchain.engine.module import GraphModule

        trained = super().from_module(module)
        assert isinstance(module, GraphModule)  # or the line above would have raised
        params = refit_weights(trained.graph, self.params)
        return replace(trained, params=rescale(trained.graph, params, module.trained_scales()))

    def _plain(self) -> dict[str, Any]:
        params = {name: params.to_plain() for name, params in self.params.items()}
        return {**super()._plain(), "params": params, "float_nodes": dict(self.float_nodes), "reals": self.reals}

    def _arrays(self) -> dict[str, np.ndarray]:
        return super()._arrays() | {f"correction/{name}": array for name, array in self.corrections.items()}

    @classmethod
    def _fields(cls, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        params = {name: AffineParams.from_plain(value) for name, value in plain["params"].items()}
        own = {"params": params, "corrections": _under("correction/", arrays), "float_nodes": plain["float_nodes"]}
        return {**super()._fields(plain, arrays), **own, "reals": Reals(plain["reals"])}


@dataclass(frozen=True, kw_only=True)
class ExportedModel(QuantizedModel):
    """The files by name, and the state they were written from (`params` is empty where that was float)."""

    state = "exported"

    files: Mapping[str, bytes]

    def from_module(self, module: nn.Module) -> Self:
        """Not for files that are written already: raises OptionError."""
        raise OptionError(
            "exported files cannot take new weights", hint="give them to the quantized model, export again"
        )

    def write(self, folder: Path) -> list[Path]:
        """Write the files into the existing `folder`; paths in the order of `files`."""
        paths = [folder / name for name in self.files]
        for path, content in zip(paths, self.files.values(), strict=True):
            path.write_bytes(content)
        return paths

    def _plain(self) -> dict[str, Any]:
        return {**super()._plain(), "files": list(self.files)}

    def _arrays(self) -> dict[str, np.ndarray]:
        files = {f"file/{name}": np.frombuffer(content, np.uint8) for name, content in self.files.items()}
        return super()._arrays() | files

    @classmethod
    def _fields(cls, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        if any(Path(name).name != name for name in plain["files"]):
            raise ValueError("a file name leads out of the folder")
        files = {name: arrays[f"file/{name}"].tobytes() for name in plain["files"]}
        return {**super()._fields(plain, arrays), "files": files}


STATES: dict[str, type[Model]] = {
    kind.state: kind for kind in (TracedModel, CalibratedModel, QuantizedModel, ExportedModel)
}


def _same_form(one: Graph, other: Graph) -> bool:
    """Whether two graphs differ in nothing but the values of their constants."""
    return one.nodes == other.nodes and one.types == other.types


def load(folder: Path) -> Model:
    """A state that `save` wrote. Raises OptionError where the folder is missing, damaged or of another version."""
    try:
        plain = json.loads((folder / "model.json").read_text())
        plain["seconds"] = json.loads((folder / "seconds.json").read_text())
        arrays = load_file(folder / "arrays.safetensors")
        if plain["format"] != FORMAT:
            raise OptionError(f"saved by another version (format {plain['format']}, not {FORMAT})", where=str(folder))
        arrays |= {name: arrays[original] for name, original in plain["shared"].items()}
        kind = STATES[plain["state"]]
        return kind(**kind._fields(plain, arrays))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise OptionError(f"no saved model: {error}", where=str(folder), hint="run the stage before again") from error


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class _Stored:
    """Arrays as they are written: equal ones once, under the first of their names (`shared`: name -> that name).

    It follows from the values alone, not from what happens to share memory, and so does the digest.
    """

    arrays: dict[str, np.ndarray]
    contents: dict[str, str]
    shared: dict[str, str]


def _stored_once(arrays: dict[str, np.ndarray]) -> _Stored:
    stored = _Stored({}, {}, {})
    hashed: dict[tuple[int, tuple[int, ...], tuple[int, ...], str], str] = {}
    first: dict[str, str] = {}
    for name in sorted(arrays):
        array = arrays[name]
        memory = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if memory not in hashed:
            hashed[memory] = _content(array)
        original = first.setdefault(hashed[memory], name)
        if original == name:
            # not ascontiguousarray, which gives a scalar an axis
            stored.arrays[name], stored.contents[name] = np.asarray(array, order="C"), hashed[memory]
        else:
            stored.shared[name] = original
    return stored


def _content(array: np.ndarray) -> str:
    flat = np.asarray(array, order="C").reshape(-1)
    return f"{array.dtype} {array.shape} {hashlib.sha256(flat.data).hexdigest()}"
