"""Masks, codebooks and grids are proved from the bytes of each file, and what breaks them is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.compress.clustering.codebook import Granularity
from toolchain.errors import DisagreementError
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.cluster import Cluster
from toolchain.stages.export import Export
from toolchain.stages.prune import Prune, PruneKind
from toolchain.stages.quantize import Quantize
from toolchain.stages.states import ExportedModel
from toolchain.stages.trace import Trace
from toolchain.validation.proof import prove, raise_unproved

CLUSTERS = 5


@pytest.fixture(scope="module", params=[Granularity.PER_TENSOR, Granularity.PER_CHANNEL])
def exported(request) -> ExportedModel:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, dilation=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 6),
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((20, 2, 10, 10)).astype(np.float32)
    model = Trace(example_inputs=(x[:1],))(module)
    model = Cluster(clusters=CLUSTERS, granularity=request.param)(Prune(ratio=0.5, kind=PruneKind.WEIGHTS)(model))
    quantized = Quantize()(Calibrate(samples=samples_from(x))(model))
    return Export(float_files=True)(quantized)


def test_every_weight_is_proved_in_every_file(exported: ExportedModel) -> None:
    rows = prove(exported)
    raise_unproved(rows)
    assert {row.tensor for row in rows} == set(exported.structure.masks)
    for row in rows:
        assert [file.file for file in row.files] == list(exported.files)
        assert row.grid == (-127, 127)
        assert row.masked == row.elements // 2 or row.masked == row.elements - row.elements // 2
        for file in row.files:
            assert file.zeros >= row.masked
            assert file.distinct <= row.values <= CLUSTERS
            assert file.dtype == ("float32" if ".float." in file.file else "int8")


def test_a_mask_that_lies_elsewhere_is_found(exported: ExportedModel) -> None:
    """The same number of zeros in other places: counting them would not tell."""
    for name, mask in exported.structure.masks.items():
        turned = exported.structure.with_masks({name: np.roll(mask.reshape(-1), 1).reshape(mask.shape)})
        rows = {row.tensor: row for row in prove(replace(exported, structure=turned))}
        assert all(file.findings and "masked weights are not zero" in file.findings[0] for file in rows[name].files)
        assert not any(file.findings for other, row in rows.items() if other != name for file in row.files)


def test_files_of_other_weights_are_found(exported: ExportedModel) -> None:
    random = np.random.default_rng(0)
    others = {
        name: random.standard_normal(exported.graph.constants[name].shape).astype(np.float32)
        for name in exported.structure.masks
    }
    loose = replace(exported, structure=type(exported.structure)(), graph=exported.graph.with_constants(others))
    files = Export(float_files=True)._written(loose.quantized, "model")
    with pytest.raises(DisagreementError) as told:
        raise_unproved(prove(replace(exported, files=files)))
    for name in others:
        assert f"model.onnx: {name}: " in str(told.value)
        assert f"model.tflite: {name}: " in str(told.value)


def test_integers_beyond_their_grid_are_found(exported: ExportedModel) -> None:
    narrow = {
        name: replace(p, q_min=-20, q_max=20) for name, p in exported.params.items() if name in exported.structure.masks
    }
    rows = prove(replace(exported, params={**exported.params, **narrow}))
    quantized = [file for row in rows for file in row.files if ".float." not in file.file]
    assert all(any("lie outside -20 .. 20" in line for line in file.findings) for file in quantized)


def test_a_stage_that_breaks_a_codebook_is_stopped(exported: ExportedModel) -> None:
    class Careless(Cluster):
        def _run(self, model, progress):
            made = super()._run(model, progress)
            name = next(iter(made.structure.codebooks))
            noise = np.random.default_rng(0).standard_normal(made.graph.constants[name].shape).astype(np.float32)
            return replace(made, graph=made.graph.with_constants({name: noise}))

    model = Trace(example_inputs=(np.zeros((1, 8), np.float32),))(nn.Linear(8, 4))
    with pytest.raises(DisagreementError, match="cluster broke"):
        Careless(clusters=2)(model)
