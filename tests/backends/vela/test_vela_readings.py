"""Vela's summary, table of layers and warnings, read from texts as it writes them."""

from __future__ import annotations

import pytest

from tests.backends.vela.conftest import LAYERS, PRINTED, SUMMARY
from toolchain.backends.vela.readings import Layer, Summary, read_layers, read_reasons, read_summary
from toolchain.errors import DeviceError


def test_a_summary() -> None:
    assert read_summary(SUMMARY) == Summary(2048, 512, 2048, 1000, 250, 1234, 5000, 200e6)


def test_layers_whose_names_hold_commas() -> None:
    assert read_layers(LAYERS) == (
        Layer("Conv2D", True, 3760, 55296, "first"),
        Layer("DepthToSpace", False, 0, 0, "a, name with commas"),
    )


def test_reasons_by_the_tensor_that_is_made() -> None:
    assert read_reasons(PRINTED) == {
        "a, name with commas": "Unsupported opType",
        "it's": "Scaling matches and operation has unsupported scale-factor=3; Scale-factor must be one of: 2x/4x/8x",
    }
    assert read_reasons("") == {}


@pytest.mark.parametrize("text", ["", "a,b\n", "a,b\n1,2\n", SUMMARY.replace("1234.0", "many")])
def test_another_summary_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="summary lacks"):
        read_summary(text)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", LAYERS.replace("Util% (MAC),", ""), LAYERS + "short,row\n"])
def test_another_table_of_layers_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="table of layers is unknown"):
        read_layers(text)
