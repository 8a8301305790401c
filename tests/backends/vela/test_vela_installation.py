"""Options of the profile that do not belong together are refused, since Vela takes them without a word."""

from __future__ import annotations

import configparser

import pytest

from toolchain.backends import BACKENDS
from toolchain.backends.vela import installation
from toolchain.backends.vela.installation import CONFIG, NOT_INSTALLED, config_sections, vela_options
from toolchain.errors import DeviceError, ProfileError
from toolchain.knowledge import shipped_names
from toolchain.profiles import DeviceProfile, load_profile

NPUS = [name for name in shipped_names("device_profiles") if load_profile(name).vela]
INI = "[System_Config.Ethos_U55_Deep_Embedded]\ncore_clock=200e6\n[Memory_Mode.Shared_Sram]\n"


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> None:
    found = configparser.ConfigParser()
    found.read_string(INI)
    monkeypatch.setattr(installation, "config_sections", lambda: found)


def changed(table: str, **values: object) -> DeviceProfile:
    profile = load_profile("ethos-u55-128")
    return profile.model_copy(update={table: getattr(profile, table).model_copy(update=values)})


@pytest.mark.usefixtures("sections")
@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (changed("compute", int8_macs_per_cycle=256), "accelerator is ethos-u55-128, .compute. says ethos-u55-256"),
        (changed("compute", clock_mhz=500), "Ethos_U55_Deep_Embedded runs at 200 MHz, .compute. at 500"),
        (changed("vela", system_config="Ethos_U55_None"), f"system_config: {CONFIG} has no Ethos_U55_None"),
        (changed("vela", memory_mode="None"), f"memory_mode: {CONFIG} has no None"),
        (load_profile("cortex-a76"), "has no table vela"),
    ],
)
def test_options_of_different_devices_are_refused(profile: DeviceProfile, said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        vela_options(profile)


@pytest.mark.usefixtures("sections")
def test_what_belongs_together_is_taken() -> None:
    assert vela_options(load_profile("ethos-u55-128")).accelerator == "ethos-u55-128"


def test_without_vela_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "is_installed", lambda: False)
    backend = BACKENDS["vela"]
    assert backend.missing() == NOT_INSTALLED and "pip install" in NOT_INSTALLED
    assert config_sections() is None
    assert vela_options(load_profile("ethos-u55-128"))


def test_which_files_it_is_asked_for() -> None:
    serves = BACKENDS["vela"].serves
    assert {"ethos-u55-128", "ethos-u55-256", "ethos-u65-512", "ethos-u85-256"} <= set(NPUS)
    for name in NPUS:
        assert serves(load_profile(name), "model.tflite")
        assert not serves(load_profile(name), "model.float.tflite") and not serves(load_profile(name), "model.onnx")
    assert not serves(load_profile("cortex-a76"), "model.tflite")


@pytest.mark.parametrize("name", NPUS)
def test_shipped_profiles_hold_against_the_installed_configuration(name: str) -> None:
    pytest.importorskip("ethosu.vela", reason="the extra npu is not installed")
    assert config_sections() is not None
    assert vela_options(load_profile(name)).accelerator == name


def test_a_configuration_that_cannot_be_read_is_one_error(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config_files/Arm").mkdir(parents=True)
    (tmp_path / "config_files" / CONFIG).write_text("no section\n")

    class Spec:
        origin = str(tmp_path / "vela" / "__init__.py")

    monkeypatch.setattr(installation, "find_spec", lambda name: Spec)
    with pytest.raises(DeviceError, match="cannot be read"):
        config_sections()
