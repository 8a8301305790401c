"""Device profiles: what a device holds and runs, one TOML each in device_profiles/, frozen and typed.

Figures in a profile carry their source. What an op may be on a device is said by the graph's own op names.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from toolchain.errors import BudgetError, UnsupportedError, raise_collected
from toolchain.graph import DType, Finding, Graph, Node, Op
from toolchain.graph.cost import peak_activation_bytes
from toolchain.knowledge import find_shipped, load_toml
from toolchain.quantization import Granularity, NumberFormat, Scheme, find_float_nodes


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


class SchemeTable(Table):
    """Quantization the device asks for (see `toolchain.quantization.Scheme`)."""

    activation_dtype: Literal["int8"] = "int8"
    activation_symmetric: bool = False
    weight_dtype: Literal["int8"] = "int8"
    weight_granularity: Granularity = Granularity.PER_CHANNEL
    granularity_of_op: dict[Op, Granularity] = {}
    formats: tuple[NumberFormat, ...] = Field(
        (NumberFormat.W8A8, NumberFormat.W8A8_PER_TENSOR), description="number formats the device has kernels for"
    )


class Limit(Table):
    """Bounds of one attribute of one op (absent: of every op) on the device.

    `attribute` is the node's own (each member of a tuple is held to the bounds), or `kernel` (height and width of a
    layer's weight), `rank` and `batch` (of what the op reads and makes), or `upscale` (of a resize)."""

    op: Op | None = None
    attribute: str
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[int | float | str | bool, ...] | None = None
    instead: str = ""

    def refuses(self, value: Any) -> bool:
        """Whether one value lies outside."""
        outside = self.one_of is not None and value not in self.one_of
        low, high = self.at_least, self.at_most
        return outside or (low is not None and value < low) or (high is not None and value > high)

    def __str__(self) -> str:
        if self.one_of is not None:
            return f"one of {', '.join(map(str, self.one_of))}"
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


class Execution(Table):
    """What the device can run. `ops` absent means every op of the graph."""

    float_ops: bool = True
    static_shapes: bool = Field(False, description="every shape must be known when the file is compiled")
    ops: tuple[Op, ...] | None = None
    instead: dict[Op, str] = Field({}, description="what to write instead of an op the device lacks")
    limits: tuple[Limit, ...] = Field((), description="bounds of attributes")


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


class SparseKernels(Table):
    """Kernels that skip zero weights: of which ops, in files of which numbers, and above which share of zeros they run.

    `layout` is what else must hold: with `nchw_cluster`, every layer between a 3x3 convolution of stride 2 over three
    channels and a global mean must have a kernel channels first, and the share is that of all their 1x1 weights."""

    formats: tuple[NumberFormat, ...]
    ops: tuple[Op, ...]
    above: float = Field(ge=0, lt=1, description="share of zero weights that must be passed")
    layout: Literal["any", "nchw_cluster"] = "any"
    source: str


class CodebookKernels(Table):
    """What reads weights as a palette and indices: `granularity` is how many codebooks a tensor may have for the saving
    to be paid, `values` how many entries one may have."""

    granularity: Granularity
    values: int = Field(ge=2)
    pays: tuple[Pays, ...]
    source: str

    def fits(self, granularity: Granularity, values: int) -> bool:
        """Whether codebooks of so many values, one a tensor or one a channel, are paid for."""
        shared = granularity is Granularity.PER_TENSOR or self.granularity is Granularity.PER_CHANNEL
        return shared and values <= self.values


class Kernels(Table):
    """What the device's kernels make of compressed weights. Absent: they make nothing of it.

    `simd_channels` is the multiple of output channels that kernels compute at a time, so that what pruning keeps is
    rounded to it. `zeros_pay` is what single zero weights buy wherever they lie, in int8."""

    simd_channels: int = Field(1, ge=1)
    zeros_pay: tuple[Pays, ...] = (Pays.DOWNLOAD,)
    sparse: SparseKernels | None = None
    codebooks: CodebookKernels | None = None
    source: str = ""


class DeviceProfile(Table):
    """One device. `source` names where its figures come from."""

    description: str
    source: str
    kind: Literal["cpu", "npu", "mcu"]
    compute: Compute
    memory: Memory = Memory()
    quantization: SchemeTable = SchemeTable()
    execution: Execution = Execution()
    kernels: Kernels = Kernels()
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
            float_islands=self.execution.float_ops,
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


def check_numbers(wanted: NumberFormat, profile: DeviceProfile, device: str) -> None:
    """Raises UnsupportedError where the device has no kernels for the number format."""
    known = profile.quantization.formats
    if wanted not in known:
        raise UnsupportedError(
            f"{device} has no kernels for {wanted}",
            hint=f"numbers = {' or '.join(known)} in the quantize stage, or choose another target",
        )


def check_shapes(dynamic_batch: bool, profile: DeviceProfile, device: str) -> None:
    """Raises UnsupportedError where files are to take any batch and the device takes fixed shapes only."""
    if dynamic_batch and profile.execution.static_shapes:
        raise UnsupportedError(
            f"{device} cannot take a dynamic batch: every shape must be known when its file is compiled",
            hint="leave out dynamic_batch, or choose another target",
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
    """Raises UnsupportedError that lists everything that `device_findings` says keeps the folded `graph` off the
    device."""
    findings = [str(finding) for finding in device_findings(graph, profile) if finding.blocks]
    title = f"{device} cannot run {len(findings)} op(s) of the model:"
    raise_collected(UnsupportedError, title, findings, hint="change these ops in the model, or choose another target")


def device_findings(graph: Graph, profile: DeviceProfile) -> tuple[Finding, ...]:
    """Every op x dtype x attribute of the folded `graph` that the device lacks, and every op that it computes in
    float."""
    float_nodes = find_float_nodes(graph)
    found = (_node_findings(graph, node, profile, float_nodes.get(node.output)) for node in graph.nodes)
    return tuple(finding for findings in found for finding in findings)


def _node_findings(graph: Graph, node: Node, profile: DeviceProfile, why_float: str | None) -> Iterator[Finding]:
    execution = profile.execution
    dtype, instead = graph.types[node.output].dtype.value, execution.instead.get(node.op, "")
    label = f"{node.op} {node.name}"
    if execution.ops is not None and node.op not in execution.ops:
        yield Finding(label, "the device has no such op", node.source, dtype, instead)
        return
    if why_float is not None:
        why = f"computes in float inside an int8 file: {why_float}"
        yield Finding(label, why, node.source, dtype, instead, blocks=not execution.float_ops)
    for limit in execution.limits:
        if limit.op in (None, node.op):
            refused = [value for value in _values(graph, node, limit.attribute) if limit.refuses(value)]
            if refused:
                why = f"{limit.attribute} is {refused[0]}, the device takes {limit}"
                yield Finding(label, why, node.source, dtype, limit.instead)


def _values(graph: Graph, node: Node, attribute: str) -> tuple[Any, ...]:
    read = [graph.types[name].shape for name in node.inputs if not graph.is_constant(name)]
    shapes = [*read, graph.types[node.output].shape]
    if attribute == "rank":
        return tuple(len(shape) for shape in shapes)
    if attribute == "batch":
        return tuple(shape[0] for shape in shapes if shape)
    if attribute == "kernel":
        return graph.types[node.inputs[1]].shape[2:]
    if attribute == "upscale":
        pairs = zip(shapes[-1][2:], shapes[0][2:], strict=True)
        return tuple(after / before for after, before in pairs)
    value = node.attributes.get(attribute)
    return value if isinstance(value, tuple) else () if value is None else (value,)
