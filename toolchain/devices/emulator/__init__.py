"""An emulated 64-bit Arm device: qemu-user, a Debian userland, aarch64 wheels of the runtimes, and a CPU to choose.

    cpus             what the CPUs are called, and the /proc/cpuinfo of each
    tools            qemu, apt and a compiler of this machine, and what is missing
    packages         downloads: Debian packages from the machine's own sources, wheels from pip's index
    build            a folder made of them: sysroot, sites, CPU views, the counting plugin
    emulator         the folder, whole and found again; made once, whoever asks at the same time
    counting         executed instructions of one inference, by class

Outputs are those of the instructions a CPU has and the kernels that runtimes choose by its part; times mean nothing.
"""

from toolchain.devices.emulator.cpus import CPUS, DEFAULT_CPU
from toolchain.devices.emulator.emulator import Emulator, find_emulator, set_up
from toolchain.devices.emulator.tools import missing_tools

__all__ = ["CPUS", "DEFAULT_CPU", "Emulator", "find_emulator", "missing_tools", "set_up"]
