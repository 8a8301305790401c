"""The tables of a device profile: what a device holds and runs, frozen and typed.

Figures carry their source. What an op may be on a device is said by the graph's own op names.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from toolchain.graph import Op
from toolchain.quantization import Granularity, NumberFormat


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
    layer's weight), `rank`, `batch` and `channels` (of what the op reads and makes), or `upscale` (of a resize: how
    much larger it makes an image, (out - 1) / (in - 1) where corners are aligned). The limit does not bind where an
    attribute of `unless` has, in all its members, one of the values there."""

    op: Op | None = None
    attribute: str
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[int | float | str | bool, ...] | None = None
    unless: dict[str, tuple[int | float | str | bool, ...]] = {}
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
