"""What a runtime really executes: an int8 file may still be computed in float, or by slow kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from toolchain.formats.onnx import OnnxRunner
from toolchain.formats.tflite import TfliteRunner
from toolchain.graph import Node
from toolchain.quantization import QuantizedGraph
from toolchain.validation.tracks import Track

_UNCOUNTED = frozenset({"RESHAPE", "DequantizeLinear", "QuantizeLinear"})
"""What costs nothing wherever it runs, and the conversions around what is computed in float."""


def execution_notes(tracks: Iterable[Track]) -> Iterator[str]:
    """A line for each quantized file of which a runtime computes a part in float or outside its fast kernels."""
    for track in tracks:
        if not isinstance(track.model, QuantizedGraph) or track.most_samples is not None:
            continue
        asks_for_integers = not track.is_reduced
        if (
            asks_for_integers
            and isinstance(track.runner, OnnxRunner)
            and (ops := _counted(track.runner.executed_float_ops()))
        ):
            yield f"{track.file}: onnxruntime has no integer kernel here for {ops}: computed in float"
        if isinstance(track.runner, TfliteRunner) and (ops := _counted(track.runner.undelegated_ops())):
            yield f"{track.file}: XNNPACK leaves {ops} to the interpreter's slower kernels"


def island_notes(model: QuantizedGraph) -> Iterator[str]:
    """A line for each reason for which nodes of an integer graph compute in float, with the places of the first."""
    if not model.has_integer_activations:
        return
    islands: dict[str, list[Node]] = {}
    for node in model.graph.nodes:
        if node.output in model.float_nodes:
            islands.setdefault(model.float_nodes[node.output], []).append(node)
    for why, nodes in islands.items():
        shown = ", ".join(f"{node.name} [{node.source}]" for node in nodes[:_PLACES])
        more = f" and {len(nodes) - _PLACES} more" if len(nodes) > _PLACES else ""
        yield f"float island: {why}: {shown}{more}"


_PLACES = 2


def _counted(ops: Mapping[str, int]) -> str:
    return ", ".join(name if n == 1 else f"{n} {name}" for name, n in ops.items() if name not in _UNCOUNTED)
