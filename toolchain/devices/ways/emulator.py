"""An emulated 64-bit Arm device: the same protocol as this machine's fresh venv, with Python on an emulated CPU.

What it computes is what the CPU's instructions and the kernels chosen for it give; its times are the emulator's, and so
is its memory: neither is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolchain.devices.ways.here import Here, bundle_folder
from toolchain.devices.ways.way import Options, WayKind
from toolchain.errors import OptionError

if TYPE_CHECKING:
    from toolchain.devices.emulator import Emulator


@dataclass
class Emulated(Here):
    """The emulated device, reached: `python` runs on the CPU, `folder` is where the bundle is put."""

    emulator: Emulator

    @classmethod
    def open(cls, options: Options) -> Emulated:
        """Set the emulator up, or take the one that is. Raises OptionError where there is no such CPU."""
        from toolchain.devices.emulator import CPUS, DEFAULT_CPU, set_up

        cpu = options.cpu or DEFAULT_CPU
        if cpu not in CPUS:
            raise OptionError(f"no CPU {cpu!r} is emulated", hint=f"choose {' or '.join(CPUS)}")
        emulator = set_up(options.cache, options.limits, options.tell)
        return cls(emulator.python(cpu), bundle_folder(options), options.limits, emulator)

    def environment(self) -> dict[str, str]:
        return self.emulator.environment(self.folder)


def with_recorded_cpu(options: Options, provenance: Mapping[str, Any]) -> Options:
    """The options, with the CPU of the device that a bundle was made for where none is named and it tells of one."""
    recorded = provenance.get("emulator")
    cpu = recorded.get("cpu") if isinstance(recorded, Mapping) else None
    return replace(options, cpu=cpu) if options.cpu is None and isinstance(cpu, str) else options


def _missing() -> str | None:
    from toolchain.devices.emulator import missing_tools

    return missing_tools()


EMULATOR = WayKind(
    "emulator", "64-bit Arm, emulated by qemu-user: outputs, not times (--cpu)", _missing, Emulated.open, timed=False
)
