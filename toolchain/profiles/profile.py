"""Device profiles: one TOML each in device_profiles/, read into one frozen value."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from toolchain.graph import DType
from toolchain.knowledge import find_shipped, load_extended
from toolchain.profiles.backends import Emulator, Qnn, TfliteMicro, Vela
from toolchain.profiles.tables import Compute, Execution, Kernels, Memory, Saving, SchemeTable, Table
from toolchain.quantization import Scheme


class DeviceProfile(Table):
    """One device. `source` names where its figures come from."""

    description: str
    extends: str | None = Field(None, description="the profile whose keys hold where this file has none")
    source: str
    kind: Literal["cpu", "npu", "mcu"]
    compute: Compute
    memory: Memory = Memory()
    quantization: SchemeTable = SchemeTable()
    execution: Execution = Execution()
    kernels: Kernels = Kernels()
    savings: dict[Literal["structured", "unstructured", "codebook", "int8"], Saving] = Field({})
    vela: Vela | None = None
    qnn: Qnn | None = None
    tflite_micro: TfliteMicro | None = None
    emulator: Emulator | None = None

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
    return load_extended("device_profiles", find_shipped("device_profiles", name), DeviceProfile)
