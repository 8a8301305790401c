"""What stands between a model and a target, found before anything is trained, calibrated or written.

The model is exported and lowered, never run: weights may be random. The findings are those that a deployment would
raise, from the same functions (`engine.tracing.tracer.try_lower`, `profiles.device_findings`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.backends import backend_findings
from toolchain.errors import BudgetError, OptionError
from toolchain.formats.tflite import plan_sparse
from toolchain.graph import Finding, fold
from toolchain.graph.cost import peak_activation_bytes
from toolchain.profiles import check_flash, check_ram, device_findings
from toolchain.quantization import QuantizedGraph
from toolchain.stages.trace import as_arrays
from toolchain.targets import load_target


@dataclass(frozen=True)
class LintReport:
    """`findings` in the order of the model; `memory` what does not fit, a line each; bytes in int8."""

    target: str
    device: str
    findings: tuple[Finding, ...]
    memory: tuple[str, ...] = ()
    weight_bytes: int = 0
    activation_bytes: int = 0

    @property
    def blocks(self) -> bool:
        """Whether a deployment would be refused."""
        return bool(self.memory) or any(finding.blocks for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        findings = [asdict(finding) | {"source": asdict(finding.source)} for finding in self.findings]
        return {**asdict(self), "findings": findings, "blocks": self.blocks}


def lint(model: Any, *, target: str | Path, example_inputs: Sequence[Any] | Mapping[str, Any]) -> LintReport:
    """Everything that keeps `model` (an `nn.Module` or `ExportedProgram`) off the target's device, or is slow there.

    `example_inputs` are as `Trace` takes them, with a batch of 1; their values do not matter. Raises OptionError for a
    target that does not exist, UnsupportedError where the model cannot be exported at all.
    """
    from torch.export import ExportedProgram

    from toolchain.engine.tracing.tracer import export, fold_constants, try_lower, unroll_layers

    wanted, profile = load_target(target)
    name = Path(target).stem
    program = model if isinstance(model, ExportedProgram) else export(model, as_arrays(example_inputs))
    graph, unlowered = try_lower(program)
    if unlowered:
        return LintReport(name, wanted.device, unlowered)
    graph = fold(fold_constants(unroll_layers(graph, everywhere=not profile.execution.float_ops)))
    weight_bytes = sum(constant.size for constant in graph.constants.values())
    memory = [
        *_told(partial(check_ram, graph, profile, wanted.device)),
        *_told(partial(check_flash, "the int8 weights", weight_bytes, profile, wanted.device)),
    ]
    known = backend_findings(graph, profile, wanted.formats)
    found = tuple(dict.fromkeys((*device_findings(graph, profile), *known)))
    if profile.kernels.sparse is not None and "tflite" in wanted.formats:
        found += plan_sparse(QuantizedGraph(graph, {})).refused
    return LintReport(name, wanted.device, found, tuple(memory), weight_bytes, peak_activation_bytes(graph, 1))


def _told(check: Callable[[], None]) -> list[str]:
    try:
        check()
    except BudgetError as error:
        return [error.what]
    return []


def zero_inputs(shapes: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Inputs for shapes in words: `1,3,224,224`, or `int64:1,128`. Raises OptionError for what is no shape."""
    return tuple(_zeros(shape) for shape in shapes)


def _zeros(text: str) -> np.ndarray:
    kind, _, sizes = text.rpartition(":")
    try:
        return np.zeros([int(size) for size in sizes.split(",")], kind or "float32")
    except (ValueError, TypeError) as error:
        raise OptionError(f"{text!r} is no shape", hint="give sizes, 1,3,224,224, or int64:1,128") from error
