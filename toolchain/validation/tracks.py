"""One exported file in one runtime, gathering its outputs while samples stream by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from toolchain.errors import OptionError, UnsupportedError
from toolchain.fidelity import Comparison
from toolchain.formats.artifact import Runner
from toolchain.formats.onnx import OnnxRunner, read_onnx
from toolchain.formats.onnx.external import SUFFIX as DATA_SUFFIX
from toolchain.formats.tflite import TfliteRunner, read_tflite
from toolchain.graph import DType, Graph
from toolchain.quantization import QuantizedGraph, dequantize_outputs, quantize_inputs
from toolchain.samples import Batch
from toolchain.stages.states import ExportedModel
from toolchain.validation.latency import median_latency_ms

REFERENCE_SAMPLES = 8
"""Reference kernels are slow and only have to show the same integers: so many samples are enough."""


@dataclass
class Track:
    """`file` as `runner` runs it. `most_samples` is set where the runtime only checks and is not what devices deploy.

    A float file is to compute what the graph it was written from computes, a quantized one what the reference does.
    `fidelity`, of a deployed float file whose graph was compressed, is how near that is to the reference.
    """

    file: str
    runner: Runner
    model: Graph | QuantizedGraph
    takes_integers: bool
    most_samples: int | None
    comparison: Comparison
    fidelity: Comparison | None = None
    outputs: list[list[np.ndarray]] = field(default_factory=list)
    latency_ms: float = 0.0

    @property
    def is_float(self) -> bool:
        return not isinstance(self.model, QuantizedGraph)

    @property
    def is_reduced(self) -> bool:
        """Whether weights are rounded and activations are not: nothing that could be counted in steps."""
        return isinstance(self.model, QuantizedGraph) and not self.model.has_integer_activations

    def judge(self, batch: Batch, targets: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> None:
        """Run the samples of a batch one by one and compare each with what the file is to give, `targets`."""
        for index, inputs in enumerate(single_samples(batch)):
            if self.most_samples is not None and self.comparison.samples >= self.most_samples:
                return
            given = self._given(inputs)
            if not self.outputs:
                self.latency_ms = median_latency_ms(self.runner, given)
            self.outputs.append(self.runner.run(given))
            given = self.real(self.outputs[-1])
            self.comparison.add(given, [target[index : index + 1] for target in targets])
            if self.fidelity is not None:
                self.fidelity.add(given, [output[index : index + 1] for output in references])

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Float values of the outputs of one sample."""
        return self.real(self.runner.run(self._given(inputs)))

    def real(self, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Float values of outputs as the runtime gave them."""
        return dequantize_outputs(self.model, outputs) if isinstance(self.model, QuantizedGraph) else list(outputs)

    def _given(self, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        if isinstance(self.model, QuantizedGraph) and self.takes_integers:
            return quantize_inputs(self.model, inputs)
        return inputs


def make_tracks(model: ExportedModel, notes: list[str]) -> Iterator[Track]:
    """One track for each file and runtime; a runtime that only checks is left out, with a note, where it cannot run."""
    for file, content in model.files.items():
        if file.endswith(DATA_SUFFIX):
            continue  # read with the file it lies beside
        data = model.files.get(file + DATA_SUFFIX)
        is_float = model.quantized.is_float or ".float." in file
        graph = model.graph if is_float else model.quantized
        counts = model.quantized.has_integer_activations and not is_float
        is_own = is_float and model.quantized.is_float and model.graph is not model.reference
        steps = None if not counts else [output_step(model.quantized, name) for name in model.graph.outputs]
        integers = takes_integers(file, content, model.quantized, data)
        for make, most in _runners(file, content, graph, data):
            try:
                near = Comparison() if is_own else None
                yield Track(file, make(), graph, integers, most, Comparison(steps), near)
            except UnsupportedError as error:
                if most is None:
                    raise
                notes.append(f"{file}: not checked with reference kernels: {error.what}")


def single_samples(batch: Batch) -> Iterator[tuple[np.ndarray, ...]]:
    """The samples of a batch, each with a batch of 1."""
    for index in range(len(batch)):
        yield tuple(array[index : index + 1] for array in batch.inputs)


def output_step(model: QuantizedGraph, name: str) -> float:
    """The quantization step of an output; 1 where it is not quantized."""
    return model.params[name].step if name in model.params else 1.0


def takes_integers(file: str, content: bytes, model: QuantizedGraph, data: bytes | None = None) -> bool:
    """Whether the inputs of a file of `model` that have parameters are quantized integers."""
    facts = read_onnx(content, data) if file.endswith(".onnx") else read_tflite(content)
    quantized = [facts.tensors[name].dtype for name in facts.inputs if name in model.params]
    return any(dtype in (DType.INT8, DType.UINT8, DType.INT16, DType.UINT16) for dtype in quantized)


def _runners(
    file: str, content: bytes, model: Graph | QuantizedGraph, data: bytes | None
) -> Iterator[tuple[Callable[[], Runner], int | None]]:
    """What loads the file in each runtime, and how many samples it is to run (None: all)."""
    if file.endswith(".onnx"):
        yield partial(OnnxRunner, content, model, data=data), None
    elif file.endswith(".tflite"):
        yield partial(TfliteRunner, content, kernels="xnnpack"), None
        if isinstance(model, QuantizedGraph):
            yield partial(TfliteRunner, content, kernels="reference"), REFERENCE_SAMPLES
    else:
        raise OptionError(f"{file} is neither .onnx nor .tflite")
