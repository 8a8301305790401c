"""The tables of a device profile that name what compiles for the device, runs its files on the host, or stands for it.

Each is read by the back end of the same name (`toolchain.backends`); absent where the device has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from toolchain.profiles.tables import Table

Accelerator: TypeAlias = Literal[
    "ethos-u55-32",
    "ethos-u55-64",
    "ethos-u55-128",
    "ethos-u55-256",
    "ethos-u65-256",
    "ethos-u65-512",
    "ethos-u85-128",
    "ethos-u85-256",
    "ethos-u85-512",
    "ethos-u85-1024",
    "ethos-u85-2048",
]
"""Ethos-U as Vela names it: device and int8 multiply-accumulates a cycle."""


class Vela(Table):
    """Arm's compiler for Ethos-U. All three options are always passed: it takes a system config of another device
    without a word, and assumes one where none is given. Config and mode are sections of the Arm/vela.ini it ships."""

    accelerator: Accelerator
    system_config: str
    memory_mode: str

    @model_validator(mode="after")
    def _is_of_one_device(self) -> Self:
        family = self.accelerator.rpartition("-")[0].replace("-", "_")
        if not self.system_config.lower().startswith(f"{family}_"):
            raise ValueError(f"system_config {self.system_config} is of another device than {self.accelerator}")
        return self


@dataclass(frozen=True)
class HtpSoc:
    """A Snapdragon: Qualcomm's number of it, and the architecture of its Hexagon tensor processor."""

    model: int
    htp_arch: int


HTP_SOCS = {
    "SM8350": HtpSoc(30, 68),
    "SM8450": HtpSoc(36, 69),
    "SM8475": HtpSoc(42, 69),
    "SM8550": HtpSoc(43, 73),
    "SM8650": HtpSoc(57, 75),
    "SM8750": HtpSoc(69, 79),
    "SM8850": HtpSoc(87, 81),
}
"""The SoCs that may be compiled for. QNN takes an unknown architecture, and one that is not the SoC's, without a word.
Source: Qualcomm AI Engine Direct (80-63442), supported Snapdragon devices; ExecuTorch, qc_schema.py by Qualcomm."""


class Qnn(Table):
    """Qualcomm's compiler for the Hexagon tensor processor, which compiles for each of `socs`; `contexts` whether the
    compiled binaries are published beside the file."""

    socs: tuple[Literal["SM8350", "SM8450", "SM8475", "SM8550", "SM8650", "SM8750", "SM8850"], ...] = Field(
        min_length=1
    )
    contexts: bool = True


class TfliteMicro(Table):
    """The interpreter of microcontrollers. `weight_compression`: it may decode weights from lookup tables."""

    weight_compression: bool = False


class Emulator(Table):
    """What qemu calls the device's CPU: the instructions it has, and the kernels that runtimes choose by its part."""

    cpu: Literal["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1"]
