"""Vela is started in a process of its own, with all three options, and whatever goes wrong there is one error."""

from __future__ import annotations

import pytest

from tests.backends.vela.conftest import LAYERS, PRINTED, SUMMARY
from toolchain.backends.vela.compiler import compile_file
from toolchain.errors import DeviceError, UnsupportedError
from toolchain.profiles import load_profile

OPTIONS = load_profile("ethos-u55-128").vela
assert OPTIONS is not None


@pytest.mark.usefixtures("stand_in")
def test_what_it_leaves_is_kept() -> None:
    found = compile_file(b"sound", OPTIONS)
    assert (found.summary, found.layers, found.content) == (SUMMARY, LAYERS, b"compiled sound")
    assert PRINTED in found.printed
    assert compile_file(b"sound", OPTIONS) is found  # the price list and the measurement compile once


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"refused", UnsupportedError, "does not compile the file for ethos-u55-128: RuntimeError: Compilation failed"),
        (b"broken", DeviceError, "Vela fails on the file: KeyError: '0'"),
        (b"deadly", DeviceError, "Vela died of SIGFPE"),
        (b"empty", DeviceError, "ended without its tables"),
    ],
)
def test_every_failure_is_one_error(content: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        compile_file(content, OPTIONS)


@pytest.mark.usefixtures("stand_in")
def test_a_compiler_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.backends.vela.compiler.TIMEOUT_S", 0)
    with pytest.raises(DeviceError, match="was not done after 0 s"):
        compile_file(b"slow", OPTIONS)
