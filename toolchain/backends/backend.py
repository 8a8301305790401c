"""What a back end is: a tool that compiles a deployed file for its device, or runs it as the device would, on the host.

It says what the tool found, as figures with a unit, where each op runs, and what else is to be published; it judges
nothing. A target's `[gates.device]` bounds figures by their key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from toolchain.graph import Finding, Graph
from toolchain.profiles import DeviceProfile
from toolchain.quantization import QuantizedGraph

Rows: TypeAlias = tuple[tuple[np.ndarray, ...], ...]


@dataclass(frozen=True)
class Written:
    """One deployed file, and golden samples of it as the file stores them: `inputs[sample][port]`, `expected` what this
    host's runtime makes of them. `data` is what lies beside an ONNX file."""

    name: str
    content: bytes
    model: QuantizedGraph
    inputs: Rows
    expected: Rows
    data: bytes | None = None


@dataclass(frozen=True)
class Figure:
    """One measured number. `key` names it in gates and reports and ends in its unit where it has one (`sram_bytes`,
    `cycles`, `npu_macs_share`); `label` says it to a reader; `exact` whether it repeats to the digit; a `detail` is
    shown in the report alone, not in the terminal."""

    key: str
    value: float
    label: str
    exact: bool = True
    detail: bool = False


@dataclass(frozen=True)
class Placement:
    """Where one op of the file runs; `why` and `instead` where that is not the accelerator."""

    op: str
    name: str
    where: Literal["npu", "cpu"]
    why: str = ""
    instead: str = ""


@dataclass(frozen=True)
class Measured:
    """What a back end found of one file. `files` is published beside it."""

    file: str
    backend: str
    version: str
    figures: tuple[Figure, ...] = ()
    placements: tuple[Placement, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def by_key(self) -> dict[str, float]:
        """Values of the figures by their keys."""
        return {figure.key: figure.value for figure in self.figures}


@dataclass(frozen=True)
class Backend:
    """An entry of the table. `name` is that of the profile's table which asks for it, `formats` the suffixes it takes,
    float files only where it `takes_float`; `missing` says in a line what must be installed and what is done without
    it, None where nothing is missing; `find` what is known to fall off the
    device before anything is compiled, None where only compiling tells; `measure` compiles or runs one file. It raises
    UnsupportedError where the tool refuses the file, DeviceError where the tool itself fails."""

    name: str
    description: str
    formats: tuple[str, ...]
    missing: Callable[[], str | None] = field(repr=False)
    measure: Callable[[Written, DeviceProfile], Measured] = field(repr=False)
    find: Callable[[Graph, DeviceProfile], tuple[Finding, ...]] | None = field(default=None, repr=False)
    takes_float: bool = False

    def serves(self, profile: DeviceProfile, file: str) -> bool:
        """Whether the device asks for it and it takes the file."""
        is_taken = file.rpartition(".")[2] in self.formats and (self.takes_float or ".float." not in file)
        return is_taken and getattr(profile, self.name) is not None
