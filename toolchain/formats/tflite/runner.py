"""Run a TFLite file with one of its interpreters, in torch's logical layout."""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from toolchain.errors import OptionError, SampleError, UnsupportedError
from toolchain.formats.tflite.defects import known_defects
from toolchain.formats.tflite.layout import Layout, default_layout
from toolchain.formats.tflite.native_log import without_notices
from toolchain.formats.tflite.parse import parse
from toolchain.formats.tflite.reader import activation_layouts

Kernels: TypeAlias = Literal["xnnpack", "builtin", "reference"]
Package: TypeAlias = Literal["ai_edge_litert", "tflite_runtime", "tensorflow"]

_MODULES: Final = {
    "ai_edge_litert": "ai_edge_litert.interpreter",
    "tflite_runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow.lite.python.interpreter",
}
_LABELS: Final = {
    "ai_edge_litert": "litert",
    "tflite_runtime": "tflite-runtime",
    "tensorflow": "tensorflow-lite",
}
_RESOLVERS: Final = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


class TfliteRunner:
    """A loaded file that implements `formats.artifact.Runner`.

    `kernels` are those that run by default, XNNPACK where it has one (`xnnpack`), the interpreter's own
    (`builtin`) or its plain ones (`reference`). What the graph needs to be known for is in the file.
    """

    def __init__(
        self,
        content: bytes,
        *,
        kernels: Kernels = "xnnpack",
        threads: int = 1,
        package: Package = "ai_edge_litert",
    ) -> None:
        """Load the file.

        Raises OptionError where it is damaged or the package is not installed, UnsupportedError where the
        runtime refuses it (in the runtime's words) or is known to run it wrongly.
        """
        self._content = content
        self._kernels = kernels
        self._threads = threads
        self._package = package
        self._model = parse(content)
        if defects := known_defects(self._model, kernels, package):
            raise UnsupportedError(
                f"{self.name} cannot be trusted with this file: {'; '.join(defects)}",
                hint="use other kernels",
            )
        self._layouts = activation_layouts(self._model)
        # outside XNNPACK, the interpreter may let one tensor overwrite another that has readers to come: the
        # reference kernels are run without, so that what they give is what the file says
        self._interpreter = self._load(preserve=kernels == "reference")
        self._seeing_interpreter: Any = self._interpreter if kernels == "reference" else None

    @property
    def name(self) -> str:
        return f"{_LABELS[self._package]}-{self._kernels}"

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs in the graph's order."""
        self._invoke(self._interpreter, inputs)
        found = []
        for name, index in self._model.outputs:
            try:
                found.append(self._layout(name, index).to_logical(self._interpreter.get_tensor(index)))
            except ValueError as error:
                raise UnsupportedError(f"{self.name} gives no output {name}: {error}") from error
        return found

    def tensors(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Every activation, by the graph's names: integers where it is quantized, else float32."""
        if self._seeing_interpreter is None:
            self._seeing_interpreter = self._load(preserve=True)
        self._invoke(self._seeing_interpreter, inputs)
        indices = {facts.name: index for index, facts in enumerate(self._model.tensors)}
        found = {}
        for name, layout in self._layouts.items():
            value = self._seen(indices[self._model.mapped.aliases.get(name, name)])
            if value is not None:
                found[name] = layout.to_logical(value)
        return found

    def undelegated_ops(self) -> dict[str, int]:
        """Operators, counted by name, that XNNPACK has left to the interpreter's own kernels."""
        operators = self._model.operators
        producers = {index: at for at, operator in enumerate(operators) for index in operator.outputs}
        delegated: set[int] = set()
        # delegates stand behind the operators of the file
        for node in self._interpreter._get_ops_details()[len(operators) :]:
            given, pending = set(node["inputs"]), list(node["outputs"])
            while pending:
                at = producers.get(pending.pop())
                if at is not None and at not in delegated:
                    delegated.add(at)
                    pending += [index for index in operators[at].inputs if index not in given]
        left = [operator.name for at, operator in enumerate(operators) if at not in delegated]
        return dict(sorted(Counter(left).items()))

    def _layout(self, name: str, index: int) -> Layout:
        """Of an in- or output; a signature from elsewhere may use other names than the tensors have."""
        facts = self._model.tensors[index]
        return self._layouts.get(name) or self._layouts.get(facts.name) or default_layout(len(facts.shape))

    def _seen(self, index: int) -> np.ndarray | None:
        try:
            return np.asarray(self._seeing_interpreter.get_tensor(index))
        except ValueError:  # this runtime does not keep it
            return None

    def _invoke(self, interpreter: Any, inputs: Sequence[np.ndarray]) -> None:
        if len(inputs) != len(self._model.inputs):
            raise SampleError(f"the model takes {len(self._model.inputs)} inputs, but {len(inputs)} were given")
        placed = {}
        for (name, index), value in zip(self._model.inputs, inputs, strict=True):
            try:
                placed[name] = index, self._layout(name, index).to_physical(value)
            except ValueError as error:
                raise SampleError(f"input {name!r} does not fit: {error}") from error
        self._resize(interpreter, {index: value.shape for index, value in placed.values()})
        for name, (index, value) in placed.items():
            try:
                interpreter.set_tensor(index, value)
            except (ValueError, RuntimeError) as error:
                raise SampleError(f"input {name!r} does not fit: {error}") from error
        try:
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise UnsupportedError(f"{self.name} cannot run this file: {error}") from error

    def _resize(self, interpreter: Any, shapes: Mapping[int, tuple[int, ...]]) -> None:
        """Have inputs of a dynamic batch take the one given; others refuse what does not fit when it is set."""
        details = {found["index"]: found for found in interpreter.get_input_details()}
        changed = {
            index: shape
            for index, shape in shapes.items()
            if shape != tuple(details[index]["shape"]) and -1 in details[index]["shape_signature"]
        }
        if not changed:
            return
        try:
            for index, shape in changed.items():
                interpreter.resize_tensor_input(index, shape, strict=True)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise SampleError(f"{self.name} cannot take inputs of shape {list(shapes.values())}: {error}") from error

    def _load(self, *, preserve: bool) -> Any:
        try:
            module = importlib.import_module(_MODULES[self._package])
        except ImportError as error:
            raise OptionError(f"{self._package} is not installed") from error
        resolver = getattr(module.OpResolverType, _RESOLVERS[self._kernels])
        with warnings.catch_warnings(), without_notices():
            # it warns that keeping tensors is for debugging, and that tf.lite has moved
            warnings.simplefilter("ignore")
            try:
                interpreter = module.Interpreter(
                    model_content=self._content,
                    num_threads=self._threads,
                    experimental_op_resolver_type=resolver,
                    experimental_preserve_all_tensors=preserve,
                )
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise UnsupportedError(f"{self.name} refuses this file: {error}") from error
        return interpreter
