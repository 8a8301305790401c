"""What Vela finds of one deployed file: cycles, memory, and which operators run on the NPU.

Shares are of the file's own operators and of the multiply-accumulates of its layers, so that what is left to the CPU
counts (`toolchain.backends.vela.operators`):

    npu_macs_share = multiply-accumulates of operators on the NPU / those of all operators

Cycles, time and bandwidth are Vela's estimate of the NPU alone: it leaves the CPU's part out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from toolchain.backends.backend import Figure, Measured, Placement, Written
from toolchain.backends.vela.compiler import Compiled, compile_file
from toolchain.backends.vela.cures import cure, node_of
from toolchain.backends.vela.dtypes import check_dtypes
from toolchain.backends.vela.installation import vela_options, vela_version
from toolchain.backends.vela.operators import FileOperator, read_operators
from toolchain.backends.vela.readings import Summary, read_layers, read_reasons, read_summary
from toolchain.errors import DeviceError, UnsupportedError
from toolchain.graph import Graph
from toolchain.profiles import DeviceProfile

NAME = "vela"
_UNTOLD = "Vela leaves it to the CPU without a reason"


@dataclass(frozen=True)
class NpuFile:
    """A compiled file: its operators, those of them on the CPU with Vela's reasons, and what Vela sums up."""

    operators: tuple[FileOperator, ...]
    on_cpu: dict[str, str]
    summary: Summary
    content: bytes

    @property
    def macs(self) -> int:
        return sum(operator.macs for operator in self.operators)

    @property
    def macs_share(self) -> float:
        """Of multiply-accumulates; of operators where no layer multiplies."""
        on_npu = sum(operator.macs for operator in self.operators if operator.name not in self.on_cpu)
        return on_npu / self.macs if self.macs else self.ops_share

    @property
    def ops_share(self) -> float:
        return 1 - len(self.on_cpu) / len(self.operators) if self.operators else 1.0


def compile_operators(name: str, content: bytes, profile: DeviceProfile) -> NpuFile:
    """Compile one file and place its operators. Raises UnsupportedError where the NPU takes nothing of it, ProfileError
    where the profile's options do not belong together, DeviceError where Vela fails."""
    options = vela_options(profile)
    operators = read_operators(content)
    check_dtypes(name, operators)
    compiled = compile_file(content, options)
    on_cpu = _on_cpu(operators, compiled)
    if operators and len(on_cpu) == len(operators):
        raise UnsupportedError(
            f"nothing of {name} runs on {options.accelerator}: all {len(operators)} operators are left to the CPU",
            where="; ".join(f"{op} {why}" for op, why in list(on_cpu.items())[:3]),
            hint="choose a target without an NPU",
        )
    return NpuFile(operators, on_cpu, read_summary(compiled.summary), compiled.content)


def _on_cpu(operators: Sequence[FileOperator], compiled: Compiled) -> dict[str, str]:
    reasons = read_reasons(compiled.printed)
    rows = {layer.name for layer in read_layers(compiled.layers) if not layer.on_npu}
    found = {}
    for operator in operators:
        made = [facts.name for facts in operator.outputs if facts.name in rows]
        if made:
            found[operator.name] = next((reasons[name] for name in made if name in reasons), _UNTOLD)
            rows -= set(made)
    if rows:
        raise DeviceError(
            f"Vela leaves operators to the CPU that the file does not name: {', '.join(sorted(rows)[:3])}",
            hint="install the version of the extra npu",
        )
    return found


def measure(written: Written, profile: DeviceProfile) -> Measured:
    """Figures, placements and the compiled file of one deployed file. Errors as in `compile_operators`."""
    found = compile_operators(written.name, written.content, profile)
    stem = PurePosixPath(written.name).stem
    return Measured(
        file=written.name,
        backend=NAME,
        version=vela_version(),
        figures=(*_shares(found), *_costs(found)),
        placements=tuple(_placement(operator, found, written.model.graph, profile) for operator in found.operators),
        files={f"{stem}_vela.tflite": found.content},
        notes=tuple(_notes(found, f"{stem}_vela.tflite")),
    )


def _shares(found: NpuFile) -> tuple[Figure, ...]:
    return (
        Figure("npu_macs_share", found.macs_share, "share of multiply-accumulates on the NPU"),
        Figure("npu_ops_share", found.ops_share, "share of operators on the NPU"),
        Figure("cpu_ops", len(found.on_cpu), "operators left to the CPU"),
    )


def _costs(found: NpuFile) -> tuple[Figure, ...]:
    summary = found.summary
    return (
        Figure("cycles", summary.cycles, "cycles of the NPU, estimated"),
        Figure("inference_ms", 1e3 * summary.cycles / summary.clock_hz, "one inference on the NPU, estimated"),
        Figure("sram_bytes", summary.sram_bytes, "SRAM"),
        Figure("flash_bytes", summary.flash_bytes, "flash", detail=not summary.flash_bytes),
        Figure("dram_bytes", summary.dram_bytes, "DRAM", detail=not summary.dram_bytes),
        Figure("weight_bytes", summary.weight_bytes, "weights before the NPU's encoding", detail=True),
        Figure("encoded_weight_bytes", summary.encoded_weight_bytes, "weights as the NPU reads them", detail=True),
        Figure("compiled_bytes", len(found.content), "the compiled file", detail=True),
    )


def _placement(operator: FileOperator, found: NpuFile, graph: Graph, profile: DeviceProfile) -> Placement:
    why = found.on_cpu.get(operator.name)
    if why is None:
        return Placement(operator.op, operator.name, "npu")
    instead = cure(operator.op, why, node_of(graph, operator.name), profile)
    return Placement(operator.op, operator.name, "cpu", why, instead)


def _notes(found: NpuFile, compiled: str) -> list[str]:
    notes = [f"{compiled} runs on the NPU's driver alone: no interpreter of this machine takes it"]
    if found.on_cpu:
        notes.append(f"cycles and time are the NPU's alone: Vela leaves out {len(found.on_cpu)} operator(s) on the CPU")
    return notes
