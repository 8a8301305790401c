"""The emulated device's folder, made of downloaded packages. It holds no path of its own, so that it can be renamed.

sysroot/               Debian packages, unpacked; nothing of them has run
site/                  wheels, unpacked
site-tflite-runtime/   site-numpy-1/     the older runtime, and the numpy it needs
cpu/NAME/              what the guest sees as / where it is there: sysroot, /proc/cpuinfo, /sys/devices/system/cpu
bin/NAME               Python on that CPU; a script of this machine, so that the guest starts its own children by it
count_instructions.so  the plugin
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from toolchain.devices.emulator.cpus import CORES, CPUS, Cpu
from toolchain.devices.emulator.packages import Packages, Tell
from toolchain.devices.emulator.tools import find_compiler
from toolchain.devices.ways.way import Limits, Process
from toolchain.errors import DeviceError

PLUGIN: Final = "count_instructions.so"
SOURCE: Final = Path(__file__).with_name("count_instructions.c")
SITES: Final = {
    "site": "wheels",
    "site-tflite-runtime": "wheels-tflite-runtime",
    "site-numpy-1": "wheels-numpy-1",
}
"""Folders of packages, and the wheels they are made of."""

SCRIPT: Final = """\
#!/bin/sh
# Python on an emulated {cpu}; a process that the bundle's runner starts for tflite-runtime gets the numpy of its time
home=${{0%/bin/*}}
site=$home/site:$home/site-tflite-runtime
case "$*" in *"--child "*" tflite-runtime "*) site=$home/site-numpy-1:$home/site-tflite-runtime ;; esac
export PYTHONHOME="$home/sysroot/usr" PYTHONPATH="$site" PYTHONHASHSEED=0 PYTHONNOUSERSITE=1
unset LD_LIBRARY_PATH LD_PRELOAD PYTHONDONTWRITEBYTECODE QEMU_LD_PREFIX QEMU_CPU QEMU_SET_ENV QEMU_UNSET_ENV
exec qemu-aarch64 -L "$home/cpu/{cpu}" -cpu {cpu} -0 "$0" "$home/sysroot/usr/bin/python{python}" "$@"
"""


def build(folder: Path, packages: Packages, limits: Limits, tell: Tell) -> None:
    """Fill `folder`. Raises DeviceError in a line, OSError where there is no room."""
    sysroot = folder / "sysroot"
    for deb in packages.debs:
        _unpack_deb(deb, sysroot, limits)
    for site, wheels in SITES.items():
        (folder / site).mkdir()
        for wheel in packages.wheels(wheels):
            unpack_wheel(wheel, folder / site)
    tell("unpacked")
    compile_plugin(folder, limits)
    for cpu in CPUS.values():
        write_view(folder, cpu, packages.python)
    _compile_python(folder, packages.python, limits)
    tell("compiled")


def _unpack_deb(deb: Path, sysroot: Path, limits: Limits) -> None:
    ran = Process.start(["dpkg-deb", "--extract", str(deb), str(sysroot)]).wait(limits.install, "unpacking")
    if ran.code:
        raise DeviceError(f"{deb.name} cannot be unpacked: {ran.last_line}")


def unpack_wheel(wheel: Path, site: Path) -> None:
    """What a wheel puts beside other packages; its scripts are left out. Raises DeviceError where it is damaged."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                name = _place_of(member.filename)
                if name is None or member.is_dir():
                    continue
                path = site / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as given, path.open("wb") as made:
                    shutil.copyfileobj(given, made)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise DeviceError(f"{wheel.name} cannot be unpacked: {error}") from error


def _place_of(member: str) -> PurePosixPath | None:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{member} leads out of it")
    if not path.parts[0].endswith(".data"):
        return path
    return PurePosixPath(*path.parts[2:]) if path.parts[1] in ("purelib", "platlib") else None


def compile_plugin(folder: Path, limits: Limits) -> None:
    """The counting plugin, into `folder`. Raises DeviceError where there is no compiler or it fails."""
    compiler = find_compiler()
    if compiler is None:
        raise DeviceError("there is no C compiler for the counting plugin", hint="apt-get install gcc libc6-dev")
    command = [compiler, "-O2", "-fPIC", "-shared", "-o", str(folder / PLUGIN), str(SOURCE)]
    ran = Process.start(command).wait(limits.install, "compiling the counting plugin")
    if ran.code:
        raise DeviceError(f"the counting plugin does not compile: {ran.last_line}", hint="apt-get install libc6-dev")


def write_view(folder: Path, cpu: Cpu, python: str) -> None:
    """What the guest sees of one CPU, and the script that starts Python on it."""
    view = folder / "cpu" / cpu.name
    (view / "proc").mkdir(parents=True)
    (view / "proc/cpuinfo").write_text(cpu.cpuinfo)
    (view / "proc/device-tree").mkdir()
    (view / "proc/device-tree/model").write_text(f"emulated {cpu.name}\0")
    system = view / "sys/devices/system/cpu"
    system.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (system / name).write_text(f"0-{CORES - 1}\n")
    for name in ("lib", "usr"):
        (view / name).symlink_to(f"../../sysroot/{name}")
    script = folder / "bin" / cpu.name
    script.parent.mkdir(exist_ok=True)
    script.write_text(SCRIPT.format(cpu=cpu.name, python=python))
    script.chmod(0o755)


def _compile_python(folder: Path, python: str, limits: Limits) -> None:
    """Compile all modules, where this Python writes what the emulated one reads: that halves its start. Else it writes
    them itself, as it comes to them. Modules that do not compile are left to whoever imports them."""
    if python != "{}.{}".format(*sys.version_info) or not importlib.util.MAGIC_NUMBER:
        return
    # PYTHONDONTWRITEBYTECODE would keep compileall from writing
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    folders: Sequence[str] = [f"sysroot/usr/lib/python{python}", *SITES]
    command = [sys.executable, "-I", "-m", "compileall", "-qq", "-j", "0", *folders]
    Process.start(command, cwd=folder, env=env).wait(limits.install, "compiling Python modules")
