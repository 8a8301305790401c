"""Kernel facts of device profiles: what they may say, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.errors import ProfileError
from toolchain.knowledge import shipped_names
from toolchain.profiles import Pays, load_profile
from toolchain.profiles.tables import CodebookKernels
from toolchain.quantization import Granularity, NumberFormat

LEAST = 'description = "d"\nsource = "s"\nkind = "cpu"\n[compute]\nisa = "i"\n'
SPARSE = '[kernels.sparse]\nformats = ["float32"]\nops = ["conv2d"]\nabove = 0.5\nsource = "s"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "board.toml"
    path.write_text(LEAST + text)
    return path


@pytest.mark.parametrize("name", shipped_names("device_profiles"))
def test_every_kernel_fact_has_its_source_and_agrees_with_the_savings(name):
    profile = load_profile(name)
    kernels = profile.kernels
    assert kernels.source and kernels.simd_channels > 1
    assert all(fact is None or fact.source for fact in (kernels.sparse, kernels.codebooks))
    assert set(kernels.zeros_pay) == set(profile.savings["unstructured"].pays)
    paid = {Pays.DOWNLOAD} if kernels.codebooks is None else set(kernels.codebooks.pays)
    assert paid == set(profile.savings["codebook"].pays)
    if kernels.sparse is not None:
        assert set(kernels.sparse.formats) <= {NumberFormat.FLOAT32, *profile.quantization.formats}


def test_a_device_of_which_nothing_is_known_pays_for_the_download_only(tmp_path):
    kernels = load_profile(written(tmp_path, "")).kernels
    assert kernels.simd_channels == 1 and kernels.zeros_pay == (Pays.DOWNLOAD,)
    assert kernels.sparse is None and kernels.codebooks is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[kernels]\nsimd_chanels = 8\n", "kernels.simd_chanels: unknown key, did you mean 'simd_channels'?"),
        ("[kernels]\nsimd_channels = 0\n", "kernels.simd_channels: should be greater than or equal to 1"),
        (SPARSE.replace("0.5", "1.0"), "kernels.sparse.above: should be less than 1"),
        (SPARSE.replace("float32", "float31"), "kernels.sparse.formats[0]"),
        (SPARSE.replace('source = "s"\n', ""), "kernels.sparse.source: this key is missing"),
    ],
)
def test_what_a_profile_cannot_say_of_its_kernels(tmp_path, text, complaint):
    with pytest.raises(ProfileError) as caught:
        load_profile(written(tmp_path, text))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("held", "asked", "values", "fits"),
    [
        ("per_tensor", "per_tensor", 16, True),
        ("per_tensor", "per_tensor", 17, False),
        ("per_tensor", "per_channel", 16, False),
        ("per_channel", "per_tensor", 16, True),
        ("per_channel", "per_channel", 16, True),
    ],
)
def test_which_codebooks_a_device_pays_for(held, asked, values, fits):
    kernels = CodebookKernels(granularity=Granularity(held), values=16, pays=(Pays.TIME,), source="s")
    assert kernels.fits(Granularity(asked), values) is fits
