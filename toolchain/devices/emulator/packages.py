"""What the emulated device is made of: Debian packages of arm64 and aarch64 wheels, in a folder with their sha256.

Packages come from the sources this machine already uses, by an apt that has lists, cache and status of its own, so that
the machine's architectures stay untouched; apt checks them against the signed lists and says what depends on what.
Wheels come from pip's index, at the versions that are installed beside the toolchain.

    debs/            python3, its library, libstdc++, and what those need
    wheels/          numpy, onnxruntime, ai-edge-litert, and what those need
    wheels-tflite-runtime/  wheels-numpy-1/     an older runtime, and the numpy it was built for
    packages.json    sha256 of each; written last
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from toolchain.atomic import unfinished_folder
from toolchain.devices.ways.way import Limits, Process, Ran
from toolchain.errors import DeviceError

DEBS: Final = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
RUNTIMES: Final = ("numpy", "onnxruntime", "ai-edge-litert")
OLDER: Final = {"wheels-tflite-runtime": "tflite-runtime==2.14.0", "wheels-numpy-1": "numpy==1.26.4"}
LIST: Final = "packages.json"
_OLDEST_GLIBC: Final = 17
"""Minor version of the oldest glibc that aarch64 wheels are built for, 2.17."""

_APT_CONFIG = """\
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Dir::State "{folder}";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::preferencesparts "{folder}/none";
"""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Packages:
    """A folder of downloads, whole."""

    folder: Path

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of every package, by its path in the folder."""
        found: dict[str, str] = json.loads((self.folder / LIST).read_text())["sha256"]
        return found

    @property
    def debs(self) -> list[Path]:
        return sorted((self.folder / "debs").glob("*.deb"))

    def wheels(self, name: str = "wheels") -> list[Path]:
        """Wheels of one site, in order; none where they could not be had."""
        return sorted((self.folder / name).glob("*.whl"))

    @property
    def python(self) -> str:
        """Version of the emulated Python, `3.11`."""
        return _one(self.debs, r"(?<!lib)python(3\.\d+)-minimal_")

    @property
    def glibc(self) -> int:
        """Minor version of its glibc, 36 of 2.36."""
        return int(_one(self.debs, r"libc6_2\.(\d+)"))

    def damaged(self) -> str | None:
        """The first file that is not as it was downloaded."""
        try:
            digests = self.digests
            wrong = (name for name, wanted in digests.items() if sha256_of(self.folder / name) != wanted)
            return next(wrong, None)
        except OSError as error:
            return Path(error.filename or LIST).name
        except (ValueError, KeyError, TypeError, AttributeError):
            return LIST


def host_requirements() -> tuple[str, ...]:
    """The runtimes at the versions that are installed here, those that are."""
    found = []
    for package in RUNTIMES:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{package}=={metadata.version(package).partition('+')[0]}")
    return tuple(found)


def sha256_of(path: Path) -> str:
    """Of a file's content. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _one(paths: Sequence[Path], pattern: str) -> str:
    found = [match[1] for path in paths if (match := re.match(pattern, path.name))]
    if not found:
        raise DeviceError(f"no package is called {pattern}", hint="is this a Debian with Python 3.11 or later?")
    return found[0]


def download(folder: Path, wanted: Sequence[str], limits: Limits, tell: Tell) -> Packages:
    """Everything, into `folder`, whole or not at all; `wanted` are requirements of the runtimes. Raises DeviceError in
    a line, OSError where there is no room."""
    with unfinished_folder(folder) as unfinished:
        tell("asking this machine's package sources for arm64 ...")
        _download_debs(unfinished, limits)
        made = Packages(unfinished)
        tell(f"{len(made.debs)} Debian packages, Python {made.python}, glibc 2.{made.glibc}")
        tell(f"downloading {', '.join(wanted)} and what they need ...")
        _download_wheels(made, "wheels", wanted, limits)
        for name, requirement in OLDER.items():
            _download_older(made, name, requirement, limits, tell)
        names = sorted(str(path.relative_to(unfinished)) for path in unfinished.rglob("*.*") if path.is_file())
        digests = {name: sha256_of(unfinished / name) for name in names}
        (unfinished / LIST).write_text(json.dumps({"sha256": digests}, indent=1) + "\n")
    return Packages(folder)


def _download_debs(folder: Path, limits: Limits) -> None:
    state = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial", "none"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    config = state / "apt.conf"
    config.write_text(_APT_CONFIG.format(folder=state))
    env = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    strict = ["-qq", "-o", "APT::Update::Error-Mode=any"]
    _apt(["apt-get", *strict, "update"], env, limits, "reading the package sources")
    _apt(["apt-get", "-qq", "--yes", "--download-only", "install", *DEBS], env, limits, "downloading packages")
    (folder / "debs").mkdir()
    for path in (state / "cache/archives").glob("*.deb"):
        path.replace(folder / "debs" / path.name)
    shutil.rmtree(state)


def _apt(command: Sequence[str], env: dict[str, str], limits: Limits, what: str) -> None:
    ran = Process.start(command, env=env).wait(limits.install, what)
    if ran.code:
        raise DeviceError(
            f"{what} fails: {_complaint(ran, 'E: ')}",
            hint="see that apt-get update works here, and that its sources carry arm64 (Debian's do)",
        )


def _complaint(ran: Ran, begin: str) -> str:
    """The line that says why: lack of room above all, then the first that begins as errors do."""
    lines = [line.strip() for line in f"{ran.err}\n{ran.out}".splitlines()]
    for mark in ("No space left on device", begin):
        for line in lines:
            if mark in line:
                return line.removeprefix(begin).strip()[:300]
    return ran.last_line


def _download_older(made: Packages, name: str, requirement: str, limits: Limits, tell: Tell) -> None:
    try:
        _download_wheels(made, name, [requirement], limits, depending=False)
    except DeviceError as error:
        if "No matching distribution" not in error.what:
            raise
        tell(f"no wheel of {requirement} for Python {made.python}: the device is without it")


def _download_wheels(
    made: Packages, name: str, wanted: Sequence[str], limits: Limits, *, depending: bool = True
) -> None:
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(made.glibc, _OLDEST_GLIBC - 1, -1)]
    platforms = [word for tag in (*tags, "manylinux2014_aarch64") for word in ("--platform", tag)]
    known = made.folder / "known.txt"
    known.write_text("".join(f"{line}\n" for line in _installed()) if depending else "")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", made.python, *platforms]
    command += ["--constraint", str(known), "--dest", str(made.folder / name), *([] if depending else ["--no-deps"])]
    ran = Process.start([*command, *wanted]).wait(limits.install, "downloading wheels")
    known.unlink()
    if ran.code:
        raise DeviceError(
            f"{', '.join(wanted)} cannot be downloaded for aarch64: {_complaint(ran, 'ERROR: ')}",
            hint="see that pip reaches its index",
        )


def _installed() -> list[str]:
    """What is installed here, as constraints: what the runtimes need is taken at the versions they have here."""
    found = {str(one.metadata["Name"]): one.version for one in metadata.distributions() if one.metadata["Name"]}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if "+" not in version]
