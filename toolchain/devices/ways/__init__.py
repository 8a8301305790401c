"""Ways to a device, one table: what `toolchain devices` prints and `toolchain validate --way` takes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from toolchain.devices.ways.adb import ADB
from toolchain.devices.ways.emulator import EMULATOR
from toolchain.devices.ways.here import HERE
from toolchain.devices.ways.ssh import SSH
from toolchain.devices.ways.way import Limits, Options, Ran, Way, WayKind

WAYS: Mapping[str, WayKind] = MappingProxyType({kind.name: kind for kind in (HERE, EMULATOR, SSH, ADB)})
"""Every way by its name. A new one is a class that is a `Way`, and an entry here."""

__all__ = ["WAYS", "Limits", "Options", "Ran", "Way", "WayKind"]
