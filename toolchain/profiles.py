"""Device profiles: what a device holds and runs, one TOML each in device_profiles/, frozen and typed.

Figures in a profile carry their source. What an op may be on a device is said by the graph's own op names.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from toolchain.errors import BudgetError, UnsupportedError, raise_collected
from toolchain.graph import DType, Graph, Op
from toolchain.graph.cost import peak_activation_bytes
from toolchain.knowledge import find_shipped, load_toml
from toolchain.quantization import Granularity, Scheme


class Table(BaseModel):
    """A frozen TOML table; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Memory(Table):
    """What the device offers a model, in KiB; absent where it does not bind."""

    ram_kib: int | None = Field(None, gt=0)
    flash_kib: int | None = Field(None, gt=0)


class Compute(Table):
    """How the device multiplies: SIMD register width, int8 dot-product instructions, peak rate, clock."""

    isa: str
    simd_bits: int | None = Field(None, gt=0)
    int8_dot_product: bool = False
    int8_macs_per_cycle: int | None = Field(None, gt=0)
    clock_mhz: int | None = Field(None, gt=0)
    channel_multiple: int = Field(1, ge=1, description="channels kept by pruning are rounded to this")


class SchemeTable(Table):
    """Quantization the device asks for (see `toolchain.quantization.Scheme`)."""

    activation_dtype: Literal["int8"] = "int8"
    activation_symmetric: bool = False
    weight_dtype: Literal["int8"] = "int8"
    weight_granularity: Granularity = Granularity.PER_CHANNEL
    granularity_of_op: dict[Op, Granularity] = {}


class Execution(Table):
    """What the device can run. `ops` absent means every op of the graph."""

    float_ops: bool = True
    ops: tuple[Op, ...] | None = None
    instead: dict[Op, str] = Field({}, description="what to write instead of an op the device lacks")


class Pays(StrEnum):
    """What a saving buys on a device."""

    TIME = "time"
    DOWNLOAD = "download"
    MEMORY = "memory"
    NOTHING = "nothing"


class Saving(Table):
    """One kernel fact: what a kind of saving pays for on this device, and why."""

    pays: tuple[Pays, ...]
    why: str


class DeviceProfile(Table):
    """One device. `source` names where its figures come from."""

    description: str
    source: str
    kind: Literal["cpu", "npu", "mcu"]
    compute: Compute
    memory: Memory = Memory()
    quantization: SchemeTable = SchemeTable()
    execution: Execution = Execution()
    savings: dict[Literal["structured", "unstructured", "codebook", "int8"], Saving] = {}

    @property
    def scheme(self) -> Scheme:
        table = self.quantization
        return Scheme(
            activation_dtype=DType(table.activation_dtype),
            activation_symmetric=table.activation_symmetric,
            weight_dtype=DType(table.weight_dtype),
            weight_granularity=table.weight_granularity,
            granularity_of_op=table.granularity_of_op,
        )


def load_profile(name: str | Path) -> DeviceProfile:
    """A shipped profile by name, or a user's own file. Raises OptionError or ProfileError."""
    return load_toml(find_shipped("device_profiles", name), DeviceProfile)


def check_ram(graph: Graph, profile: DeviceProfile, device: str) -> None:
    """Raises BudgetError where the int8 activations alive at once, and nothing else, are more than the device's RAM."""
    needed, offered = peak_activation_bytes(graph, 1), profile.memory.ram_kib
    if offered is not None and needed > offered * 1024:
        raise BudgetError(
            f"the model needs {needed:,} bytes of activations at once, {device} has {offered * 1024:,} bytes of RAM",
            hint="use a smaller input or fewer channels in the first layers",
        )


def check_flash(file: str, size: int, profile: DeviceProfile, device: str) -> None:
    """Raises BudgetError where a file is larger than the device's flash."""
    offered = profile.memory.flash_kib
    if offered is not None and size > offered * 1024:
        raise BudgetError(
            f"{file} has {size:,} bytes, {device} has {offered * 1024:,} bytes of flash",
            hint="prune the model, or choose a smaller one",
        )


def check_ops(graph: Graph, profile: DeviceProfile, device: str) -> None:
    """Raises UnsupportedError that lists every node whose op the device lacks, with its place in the user's model."""
    allowed = profile.execution.ops
    if allowed is None:
        return
    findings = []
    for node in graph.nodes:
        if node.op not in allowed:
            instead = profile.execution.instead.get(node.op)
            advice = f"; instead: {instead}" if instead else ""
            findings.append(f"{node.op} {node.name} [{node.source}]{advice}")
    title = f"{device} cannot run {len(findings)} op(s) of the model:"
    raise_collected(UnsupportedError, title, findings, hint="change these ops in the model, or choose another target")
