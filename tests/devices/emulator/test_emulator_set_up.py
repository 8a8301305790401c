"""The emulator is set up whole or not at all, once, and whatever is missing is one line that says what to do."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from toolchain.devices.emulator import CPUS, emulator, find_emulator, missing_tools, set_up
from toolchain.devices.emulator.emulator import tree_digest
from toolchain.errors import DeviceError, OptionError, ToolchainError


def test_it_is_set_up_once_and_found(machine):
    told: list[str] = []
    made = set_up(machine.cache, tell=told.append)
    assert [name.partition("-")[0] for name in machine.left()] == ["emulator", "emulator"]
    assert made.facts["qemu"].startswith("7.2.9") and made.version == "7.2.9" and made.uncounted is None
    assert all(line[5:8] == " s " for line in told) and told[-1].endswith("done")
    again: list[str] = []
    assert set_up(machine.cache, tell=again.append) == made == find_emulator(machine.cache) and again == []
    assert len(machine.calls("apt-get")) == 2 and len(machine.calls("pip")) == 3


def test_what_it_holds(machine):
    folder = set_up(machine.cache).folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("sysroot", "site", "site-tflite-runtime", "site-numpy-1", "cpu", "bin"),
        *("count_instructions.so", "emulator.json"),
    }
    for cpu in CPUS:
        view = folder / "cpu" / cpu
        assert (view / "proc/cpuinfo").read_text() == CPUS[cpu].cpuinfo
        assert (view / "usr").resolve() == folder / "sysroot/usr"
        assert os.access(folder / "bin" / cpu, os.X_OK)
    assert (folder / "site/onnxruntime_more.py").exists() and not list(folder.rglob("*.data"))
    assert list(folder.glob("sysroot/usr/lib/*/__pycache__/one.*.pyc"))


def test_it_holds_no_path_of_where_it_was_made(machine):
    folder = set_up(machine.cache).folder
    needle = str(machine.cache).encode()
    assert [path for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()] == []


def test_compiling_ignores_that_python_writes_no_bytecode(machine):
    machine.says(PYTHONDONTWRITEBYTECODE="1")
    assert list(set_up(machine.cache).folder.glob("site/*/__pycache__/*.pyc"))


def test_wheels_are_asked_for_the_guest_and_at_this_hosts_versions(machine):
    set_up(machine.cache)
    asked = machine.calls("pip")[0].split()
    assert asked[asked.index("--python-version") + 1].startswith("3.")
    assert {"manylinux_2_36_aarch64", "manylinux_2_17_aarch64", "--only-binary=:all:"} <= set(asked)
    assert "manylinux_2_37_aarch64" not in asked
    assert [word.partition("==")[0] for word in asked if "==" in word] == ["numpy", "onnxruntime", "ai-edge-litert"]
    older = [line.split()[-1] for line in machine.calls("pip")[1:]]
    assert older == ["tflite-runtime==2.14.0", "numpy==1.26.4"]


def test_the_machines_own_apt_state_is_left_alone(machine):
    set_up(machine.cache)
    assert not any("dpkg --add-architecture" in line or "/var/lib" in line for line in machine.calls("apt-get"))
    assert all("--download-only" in line or "update" in line for line in machine.calls("apt-get"))


FAILURES = {
    "no network": ({"APT_UPDATE": "E: Failed to fetch http://x: Temporary failure resolving 'x'"}, "resolving"),
    "no arm64 there": ({"APT_INSTALL": "E: Unable to locate package python3-minimal"}, "Unable to locate"),
    "a damaged package": ({"APT_INSTALL": "E: Failed to fetch http://x  Hash Sum mismatch"}, "Hash Sum mismatch"),
    "apt finds no room": ({"APT_INSTALL": "W: x\nE: Write error - write (28: No space left on device)"}, "No space"),
    "no index": ({"PIP_SAYS": "ERROR: Could not find a version"}, "Could not find a version"),
    "no wheel": ({"PIP_SAYS": "ERROR: No matching distribution found for x", "PIP_FAILS_FOR": "litert"}, "matching"),
    "a deb that does not unpack": ({"DEB_HOLDS": "damaged"}, "premature member"),
    "no headers": ({"GCC_SAYS": "fatal error: stdio.h: No such file or directory"}, "stdio.h"),
    "a qemu that does not run": ({"QEMU_SAYS": "", "QEMU_CODE": "127"}, "does not run"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_fails_is_one_line_and_leaves_nothing(machine, failure):
    said, words = FAILURES[failure]
    machine.says(**said)
    with pytest.raises(DeviceError, match=words) as caught:
        set_up(machine.cache)
    assert "\n" not in caught.value.what and caught.value.exit_code == 9
    assert machine.left() == []


def test_a_guest_that_does_not_start_is_told(machine):
    machine.breaks_guest("qemu: uncaught target signal 11")
    with pytest.raises(DeviceError, match="does not start: qemu: uncaught target signal 11"):
        set_up(machine.cache)
    assert machine.left() == []


def test_after_a_damaged_package_it_is_set_up_from_others(machine):
    machine.says(DEB_HOLDS="damaged")
    with pytest.raises(DeviceError):
        set_up(machine.cache)
    machine.says(DEB_HOLDS="")
    assert set_up(machine.cache).folder.exists()


def test_a_runtime_without_a_wheel_for_this_python_is_left_out(machine):
    machine.says(PIP_SAYS="ERROR: No matching distribution found for tflite", PIP_FAILS_FOR="tflite-runtime")
    told: list[str] = []
    made = set_up(machine.cache, tell=told.append)
    assert "tflite-runtime" not in made.facts["versions"] and any("is without it" in line for line in told)


MISSING = {
    "qemu-aarch64": "qemu-aarch64: apt-get install qemu-user",
    "gcc": "gcc: apt-get install gcc libc6-dev",
    "apt-get": "made of Debian packages",
}


@pytest.mark.parametrize("program", MISSING)
def test_a_missing_program_is_named_with_the_command_that_installs_it(machine, monkeypatch, program):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    machine.hides(program)
    with pytest.raises(OptionError, match=MISSING[program]):
        set_up(machine.cache)
    assert find_emulator(machine.cache) is None and machine.left() == []


def test_who_is_not_root_is_told_of_sudo(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.hides("qemu-aarch64", "gcc")
    assert missing_tools() == "qemu-aarch64 and gcc: sudo apt-get install qemu-user gcc libc6-dev"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"QEMU_OPTIONS": "-cpu"}, "without plugins: apt-get install qemu-user, not qemu-user-static"),
        ({"QEMU_SAYS": "qemu-aarch64 version 10.0.2 (Debian)"}, "knows qemu 7.2 to 8.2, this is 10.0.2"),
    ],
)
def test_a_qemu_that_cannot_count_runs_all_the_same(machine, said, why):
    machine.says(**said)
    assert why in str(set_up(machine.cache).uncounted)


def test_another_qemu_is_another_folder(machine):
    first = set_up(machine.cache)
    machine.says(QEMU_SAYS="qemu-aarch64 version 8.2.1 (Ubuntu)")
    second = set_up(machine.cache)
    assert first.folder != second.folder and len(machine.calls("apt-get")) == 2  # packages are those there are


def test_what_was_cut_short_is_made_anew_without_the_network(machine):
    folder = set_up(machine.cache).folder
    path = folder / "site/numpy/__init__.py"
    path.write_text("")
    assert find_emulator(machine.cache) is None
    machine.says(APT_UPDATE="E: no network", PIP_SAYS="ERROR: no network")
    set_up(machine.cache)
    assert path.read_text() == "x = 1" and find_emulator(machine.cache) is not None


def test_what_python_writes_beside_its_modules_changes_nothing(machine):
    folder = set_up(machine.cache).folder
    before = tree_digest(folder)
    (folder / "site/numpy/__pycache__").mkdir(exist_ok=True)
    (folder / "site/numpy/__pycache__/new.pyc").write_text("x")
    assert tree_digest(folder) == before


@pytest.mark.parametrize("harm", ["changed", "gone", "the list is damaged"])
def test_kept_packages_are_checked_and_downloaded_again(machine, harm):
    made = set_up(machine.cache)
    (packages,) = machine.cache.glob("emulator-packages-*")
    deb = next(packages.glob("debs/*.deb"))
    if harm == "changed":
        deb.write_bytes(deb.read_bytes()[:-1] + b"!")
    elif harm == "gone":
        deb.unlink()
    else:
        (packages / "packages.json").write_text('{"sha256": 3}')
    shutil.rmtree(made.folder)
    told: list[str] = []
    set_up(machine.cache, tell=told.append)
    assert any("is damaged: downloading packages again" in line for line in told)


def test_two_at_once_make_one(machine):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: set_up(machine.cache), range(2))
    assert first == second and len(machine.calls("apt-get")) == 2


def test_what_a_killed_set_up_left_goes(machine):
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    left = machine.cache / f".{dead.pid}-abc.unfinished"
    left.mkdir()
    set_up(machine.cache)
    assert not left.exists()


def test_too_little_room_is_told_before_anything_is_asked(machine, monkeypatch):
    usage = shutil.disk_usage(machine.cache)._replace(free=10 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OptionError, match="takes 500 MB, and 10 are free"):
        set_up(machine.cache)
    assert machine.calls("apt-get") == [] and machine.left() == []


def test_a_disk_that_fills_up_meanwhile_is_one_line(machine, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(machine.cache / "x"))

    monkeypatch.setattr(emulator.building, "write_view", full)
    with pytest.raises(DeviceError, match="No space left on device") as caught:
        set_up(machine.cache)
    assert "make room" in str(caught.value.hint)
    assert [name.rpartition("-")[0] for name in machine.left()] == ["emulator-packages"]


def test_a_cache_that_cannot_be_written_is_one_line(machine, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ToolchainError, match="cannot be set up"):
        set_up(tmp_path / "file" / "cache")


def test_a_real_disk_without_room(machine, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    monkeypatch.setattr(emulator, "_ROOM_BYTES", 0)
    try:
        with pytest.raises(DeviceError, match="No space left"):
            set_up(disk)
        assert not list(disk.glob(".*")) and find_emulator(disk) is None
    finally:
        subprocess.run(["umount", str(disk)], check=True)
