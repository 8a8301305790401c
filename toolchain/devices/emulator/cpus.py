"""CPUs that are emulated: what qemu calls them, and what they say of themselves.

Runtimes choose kernels by /proc/cpuinfo and the auxiliary vector, and break on the host's: pytorch/cpuinfo, inside
onnxruntime and XNNPACK, crashes on the file of an x86-64. So every CPU has a file of its own, true to what qemu gives:
part, variant and revision are those of MIDR_EL1 (Arm's Technical Reference Manuals), features those of AT_HWCAP.
`max` is left out: SME of qemu 7.2 computes int8 products wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

CORES: Final = 4
"""As the boards with these CPUs have. What this machine has must not change what a runtime does."""

_V8_0 = ("fp", "asimd", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid")
_V8_2 = (*_V8_0[:-1], "atomics", "fphp", "asimdhp", "cpuid", "asimdrdm", "lrcpc", "dcpop", "asimddp")


@dataclass(frozen=True)
class Cpu:
    """`name` is qemu's; `part`, `variant` and `revision` are fields of MIDR_EL1, whose implementer is Arm (0x41)."""

    name: str
    part: int
    variant: int
    revision: int
    features: tuple[str, ...]

    @property
    def midr(self) -> int:
        """MIDR_EL1: implementer 31..24, variant 23..20, architecture 19..16 (15: by features), part 15..4, revision."""
        return 0x41 << 24 | self.variant << 20 | 0xF << 16 | self.part << 4 | self.revision

    @property
    def cpuinfo(self) -> str:
        """/proc/cpuinfo, as Linux writes it."""
        lines = (
            "BogoMIPS\t: 100.00",
            f"Features\t: {' '.join(self.features)}",
            "CPU implementer\t: 0x41",
            "CPU architecture: 8",
            f"CPU variant\t: {self.variant:#x}",
            f"CPU part\t: {self.part:#x}",
            f"CPU revision\t: {self.revision}",
        )
        return "".join(f"processor\t: {core}\n" + "\n".join(lines) + "\n\n" for core in range(CORES))


CPUS: Final[Mapping[str, Cpu]] = MappingProxyType(
    {
        cpu.name: cpu
        for cpu in (
            Cpu("cortex-a53", 0xD03, 0, 4, _V8_0),
            Cpu("cortex-a72", 0xD08, 0, 3, _V8_0),
            Cpu("cortex-a76", 0xD0B, 4, 1, _V8_2),
            Cpu("neoverse-n1", 0xD0C, 4, 1, _V8_2),
        )
    }
)
"""By name. A new one is an entry here, a name in `profiles.backends.Emulator`, and what qemu says of it in the test."""

DEFAULT_CPU: Final = "cortex-a76"
