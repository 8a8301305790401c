import json

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.compress.clustering.codebook import Granularity
from toolchain.compress.clustering.k_means import Start
from toolchain.compress.pruning.magnitude import weight_names
from toolchain.engine.run import predict
from toolchain.errors import OptionError
from toolchain.graph import Op
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.cluster import Cluster
from toolchain.stages.export import Export
from toolchain.stages.prune import Prune, PruneKind
from toolchain.stages.quantize import Quantize
from toolchain.stages.states import TracedModel, load
from toolchain.stages.trace import Trace


def model() -> TracedModel:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, groups=8), nn.BatchNorm2d(16),
        nn.Conv2d(16, 16, 1), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.uniform_(0.5, 4.0)
            layer.weight.data.uniform_(0.5, 2.0)
    return Trace(example_inputs=(np.zeros((1, 1, 10, 10), np.float32),))(module)


def pictures() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((60, 1, 10, 10)).astype(np.float32)


@pytest.mark.parametrize("clusters", [2, 16, 256])
def test_weights_take_few_values_and_batch_norms_are_folded_first(clusters: int) -> None:
    given = model()
    digest = given.digest
    clustered = Cluster(clusters=clusters)(given)
    assert given.digest == digest
    assert not any(node.op is Op.BATCH_NORM for node in clustered.graph.nodes)
    assert set(clustered.structure.codebooks) == set(weight_names(clustered.graph))
    for name, book in clustered.structure.codebooks.items():
        np.testing.assert_array_equal(clustered.graph.constants[name], book.decode())
        assert len(np.unique(clustered.graph.constants[name])) <= clusters
    assert clustered.reference is given.reference


def test_many_clusters_cost_little() -> None:
    given, x = model(), pictures()
    (before,), (after,) = predict(given.graph, [(x,)]), predict(Cluster(clusters=64)(given).graph, [(x,)])
    assert np.square(after - before).sum() < 1e-3 * np.square(before).sum()


@pytest.mark.parametrize("clusters", [4, 16])
def test_codebooks_survive_quantization(clusters: int) -> None:
    calibrated = Calibrate(samples=samples_from(pictures()))(Cluster(clusters=clusters)(model()))
    assert len(calibrated.structure.codebooks) == 4
    quantized = Quantize()(calibrated).quantized
    for name in calibrated.structure.codebooks:
        assert 2 <= len(np.unique(quantized.integers[name])) <= clusters


def test_pruned_then_clustered_then_quantized_keeps_both() -> None:
    pruned = Prune(ratio=0.6, kind=PruneKind.WEIGHTS)(model())
    calibrated = Calibrate(samples=samples_from(pictures()))(Cluster(clusters=8)(pruned))
    quantized = Quantize()(calibrated)
    assert quantized.structure.violations(quantized.quantized.integers) == []
    for name, mask in quantized.structure.masks.items():
        integers = quantized.quantized.integers[name]
        assert not integers[~mask].any()
        assert len(np.unique(integers)) <= 8
        assert 0.0 in quantized.structure.codebooks[name].values


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("start", Start)
def test_every_kind_of_codebook_survives_training_and_both_files(granularity, start) -> None:
    stage = Cluster(clusters=6, granularity=granularity, group_size=4, start=start, tie_filters=0.2)
    pruned = Prune(ratio=0.5, kind=PruneKind.WEIGHTS)(model())
    calibrated = Calibrate(samples=samples_from(pictures()))(stage(pruned))
    quantized = Quantize()(calibrated)
    module = quantized.to_module()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(3):
        module(torch.from_numpy(pictures()[:8])).square().mean().backward()
        optimizer.step()
    trained = quantized.from_module(module)
    assert trained.structure.violations(trained.quantized.integers) == []
    assert trained.structure.violations(trained.graph.constants) == []
    for name, book in trained.structure.codebooks.items():
        axis = 0 if granularity == Granularity.PER_CHANNEL and book.is_per_channel else None
        assert trained.params[name].axis == axis
    Export()(trained)  # reads both files back


def test_codebooks_a_channel_keep_a_scale_a_channel() -> None:
    """Per tensor, the largest channel's scale would round the small ones away."""
    calibrated = Calibrate(samples=samples_from(pictures()))(
        Cluster(clusters=4, granularity=Granularity.PER_CHANNEL)(model())
    )
    quantized = Quantize()(calibrated)
    assert all(quantized.params[name].axis == 0 for name in quantized.structure.codebooks)
    for name, book in quantized.structure.codebooks.items():
        assert book.is_per_channel
        assert all(len(np.unique(row)) <= 4 for row in quantized.quantized.integers[name])


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:
    clustered = Cluster(clusters=8, granularity=Granularity.PER_GROUP, group_size=4)(model())
    clustered.save(tmp_path)
    assert load(tmp_path).digest == clustered.digest
    record = clustered.history[-1]
    assert json.loads(json.dumps(dict(record.facts))) == record.facts


def test_the_plan_prints_what_each_tensor_loses() -> None:
    given, stage = model(), Cluster(clusters=8)
    plan = stage.plan(given)
    assert "relative error" in str(plan)
    assert plan.facts() == stage(given).history[-1].facts


@pytest.mark.parametrize("clusters", [1, 257, 3.5, "16"])
def test_options_that_do_not_hold_say_what_to_do(clusters) -> None:
    with pytest.raises(OptionError, match="give a whole number from 2 to 256"):
        Cluster(clusters=clusters)


def test_all_wrong_options_are_told_at_once() -> None:
    wrong = {"granularity": "per_row", "start": "random", "group_size": 0, "tie_filters": 1.0, "seed": -1}
    with pytest.raises(OptionError) as told:
        Cluster(clusters=8, **wrong)
    assert all(name in str(told.value) for name in wrong)
