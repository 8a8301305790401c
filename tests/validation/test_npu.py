"""Vela is asked in a process of its own, and whatever goes wrong there is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolchain.profiles import load_profile
from toolchain.validation.npu import NOT_INSTALLED, NpuCost, compile_for_npu, is_npu

COLUMNS = (
    "total_original_weights,total_npu_encoded_weights,on_chip_flash_memory_used,off_chip_flash_memory_used,"
    "sram_memory_used,cycles_total"
)
STAND_IN = f"""
import pathlib, sys
file, _, device, _, folder = sys.argv[1:]
assert device == "ethos-u55-128", device
content = pathlib.Path(file).read_bytes()
if content == b"wrong":
    sys.exit("Error: no such file")
path = pathlib.Path(folder, "model_summary_system.csv")
path.write_text("{COLUMNS}\\n%d,250,0.5,1.5,2.0,1234.0\\n" % len(content))
"""


@pytest.fixture
def vela(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that writes the summary Vela writes."""
    package = tmp_path / "ethosu" / "vela"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("ethosu", "ethosu.vela"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("vela")
def test_the_summary_is_read() -> None:
    found = compile_for_npu(b"x" * 1000, load_profile("ethos-u55-128"))
    assert found == NpuCost(1000, 250, 2048, 2048, 1234)


@pytest.mark.usefixtures("vela")
def test_what_vela_refuses_is_a_line() -> None:
    found = compile_for_npu(b"wrong", load_profile("ethos-u55-128"))
    assert found == "Vela does not compile the file for ethos-u55-128: Error: no such file"


def test_without_vela_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.validation.npu._is_installed", lambda: False)
    assert compile_for_npu(b"", load_profile("ethos-u55-128")) == NOT_INSTALLED


def test_which_devices_it_is_asked_for() -> None:
    assert is_npu(load_profile("ethos-u55-128"))
    assert not is_npu(load_profile("cortex-a76"))
