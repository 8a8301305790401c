"""This machine as a device: a fresh venv in a cache folder, never the toolchain's own.

The venv holds numpy and the runtimes, at the versions that are installed beside the toolchain, from whatever index pip
is set up for. It is kept under a name that hashes what is in it; one that was left unfinished is made anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from toolchain.atomic import remove_leftovers, scratch_folder
from toolchain.devices.ways.way import Limits, Options, Process, Ran, WayKind
from toolchain.errors import DeviceError

PACKAGES = ("numpy", "onnxruntime", "ai-edge-litert")
_COMPLETE = "complete"


@dataclass
class Here:
    """This machine, reached: `folder` is where the bundle is put."""

    python: Path
    folder: Path
    limits: Limits

    @classmethod
    def open(cls, options: Options) -> Here:
        """Make the venv, or take the one that is kept; `options.python` is an interpreter to take instead."""
        # a path is meant from where the command was given; links stay, as a venv is found by its own
        given = str(Path(options.python).absolute()) if options.python and "/" in options.python else options.python
        python = Path(given) if given else fresh_venv(options)
        return cls(python, bundle_folder(options), options.limits)

    def put(self, folder: Path, digests: Mapping[str, str]) -> None:
        try:
            for name, digest in digests.items():
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, path)
                if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                    raise DeviceError(f"{name} did not arrive as it was sent", where="here")
        except OSError as error:
            raise DeviceError(f"the bundle cannot be put: {error.strerror}", where=str(error.filename)) from error

    def run(self, arguments: Sequence[str], *, seconds: float) -> Ran:
        command = [str(self.python), "-s", *arguments]
        process = Process.start(command, cwd=self.folder, env=self.environment(), keep_input=True)
        return process.wait(seconds, "the bundle")

    def environment(self) -> dict[str, str]:
        """Nothing that could bring this process's packages in."""
        return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def get(self, name: str, to: Path) -> None:
        try:
            shutil.copyfile(self.folder / name, to)
        except OSError as error:
            raise DeviceError(f"{name} cannot be fetched: {error.strerror}", where=str(error.filename)) from error

    def clean(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


HERE = WayKind("here", "this machine, in a fresh venv with the runtimes alone", lambda: None, Here.open)


def bundle_folder(options: Options) -> Path:
    """An empty folder in the cache, for a bundle. Raises DeviceError where there is no room."""
    cache = options.cache or cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        remove_leftovers(cache)
        return scratch_folder(cache)
    except OSError as error:
        raise DeviceError(f"no room for a bundle: {error.strerror}", where=str(error.filename)) from error


def cache_folder() -> Path:
    """Where venvs are kept: $XDG_CACHE_HOME/edge-toolchain, or ~/.cache/edge-toolchain."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edge-toolchain"


def host_requirements(wanted: Mapping[str, str] = MappingProxyType({})) -> tuple[str, ...]:
    """The runtimes at the versions that are installed here, those that are; what is `wanted` beside them, and is not
    here, at the version that is said."""
    versions = {package: wanted.get(package, "") for package in dict.fromkeys((*PACKAGES, *wanted))}
    for package in versions:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return tuple(f"{package}=={version}" for package, version in versions.items() if version)


def fresh_venv(options: Options) -> Path:
    """The interpreter of a venv that holds `options.requirements` (else `host_requirements`). Raises DeviceError, in
    one line, where they cannot be installed."""
    wanted = options.requirements or host_requirements()
    key = hashlib.sha256("\n".join([sys.version, sys.prefix, *wanted]).encode()).hexdigest()[:16]
    cache = options.cache or cache_folder()
    folder = cache / f"venv-{key}"
    python = folder / "bin" / "python"
    if (folder / _COMPLETE).exists() and python.exists():
        return python
    try:
        cache.mkdir(parents=True, exist_ok=True)
        remove_leftovers(cache)
        shutil.rmtree(folder, ignore_errors=True)
        # a venv names its own path, so that it is made in place and marked when it is complete
        _install(folder, wanted, options.limits)
        (folder / _COMPLETE).touch()
    except OSError as error:
        raise DeviceError(f"no venv can be made: {error.strerror}", where=str(error.filename)) from error
    except DeviceError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return python


def _install(folder: Path, wanted: Sequence[str], limits: Limits) -> None:
    made = Process.start([sys.executable, "-m", "venv", str(folder)]).wait(limits.install, "making a venv")
    if made.code:
        raise DeviceError(f"python -m venv fails: {made.last_line}", hint="Debian: apt-get install python3-venv")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = Process.start([*pip, *wanted]).wait(limits.install, "installing the runtimes")
    if installed.code:
        raise DeviceError(
            f"{', '.join(wanted)} cannot be installed: {installed.last_line}",
            hint="see that pip reaches its index, or name an interpreter that has them: --python",
        )
