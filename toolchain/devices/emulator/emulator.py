"""The emulated device's folder in the cache: found whole, or made, by one process at a time.

    emulator-packages-KEY/   downloads, kept so that a changed plugin or qemu needs no network; see `packages`
    emulator-KEY/            what `build` makes of them, and emulator.json, written last
    emulator.lock            held while either is made

KEY hashes what determines the content: requirements, the system's release; for the second qemu, plugin and builder too.
emulator.json holds sha256 of every package, and a digest over path, kind and size of every file made of them:
what is gone or cut short is found before it is run, in a few hundredths of a second.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from toolchain.atomic import remove_leftovers, unfinished_folder
from toolchain.devices import run_bundle
from toolchain.devices.emulator import build as building
from toolchain.devices.emulator import cpus
from toolchain.devices.emulator.cpus import CPUS
from toolchain.devices.emulator.packages import OLDER, Packages, Tell, download, host_requirements
from toolchain.devices.emulator.tools import missing_tools, qemu_version, why_uncounted
from toolchain.devices.ways.here import cache_folder
from toolchain.devices.ways.way import Limits, Process
from toolchain.errors import DeviceError, OptionError

FACTS: Final = "emulator.json"
_LOCK: Final = "emulator.lock"
_ROOM_BYTES: Final = 500 * 2**20
"""Downloads of 100 MB and a folder of 300, and a little more."""

_PRINT_VERSIONS = """
import importlib, json, platform, sys
from importlib import metadata
for name in sys.argv[2:]:
    importlib.import_module(name)
names = ("numpy", *sys.argv[1].split(","))
print(json.dumps({"python": platform.python_version(), **{name: metadata.version(name) for name in names}}))
"""
_MODULES = {"onnxruntime": "onnxruntime", "ai-edge-litert": "ai_edge_litert.interpreter"}


@dataclass(frozen=True)
class Emulator:
    """The emulated device, whole. `facts` is its emulator.json."""

    folder: Path
    facts: Mapping[str, Any] = field(repr=False)

    def python(self, cpu: str) -> Path:
        """Python on a CPU of `CPUS`: a program of this machine that takes the arguments Python takes."""
        return self.folder / "bin" / cpu

    @property
    def plugin(self) -> Path:
        return self.folder / building.PLUGIN

    @property
    def uncounted(self) -> str | None:
        """Why it counts no instructions; None where it does."""
        why = self.facts["uncounted"]
        return None if why is None else str(why)

    @property
    def version(self) -> str:
        """Of qemu, as far as it is a number: `7.2.22`."""
        return str(self.facts["qemu"]).partition(" ")[0]

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        shown = {key: self.facts[key] for key in ("qemu", "glibc", "versions", "cpus", "uncounted", "packages")}
        return {"folder": str(self.folder), **shown}

    def environment(self, scratch: Path) -> dict[str, str]:
        """What the guest's process is given of an environment, nothing of this one's: threads of its own would make
        counts useless, and so would whatever else differs from run to run."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": path, "LC_ALL": "C.UTF-8", "HOME": str(scratch), "TMPDIR": str(scratch), **threads}


def find_emulator(cache: Path | None = None) -> Emulator | None:
    """The one that is set up and as it was made, else None. Raises DeviceError where qemu does not run."""
    if missing_tools() is not None:
        return None
    return _whole((cache or cache_folder()) / f"emulator-{_key(qemu_version())}")


def set_up(cache: Path | None = None, limits: Limits | None = None, tell: Tell = lambda _: None) -> Emulator:
    """The emulated device, made where it is not there. `tell` is given lines of progress, with seconds since the start.

    Raises OptionError where a program or room is missing, DeviceError in a line where packages cannot be had.
    """
    missing = missing_tools()
    if missing is not None:
        raise OptionError(f"the emulator misses {missing}")
    cache, limits, started = cache or cache_folder(), limits or Limits(), time.monotonic()
    version = qemu_version()
    folder = cache / f"emulator-{_key(version)}"
    say = lambda text: tell(f"{time.monotonic() - started:5.1f} s  {text}")  # noqa: E731
    try:
        found = _whole(folder)
        if found is not None:
            return found
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache, limits, say):
            return _whole(folder) or _make(folder, version, limits, say)
    except OSError as error:
        raise _no_room(cache, error) from error


def _key(version: str) -> str:
    """Of what determines the folder."""
    made_by = [Path(str(module.__file__)).read_text() for module in (building, cpus)]
    return _digest([*_packages_key(), version, building.SOURCE.read_text(), *made_by])


def _packages_key() -> list[str]:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return ["1", *host_requirements(), *OLDER.values(), release.get("ID", ""), release.get("VERSION_ID", "")]


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _whole(folder: Path) -> Emulator | None:
    try:
        facts = json.loads((folder / FACTS).read_text())
        if facts["tree"] == tree_digest(folder):
            return Emulator(folder, facts)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def tree_digest(folder: Path) -> str:
    """Over path, kind and size of every file, but what Python and the stamp write beside them."""
    digest = hashlib.sha256()
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            path = Path(root, name)
            if name != FACTS:
                size = path.lstat().st_size
                digest.update(f"{path.relative_to(folder)}\0{size}\0{path.is_symlink()}\n".encode())
    return digest.hexdigest()


@contextmanager
def _alone(cache: Path, limits: Limits, say: Tell) -> Iterator[None]:
    """While this lasts no other process makes one; the lock goes with the process that holds it."""
    with (cache / _LOCK).open("w") as lock:
        until, told = time.monotonic() + limits.install, False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise DeviceError("another process is setting the emulator up, and does not end") from None
                if not told:
                    say("another process is setting it up: waiting ...")
                told = True
                time.sleep(0.2)
        yield


def _make(folder: Path, version: str, limits: Limits, say: Tell) -> Emulator:
    cache = folder.parent
    remove_leftovers(cache)
    shutil.rmtree(folder, ignore_errors=True)
    free = shutil.disk_usage(cache).free
    if free < _ROOM_BYTES:
        raise OptionError(
            f"the emulator takes {_ROOM_BYTES / 2**20:.0f} MB, and {free / 2**20:.0f} are free",
            where=str(cache),
            hint="make room there, or set XDG_CACHE_HOME to another disk",
        )
    packages = _downloaded(cache, limits, say)
    try:
        with unfinished_folder(folder) as unfinished:
            building.build(unfinished, packages, limits, say)
            facts = _facts(unfinished, packages, version, limits)
            (unfinished / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    except DeviceError:
        shutil.rmtree(packages.folder, ignore_errors=True)  # whatever is wrong with them, the next time they are others
        raise
    say("done")
    return Emulator(folder, facts)


def _downloaded(cache: Path, limits: Limits, say: Tell) -> Packages:
    folder = cache / f"emulator-packages-{_digest(_packages_key())}"
    packages = Packages(folder)
    damaged = packages.damaged()
    if damaged is None:
        say("packages are downloaded")
        return packages
    if folder.exists():
        say(f"{damaged} is damaged: downloading packages again")
        shutil.rmtree(folder)
    return download(folder, host_requirements(), limits, say)


def _facts(folder: Path, packages: Packages, version: str, limits: Limits) -> dict[str, Any]:
    """What emulator.json says. Raises DeviceError where the device does not start or its runtimes do not load."""
    here = [line.partition("==")[0] for line in host_requirements()]
    names = [name for name in here if name in _MODULES]
    arguments = ["-c", _PRINT_VERSIONS, ",".join(names), *(_MODULES[name] for name in names)]
    made = Emulator(folder, {"qemu": version})
    start = [str(made.python("cortex-a76")), "-s", *arguments]
    ran = Process.start(start, cwd=folder, env=made.environment(folder)).wait(limits.step, "starting the device")
    if ran.code:
        raise DeviceError(f"the emulated device does not start: {ran.last_line or f'exit code {ran.code}'}")
    versions = json.loads(ran.out)
    if packages.wheels("wheels-tflite-runtime"):
        versions["tflite-runtime"] = OLDER["wheels-tflite-runtime"].partition("==")[2]
    return {
        "qemu": version,
        "glibc": f"2.{packages.glibc}",
        "versions": versions,
        "cpus": list(CPUS),
        "uncounted": why_uncounted(version),
        "packages": packages.digests,
        "tree": tree_digest(folder),
    }


def facts_of_cpu(emulator: Emulator, cpu: str) -> dict[str, Any]:
    """What the bundle's runner finds on a CPU. Raises DeviceError where it does not start."""
    code = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['device_facts']()))"
    start = [str(emulator.python(cpu)), "-s", "-c", code, run_bundle.__file__]
    ran = Process.start(start, env=emulator.environment(Path("/tmp"))).wait(60, "starting the device")
    if ran.code:
        raise DeviceError(f"the emulated {cpu} does not start: {ran.last_line or f'exit code {ran.code}'}")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def _no_room(cache: Path, error: OSError) -> DeviceError:
    hint = "make room there, or set XDG_CACHE_HOME to another disk" if error.errno == errno.ENOSPC else None
    return DeviceError(
        f"the emulator cannot be set up: {error.strerror or error}", where=str(error.filename or cache), hint=hint
    )
