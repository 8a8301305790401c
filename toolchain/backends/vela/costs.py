"""What the price list asks of Vela: bytes of weights as the NPU's decoder reads them, and cycles."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.backends.vela.installation import NOT_INSTALLED, is_installed
from toolchain.backends.vela.measure import compile_operators
from toolchain.errors import ToolchainError
from toolchain.profiles import DeviceProfile


@dataclass(frozen=True)
class NpuCost:
    """Bytes of weights before and after the NPU's encoding, of everything in flash (the compiled file where the system
    keeps it in DRAM as it runs), and of activations in SRAM; cycles of one inference."""

    weight_bytes: int
    encoded_weight_bytes: int
    flash_bytes: int
    sram_bytes: int
    cycles: int


def is_npu(profile: DeviceProfile) -> bool:
    """Whether Vela compiles for the device."""
    return profile.vela is not None


def compile_for_npu(content: bytes, profile: DeviceProfile) -> NpuCost | str:
    """The costs of a TFLite file on the device, or a line that says why there are none."""
    if not is_installed():
        return NOT_INSTALLED
    try:
        compiled = compile_operators("the file", content, profile)
    except ToolchainError as error:
        return error.what
    found = compiled.summary
    return NpuCost(
        weight_bytes=found.weight_bytes,
        encoded_weight_bytes=found.encoded_weight_bytes,
        flash_bytes=found.flash_bytes or len(compiled.content),
        sram_bytes=found.sram_bytes,
        cycles=found.cycles,
    )
