"""What Vela writes, read: its summary, its table of layers, and its reasons for leaving operators to the CPU.

The table of layers is no proper CSV: names stand last and may hold commas, and nothing is quoted. Operators on the CPU
stand in it with a time of zero, so that no sum over it is a time of the whole network.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolchain.errors import DeviceError

_COLUMNS_BEFORE_NAME = 15
_WARNING = re.compile(r"^Warning \(supported operators\) operator: (?P<op>\S+), ofm: '(?P<name>.*)'$")


@dataclass(frozen=True)
class Summary:
    """Bytes of everything in each memory (activations and constants), of weights before and after the NPU's encoding;
    cycles and multiply-accumulates of what runs on the NPU, and nothing else; clock in Hz."""

    sram_bytes: int
    dram_bytes: int
    flash_bytes: int
    weight_bytes: int
    encoded_weight_bytes: int
    cycles: int
    npu_macs: int
    clock_hz: float


@dataclass(frozen=True)
class Layer:
    """One row of the table of layers: what became of one operator of the file, or of a part of it. `name` is that of
    the tensor it makes."""

    operator: str
    on_npu: bool
    cycles: int
    macs: int
    name: str


def read_summary(text: str) -> Summary:
    """Raises DeviceError where a figure is missing."""
    row = next(csv.DictReader(io.StringIO(text)), None)
    try:
        if row is None:
            raise KeyError("a row")
        return Summary(
            sram_bytes=_kib(row, "sram"),
            dram_bytes=_kib(row, "dram"),
            flash_bytes=_kib(row, "on_chip_flash") + _kib(row, "off_chip_flash"),
            weight_bytes=round(float(row["total_original_weights"])),
            encoded_weight_bytes=round(float(row["total_npu_encoded_weights"])),
            cycles=round(float(row["cycles_total"])),
            npu_macs=round(float(row["nn_macs"])),
            clock_hz=float(row["core_clock"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(f"Vela's summary lacks {error}", hint="install the version of the extra npu") from error


def _kib(row: Mapping[str, str], memory: str) -> int:
    return round(1024 * float(row[f"{memory}_memory_used"]))


def read_layers(text: str) -> tuple[Layer, ...]:
    """Raises DeviceError where the table is another."""
    header, *lines = text.splitlines() or [""]
    columns = header.split(",")
    try:
        at = [columns.index(name) for name in ("Original Operator", "Target", "Op Cycles", "MAC Count", "Name")]
        if at[-1] != _COLUMNS_BEFORE_NAME:
            raise ValueError("Name is not its last column")
        rows = [line.split(",", _COLUMNS_BEFORE_NAME) for line in lines if line.strip()]
        return tuple(
            Layer(row[at[0]], row[at[1]] == "NPU", round(float(row[at[2]])), round(float(row[at[3]])), row[at[4]])
            for row in rows
        )
    except (ValueError, IndexError) as error:
        raise DeviceError(f"Vela's table of layers is unknown: {error}", hint="install the extra npu anew") from error


def read_reasons(printed: str) -> dict[str, str]:
    """Why Vela leaves an operator to the CPU, in its own words, by the tensor the operator makes."""
    return {name: "; ".join(lines) for name, lines in _warnings(printed)}


def _warnings(printed: str) -> Iterator[tuple[str, list[str]]]:
    lines = iter(printed.splitlines())
    for line in lines:
        found = _WARNING.match(line)
        if found is None:
            continue
        said: list[str] = []
        for told in lines:
            if not told.strip():
                break
            said.append(told.removeprefix("Reason: ").strip())
        yield found["name"], said
