"""Arm's Vela as it is installed (PyPI `ethos-u-vela`), and whether a profile's options are of one device.

Vela compiles for whatever system config it is told, also for another device's, and assumes one where none is told. So
the three options of a profile's `vela` table are held against each other, against `[compute]` and, where Vela is
installed, against its own `Arm/vela.ini`:

    accelerator    = isa - multiply-accumulates a cycle     ethos-u55-128
    system_config  = a section of the same device           Ethos_U55_..., whose core_clock is the profile's clock
    memory_mode    = a section
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from toolchain.errors import DeviceError, ProfileError, raise_collected
from toolchain.profiles import DeviceProfile
from toolchain.profiles.backends import Vela

PACKAGE = "ethos-u-vela"
CONFIG = "Arm/vela.ini"
NOT_INSTALLED = (
    "Vela is not installed (pip install edge-toolchain[npu]): no cycles, memory and placement on the NPU; "
    "the rules of the device profile are checked all the same"
)


def is_installed() -> bool:
    """Whether Vela can be started with this interpreter."""
    try:
        return find_spec("ethosu.vela") is not None
    except ModuleNotFoundError:
        return False


def missing() -> str | None:
    """What must be installed, in a line; None where nothing is missing."""
    return None if is_installed() else NOT_INSTALLED


def vela_version() -> str:
    """The version that is installed, or an empty text."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""


def vela_options(profile: DeviceProfile) -> Vela:
    """The profile's options, which belong together. Raises ProfileError where they do not."""
    options = profile.vela
    if options is None:
        raise ProfileError("the device profile has no table vela", hint="name accelerator, system config, memory mode")
    raise_collected(ProfileError, "the vela table of the device profile does not hold:", [*_clashes(options, profile)])
    return options


def _clashes(options: Vela, profile: DeviceProfile) -> Iterator[str]:
    compute = profile.compute
    device = f"{compute.isa}-{compute.int8_macs_per_cycle}"
    if options.accelerator != device:
        yield f"accelerator is {options.accelerator}, [compute] says {device}"
    sections = config_sections()
    if sections is None:
        return
    system = f"System_Config.{options.system_config}"
    if system not in sections:
        yield f"system_config: {CONFIG} has no {options.system_config}"
    else:
        clock = sections.getfloat(system, "core_clock") / 1e6
        if clock != compute.clock_mhz:
            yield f"system_config: {options.system_config} runs at {clock:g} MHz, [compute] at {compute.clock_mhz}"
    if f"Memory_Mode.{options.memory_mode}" not in sections:
        yield f"memory_mode: {CONFIG} has no {options.memory_mode}"


def config_sections() -> configparser.ConfigParser | None:
    """The systems and memory modes that Vela ships; None where it is not installed."""
    found = find_spec("ethosu.vela") if is_installed() else None
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parents[1] / "config_files" / CONFIG
    if not path.is_file():  # a Vela of another make
        return None
    sections = configparser.ConfigParser(interpolation=None)
    try:
        sections.read_string(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error) as error:
        raise DeviceError(f"Vela's {CONFIG} cannot be read: {error}", hint=f"install {PACKAGE} anew") from error
    return sections
