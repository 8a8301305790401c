"""One artifact as something that runs: a file in a process of its own, a saved stage's graph here.

Arrays go in and come out as the artifact stores them (integers where it is quantized), in torch's logical layout as
far as it is known: a TFLite file of another writer does not say which layout it has, and rank 4 is taken to be channels
last unless only the file's own order fits the other artifact.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from toolchain import errors
from toolchain.comparison.child import decode_arrays, encode_arrays, read_message, write_message
from toolchain.comparison.reading import Artifact, FileSource, GraphSource
from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.formats.artifact import Format, TensorFacts
from toolchain.formats.tflite.layout import default_layout
from toolchain.formats.tflite.parse import parse
from toolchain.formats.tflite.reader import activation_layouts
from toolchain.graph import DType

LOAD_SECONDS = 300.0
"""Longest that a runtime may take to load a file."""

SAMPLE_SECONDS = 300.0
"""Longest that one sample may take."""


@dataclass(frozen=True)
class Port:
    """An in- or output: `shape` is logical, -1 where any size goes. `as_stored` is the file's own shape, where its
    layout is only presumed."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0
    as_stored: tuple[int, ...] | None = None

    @property
    def is_quantized(self) -> bool:
        return self.scale is not None and not self.dtype.is_float

    @property
    def is_real(self) -> bool:
        """Whether values are reals, stored as they are or quantized."""
        return self.dtype.is_float or self.is_quantized

    def stored(self, reals: np.ndarray) -> np.ndarray:
        """`reals` as the artifact takes them: q = clip(round(real / scale) + zero_point)."""
        if self.scale is None or not self.is_quantized:
            return reals.astype(self.dtype.numpy)
        limits = np.iinfo(self.dtype.numpy)
        integers = np.rint(reals.astype(np.float64) / self.scale) + self.zero_point
        stored: np.ndarray = np.clip(integers, limits.min, limits.max).astype(self.dtype.numpy)
        return stored

    def real(self, stored: np.ndarray) -> np.ndarray:
        """Real values (float64) of what the artifact gave: scale (q - zero_point)."""
        values = np.asarray(stored, np.float64)
        return values if self.scale is None or not self.is_quantized else (values - self.zero_point) * self.scale


class Executable(Protocol):
    """A loaded artifact."""

    runtime: str

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs of one sample in the artifact's order."""
        ...


def ports(artifact: Artifact) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """In- and outputs. Raises OptionError where a layout does not fit its tensor."""
    facts = artifact.facts
    # files of ONNX's first versions list their constants among the inputs
    inputs = tuple(name for name in facts.inputs if not facts.tensors[name].is_constant)
    if isinstance(artifact.source, FileSource) and artifact.source.format is Format.TFLITE:
        return _tflite_ports(artifact.source.content)
    return tuple(_port(facts.tensors[n]) for n in inputs), tuple(_port(facts.tensors[n]) for n in facts.outputs)


def _port(tensor: TensorFacts) -> Port:
    scale = tensor.scale[0] if len(tensor.scale) == 1 else None
    return Port(tensor.name, tensor.dtype, tensor.shape, scale, tensor.zero_point[0] if scale is not None else 0)


def _tflite_ports(content: bytes) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    model = parse(content)
    layouts = activation_layouts(model)

    def port(name: str, index: int) -> Port:
        tensor = model.tensors[index]
        layout = layouts.get(name) or layouts.get(tensor.name) or default_layout(len(tensor.shape))
        shape = tuple(tensor.shape[layout.axis(axis)] for axis in range(layout.rank))
        scale = tensor.scale[0] if len(tensor.scale) == 1 else None
        zero_point = tensor.zero_point[0] if scale is not None else 0
        return Port(name, tensor.dtype, shape, scale, zero_point, None if model.is_mapped else tensor.shape)

    return tuple(port(*end) for end in model.inputs), tuple(port(*end) for end in model.outputs)


def execute(artifact: Artifact) -> AbstractContextManager[Executable]:
    """The artifact, loaded inside the `with` block. Raises UnsupportedError where a runtime refuses the file or dies
    of it."""
    if isinstance(artifact.source, GraphSource):
        return _GraphExecutable(artifact.source)
    return _FileExecutable(artifact.name, artifact.source)


class _GraphExecutable:
    """A saved stage: float by torch, quantized by its exact integer meaning."""

    def __init__(self, source: GraphSource) -> None:
        self._model = source.model
        self.runtime = "torch" if source.model.is_float else "exact integers"

    def __enter__(self) -> Self:
        if not self._model.is_float:
            from toolchain.engine.simulate import Simulator

            self._simulator = Simulator(self._model)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self._model.is_float:
            from toolchain.engine.run import predict

            return predict(self._model.graph, [arrays])
        values = self._simulator.run(arrays) | dict(self._model.graph.constants)
        return [values[name] for name in self._model.graph.outputs]


class _FileExecutable:
    """A file in a process of its own, which may die or hang without harm."""

    def __init__(self, name: str, source: FileSource) -> None:
        self._name = name
        self._source = source
        self.runtime = "onnxruntime" if source.format is Format.ONNX else "litert"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            command = [sys.executable, "-P", "-m", "toolchain.comparison.child"]
            pipe = subprocess.PIPE
            self._process: Any = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=self._log, env=_environment()
            )
            stack.callback(self._end)
            self._reader = stack.enter_context(ThreadPoolExecutor(1))
            stack.callback(self._process.kill)  # before the reader is waited for
            parts = (self._source.format.value.encode(), self._source.content, self._source.data or b"")
            self.runtime = self._asked(LOAD_SECONDS, *parts).decode()
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                stream.close()

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return decode_arrays(self._asked(SAMPLE_SECONDS, encode_arrays(arrays)))

    def _asked(self, seconds: float, *messages: bytes) -> bytes:
        """What the process answers."""
        future = self._reader.submit(self._exchanged, *messages)
        try:
            answer = future.result(seconds)
        except FutureTimeoutError:
            self._process.kill()
            raise UnsupportedError(
                f"{self.runtime} is not done with the file after {seconds:.0f} s", where=self._name
            ) from None
        except (EOFError, OSError) as error:
            raise self._died() from error
        if answer[:1] == b"!":
            raise _told(answer, self._name)
        return answer

    def _exchanged(self, *messages: bytes) -> bytes:
        for message in messages:
            write_message(self._process.stdin, message)
        return read_message(self._process.stdout)

    def _died(self) -> UnsupportedError:
        code = self._process.wait()
        reason = f"exit code {code}"
        if code < 0:
            with suppress(ValueError):
                reason = signal.Signals(-code).name
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        last = f": {lines[-1][:200]}" if lines else ""
        return UnsupportedError(
            f"{self.runtime} dies of this file ({reason})",
            where=f"{self._name}{last}",
            hint="the file is damaged, or meets a defect of the runtime",
        )


def _told(answer: bytes, name: str) -> ToolchainError:
    """The error that the other process met."""
    plain = json.loads(answer[1:])
    kind: type[ToolchainError] = getattr(errors, plain["kind"])
    return kind(plain["what"], where=plain["where"] or name, hint=plain["hint"])


def _environment() -> dict[str, str]:
    """With this very toolchain to import, wherever it was imported from."""
    package = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])}
