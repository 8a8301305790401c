"""LiteRT as it runs on an x86-64 processor without AVX, at this processor's speed.

XNNPACK leaves its sparse kernels unused where the processor has AVX, so that a machine that has it cannot show what
they do. What the processor has is asked with CPUID: a copy of the package whose CPUID instructions trap is answered by
`without_avx.c` as by a processor without AVX. Nothing else changes: kernels are chosen, and then run, as they are.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "ai_edge_litert"
CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"
TOOLS = ("gcc", "objdump", "readelf")
_SOURCE = Path(__file__).with_suffix(".c")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+0f a2\s+cpuid", re.MULTILINE)
_SEGMENT = re.compile(r"LOAD\s+0x(\w+) 0x(\w+) 0x\w+ 0x(\w+)")


def has_avx() -> bool:
    """Whether this is an x86-64 processor with AVX, on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and cpuinfo.is_file() and " avx " in cpuinfo.read_text()


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def environment(folder: Path) -> dict[str, str]:
    """Variables under which a python of this venv loads LiteRT so; its copy is laid into `folder`. Raises
    CalledProcessError."""
    shutil.rmtree(folder, ignore_errors=True)
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0])
    shutil.copytree(source, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*WebGpu*"))
    for library in (folder / PACKAGE).rglob("*.so*"):
        _trap(library)
    handler = folder / "without_avx.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", handler, _SOURCE], check=True)
    return {"LD_PRELOAD": str(handler), "PYTHONPATH": str(folder)}


def _trap(library: Path) -> None:
    """Replace every CPUID instruction of a library."""
    content = bytearray(library.read_bytes())
    for at in _instructions(library):
        assert content[at : at + 2] == CPUID
        content[at : at + 2] = UD2
    library.write_bytes(content)


def _instructions(library: Path) -> Iterator[int]:
    """Where in the file its CPUID instructions are."""
    segments = [[int(part, 16) for part in found] for found in _SEGMENT.findall(_printed("readelf", "-lW", library))]
    for address in _INSTRUCTION.findall(_printed("objdump", "-d", library)):
        place = int(address, 16)
        yield next(place - start + offset for offset, start, size in segments if start <= place < start + size)


def _printed(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
