"""A machine with qemu, apt, dpkg, gcc and pip of the tests' own: each says what it is told to, and leaves a line."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

MINOR = f"3.{sys.version_info[1]}"

_QEMU = """
case "$1" in
  --version) echo "${QEMU_SAYS:-qemu-aarch64 version 7.2.9 (Debian 1:7.2)}"; exit "${QEMU_CODE:-0}" ;;
  -h) echo "${QEMU_OPTIONS:--plugin}"; exit 0 ;;
esac
[ ! -f "${0%/*}/guest" ] || { cat "${0%/*}/guest" >&2; exit 1; }  # the guest gets nothing of this environment
echo '{"python": "3.11.2", "numpy": "2.4.6"}'
"""
_APT = f"""
cache=$(sed -n 's/^Dir::Cache "\\(.*\\)";/\\1/p' "$APT_CONFIG")
case "$*" in
  *update*) [ -z "$APT_UPDATE" ] || {{ echo "$APT_UPDATE" >&2; exit 100; }} ;;
  *install*)
    [ -z "$APT_INSTALL" ] || {{ echo "$APT_INSTALL" >&2; exit 100; }}
    for name in python{MINOR}-minimal_{MINOR}.2_arm64 libpython{MINOR}-minimal_{MINOR}.2_arm64 libc6_2.36-9_arm64; do
      echo "${{DEB_HOLDS:-$name}}" > "$cache/archives/$name.deb"
    done ;;
esac
"""
_DPKG = f"""
case "$(cat "$2")" in damaged) echo "dpkg-deb: error: archive has premature member" >&2; exit 2 ;; esac
mkdir -p "$3/usr/lib/python{MINOR}" "$3/usr/bin" "$3/lib"
echo "x = 1" > "$3/usr/lib/python{MINOR}/one.py"
"""
_GCC = """
[ -z "$GCC_SAYS" ] || { echo "$GCC_SAYS" >&2; exit 1; }
while [ "$1" != -o ]; do shift; done
echo plugin > "$2"
"""
_PIP = """
import os, sys, zipfile
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(arguments[arguments.index("--dest") + 1])
with open(os.environ["FAKE_CALLS"], "a") as calls:
    calls.write("pip " + " ".join(arguments) + chr(10))
if os.environ.get("PIP_SAYS") and os.environ.get("PIP_FAILS_FOR", "numpy") in arguments[-1]:
    sys.exit(os.environ["PIP_SAYS"])
folder.mkdir()
for wanted in [word for word in arguments if "==" in word]:
    name = wanted.partition("==")[0].replace("-", "_")
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "x = 1")
        wheel.writestr(f"{name}-1.data/platlib/{name}_more.py", "x = 2")
        wheel.writestr(f"{name}-1.data/scripts/{name}", "#!python")
"""


@dataclass(frozen=True)
class FakeMachine:
    """`folder` holds the programs, `cache` what is set up."""

    folder: Path
    cache: Path
    monkeypatch: pytest.MonkeyPatch

    def says(self, **words: str) -> None:
        for name, value in words.items():
            self.monkeypatch.setenv(name, value)

    def breaks_guest(self, words: str) -> None:
        (self.folder / "guest").write_text(words)

    def hides(self, *names: str) -> None:
        """As if these were not installed: of the system's programs only a few are seen."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        self.monkeypatch.setenv("PATH", str(self.folder))

    def calls(self, program: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []
        return [line for line in lines if line.startswith(f"{program} ")]

    def left(self) -> list[str]:
        return sorted(path.name for path in self.cache.iterdir() if path.name != "emulator.lock")


def make_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    programs, modules, cache = folder / "programs", folder / "modules" / "pip", folder / "cache"
    for made in (programs, modules, cache):
        made.mkdir(parents=True)
    scripts = {"qemu-aarch64": _QEMU, "apt-get": _APT, "dpkg-deb": _DPKG, "gcc": _GCC}
    for name, text in scripts.items():
        path = programs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "${{FAKE_CALLS:-/dev/null}}"\n{text}')
        path.chmod(0o755)
    (modules / "__init__.py").touch()
    (modules / "__main__.py").write_text(_PIP)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("PYTHONPATH", str(modules.parent))
    monkeypatch.setenv("FAKE_CALLS", str(programs / "calls"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache-home"))
    return FakeMachine(programs, cache, monkeypatch)
