"""The tables of a device profile that name what compiles for the device, runs its files on the host, or stands for it.

Each is read by the back end of the same name (`toolchain.backends`); absent where the device has none.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolchain.profiles.tables import Table


class Vela(Table):
    """Arm's compiler for Ethos-U. All three options are always passed: it takes a system config of another device
    without a word, and assumes one where none is given."""

    accelerator: str = Field(description="ethos-u55-128, ...")
    system_config: str
    memory_mode: str


class Qnn(Table):
    """Qualcomm's compiler for the Hexagon tensor processor: SoC and architecture of its HTP."""

    soc: str
    htp_arch: Literal[68, 69, 73, 75, 79, 81] = Field(description="an unknown one is compiled as 68 without a word")


class TfliteMicro(Table):
    """The interpreter of microcontrollers. `weight_compression`: it may decode weights from lookup tables."""

    weight_compression: bool = False


class Emulator(Table):
    """What qemu calls the device's CPU: the instructions it has, and the kernels that runtimes choose by its part."""

    cpu: Literal["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1"]
