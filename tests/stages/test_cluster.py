import json

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.compress.pruning.magnitude import weight_names
from toolchain.engine.run import predict
from toolchain.errors import OptionError
from toolchain.graph import Op
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.cluster import Cluster
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


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:
    clustered = Cluster(clusters=8)(model())
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
