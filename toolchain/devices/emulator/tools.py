"""The programs of this machine that make and run the emulator, and what to install where one is missing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from toolchain.devices.ways.way import Process
from toolchain.errors import DeviceError

QEMU: Final = "qemu-aarch64"
COMPILERS: Final = ("gcc", "cc", "clang")
_PACKAGES: Final[Mapping[str, str]] = MappingProxyType(
    {QEMU: "qemu-user", "gcc": "gcc libc6-dev", "apt-get": "apt", "dpkg-deb": "dpkg"}
)
"""The Debian package that brings a program."""

_PLUGIN_MAJORS: Final = (7, 8)
"""Major versions of qemu whose plugins are asked as ours is."""


def missing_tools() -> str | None:
    """What is missing of programs, in a line with the command that installs it; None where nothing is."""
    absent = [name for name in _PACKAGES if not (find_compiler() if name == "gcc" else shutil.which(name))]
    if not absent:
        return None
    if "apt-get" in absent or "dpkg-deb" in absent:
        return "apt-get and dpkg-deb: the emulated system is made of Debian packages"
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{' and '.join(absent)}: {sudo}apt-get install {' '.join(_PACKAGES[name] for name in absent)}"


def find_compiler() -> str | None:
    """The C compiler, or None."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def qemu_version() -> str:
    """As qemu tells it, `7.2.22 (Debian ...)`. Raises DeviceError where it does not run."""
    ran = Process.start([QEMU, "--version"]).wait(30, "asking qemu for its version")
    found = re.match(r"qemu-aarch64 version (\S.*)", ran.out)
    if ran.code or found is None:
        raise DeviceError(f"{QEMU} does not run: {ran.last_line}", hint="apt-get install --reinstall qemu-user")
    return found[1].strip()


def why_uncounted(version: str) -> str | None:
    """Why this qemu counts no instructions, None where it does: a static one loads no plugins, and those of others are
    asked in another way."""
    ran = Process.start([QEMU, "-h"]).wait(30, "asking qemu for its options")
    if "-plugin" not in ran.out:
        return f"qemu {version} is built without plugins: apt-get install qemu-user, not qemu-user-static"
    major = int(re.match(r"\d*", version)[0] or 0)  # type: ignore[index]
    if major not in _PLUGIN_MAJORS:
        return f"the plugin knows qemu 7.2 to 8.2, this is {version}"
    return None
