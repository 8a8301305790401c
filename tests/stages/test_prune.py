import json

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.compress.pruning.choices import Importance
from toolchain.engine.run import predict
from toolchain.errors import OptionError, OrderError
from toolchain.graph import fold, fold_structure
from toolchain.graph.cost import total_macs
from toolchain.pipeline import Pipeline
from toolchain.recipe import make_pipeline, print_recipe
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.cluster import Cluster
from toolchain.stages.prune import Prune, PruneKind
from toolchain.stages.quantize import Quantize
from toolchain.stages.states import TracedModel
from toolchain.stages.trace import Trace


def classic() -> nn.Module:
    """The classic example; the odd nodes carry the output, the even ones almost nothing, though the weights
    into them are three times as long."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 10))
    with torch.no_grad():
        module[0].weight[::2] *= 3
        module[2].weight[:, ::2] *= 0.001
    return module


def digits() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 2 * 2, 5),
    )  # fmt: skip


def traced(module: nn.Module, *shape: int) -> TracedModel:
    return Trace(example_inputs=(np.zeros((1, *shape), np.float32),))(module)


def pictures(count: int = 60) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 1, 10, 10)).astype(np.float32)


@pytest.mark.parametrize("importance", [Importance.PATH, Importance.CONTRIBUTION])
def test_classic_example(importance: Importance) -> None:
    module = classic()
    rows = np.random.default_rng(0).standard_normal((100, 10)).astype(np.float32)
    model = traced(module, 10)
    pruned = Prune(ratio=0.5, importance=importance, samples=samples_from(rows))(model)
    assert {name: array.shape for name, array in pruned.graph.constants.items()} == {
        "0.weight": (10, 10), "0.bias": (10,), "2.weight": (10, 10), "2.bias": (10,)}  # fmt: skip
    assert [node.op.value for node in pruned.graph.nodes] == ["linear", "relu", "linear"]
    np.testing.assert_array_equal(pruned.graph.constants["0.weight"], module[0].weight.detach().numpy()[1::2])
    np.testing.assert_array_equal(pruned.graph.constants["2.weight"], module[2].weight.detach().numpy()[:, 1::2])
    (before,), (after,) = predict(model.graph, [(rows,)]), predict(pruned.graph, [(rows,)])
    assert np.abs(after - before).max() < 0.02 * np.abs(before).max()
    assert len(pruned.to_module().state_dict()) == 4


def test_the_model_given_and_the_reference_stay() -> None:
    model = traced(digits(), 1, 10, 10)
    digest = model.digest
    pruned = Prune(ratio=0.5)(model)
    assert model.digest == digest
    assert pruned.reference is model.reference
    assert pruned.graph.outputs == model.graph.outputs
    assert total_macs(pruned.graph) < 0.5 * total_macs(model.graph)


@pytest.mark.parametrize("kind", [PruneKind.CHANNELS, PruneKind.WEIGHTS])
def test_history_is_plain_and_the_same_twice(kind: PruneKind) -> None:
    model = traced(digits(), 1, 10, 10)
    stage = Prune(ratio=0.5, kind=kind, importance=Importance.RANDOM, seed=7)
    first, again = stage(model), stage(model)
    assert first.digest == again.digest
    record = first.history[-1]
    assert record.stage == "prune"
    assert record.options["kind"] == record.facts["kind"] == kind.value
    assert json.loads(json.dumps([dict(record.options), dict(record.facts)])) == [
        record.options,
        record.facts,
    ]


def test_the_plan_comes_first_and_touches_nothing() -> None:
    model = traced(digits(), 1, 10, 10)
    stage = Prune(ratio=0.5, round_to=4)
    digest, plan = model.digest, stage.plan(model)
    assert model.digest == digest
    assert "8 -> 4" in str(plan)
    assert "is an output of the graph" in str(plan)
    assert {"kind": "channels", **plan.facts()} == stage(model).history[-1].facts


def test_masks_survive_folding_and_quantization() -> None:
    model = Prune(ratio=0.7, kind=PruneKind.WEIGHTS)(traced(digits(), 1, 10, 10))
    assert set(model.structure.masks) == {"0.weight", "4.weight", "7.weight"}
    assert model.structure.violations(model.graph.constants) == []
    folded = fold(model.graph)
    assert fold_structure(model.structure, model.graph, folded).violations(folded.constants) == []
    quantized = Quantize()(Calibrate(samples=samples_from(pictures()))(model))
    assert set(quantized.structure.masks) == set(model.structure.masks)
    assert quantized.structure.violations(quantized.quantized.integers) == []
    for name, mask in quantized.structure.masks.items():
        assert np.count_nonzero(quantized.quantized.integers[name] == 0) >= np.count_nonzero(~mask) > 0.69 * mask.size


def test_channels_and_weights_in_a_row_keep_the_masks_cut() -> None:
    model = Prune(ratio=0.5, kind=PruneKind.WEIGHTS)(traced(digits(), 1, 10, 10))
    model = Prune(ratio=0.5)(model)
    assert all(model.structure.masks[n].shape == model.graph.constants[n].shape for n in model.structure.masks)
    assert model.structure.violations(model.graph.constants) == []


def test_channels_after_clusters_keep_the_codebooks() -> None:
    model = Prune(ratio=0.5)(Cluster(clusters=8)(traced(digits(), 1, 10, 10)))
    for name, book in model.structure.codebooks.items():
        np.testing.assert_array_equal(book.decode(), model.graph.constants[name])


def test_weights_after_clusters_is_the_wrong_order() -> None:
    model = Cluster(clusters=8)(traced(digits(), 1, 10, 10))
    with pytest.raises(OrderError, match="put prune before cluster"):
        Prune(ratio=0.5, kind=PruneKind.WEIGHTS)(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "ratio is 1.0"),
        ({"ratio": -0.1}, "ratio is -0.1"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"ratio": "half"}, "ratio is 'half'"),
        ({"ratio": 0.5, "kind": "rows"}, "choose channels or weights"),
        ({"ratio": 0.5, "importance": "l3"}, "l1, l2, batch_norm, path, contribution"),
        ({"ratio": 0.5, "importance": "contribution"}, "is measured on samples"),
        ({"ratio": 0.5, "round_to": 0}, "round_to is 0"),
        ({"ratio": 0.5, "samples": [1, 2]}, "samples_from"),
        ({"ratio": 0.5, "scope": "layer"}, "choose local or global or output"),
        ({"ratio": 0.5, "of": "flops"}, "count or macs or parameters or bytes or latency"),
        ({"ratio": 0.5, "kind": "weights", "of": "macs"}, "zeros are counted"),
        ({"ratio": 0.5, "kind": "weights", "importance": "path"}, "is one of channels"),
        ({"ratio": 0.5, "kind": "weights", "importance": "fisher"}, "is measured on samples"),
        ({"ratio": 0.5, "kind": "weights", "pattern": "4:2"}, "give N:M such as 2:4"),
        ({"ratio": 0.3, "kind": "weights", "pattern": "2:4"}, "2:4 takes 0.5"),
        ({"ratio": 0.5, "kind": "weights", "pattern": "2:4", "scope": "global"}, "the same everywhere"),
        ({"ratio": 0.5, "pattern": "2:4"}, "set kind = weights"),
        ({"ratio": 0.5, "only": "pointwise"}, "set kind = weights"),
        ({"ratio": 0.5, "kind": "weights", "only": "depthwise"}, "choose pointwise"),
        ({"ratio": 0.5, "scope": "output"}, "choose local or global"),
        ({"ratio": 0.5, "kind": "layers"}, "what a layer is worth is measured"),
        ({"ratio": 0.5, "kind": "layers", "importance": "l1"}, "ranked by the outputs' error"),
        ({"ratio": 0.5, "schedule": "slow"}, "one_shot or iterative or gradual"),
        ({"ratio": 0.5, "schedule": "gradual"}, "give epochs"),
        ({"ratio": 0.5, "schedule": "iterative", "epochs": 1}, "give rounds"),
        ({"ratio": 0.5, "schedule": "gradual", "epochs": 1, "kind": "layers"}, "cannot go gradually"),
        ({"ratio": 0.5, "epochs": 2}, "training needs samples"),
        ({"ratio": 0.5, "epochs": -1}, "epochs is -1"),
        ({"ratio": 0.5, "learning_rate": 0}, "learning_rate is 0"),
        ({"ratio": 0.5, "loss": "mse"}, "outputs or cross_entropy"),
    ],
)
def test_options_that_do_not_hold_say_what_to_do(options, message) -> None:
    with pytest.raises(OptionError, match=message):
        Prune(**options)


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        Prune(ratio=2, round_to=0)
    assert "ratio is 2" in str(caught.value)
    assert "round_to is 0" in str(caught.value)


class Deep(nn.Module):
    """A stem, blocks with shortcuts, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + torch.relu(block(x))
        return self.head(x.mean((2, 3)))


def deep() -> TracedModel:
    torch.manual_seed(0)
    return traced(Deep(), 1, 10, 10)


EVERY_WAY = {
    "macs": {"of": "macs"},
    "global": {"scope": "global", "importance": "taylor"},
    "apoz": {"importance": "apoz"},
    "2:4": {"kind": "weights", "pattern": "2:4"},
    "blocks": {"kind": "weights", "pattern": "1x4", "scope": "global"},
    "wanda": {"kind": "weights", "importance": "activation_aware", "scope": "output"},
    "layers": {"kind": "layers"},
    "layers in rounds": {"kind": "layers", "schedule": "iterative", "rounds": 2, "epochs": 1},
    "rounds": {"schedule": "iterative", "rounds": 2, "epochs": 1},
    "gradual": {"schedule": "gradual", "epochs": 2, "kind": "weights"},
    "gradual 2:4": {"schedule": "gradual", "epochs": 2, "kind": "weights", "pattern": "2:4"},
    "2:4 in rounds": {"schedule": "iterative", "rounds": 2, "epochs": 1, "kind": "weights", "pattern": "2:4"},
    "gradual channels": {"schedule": "gradual", "epochs": 2, "importance": "batch_norm"},
    "one shot and trained": {"epochs": 1, "batch_norm": "batch", "of": "parameters"},
}


@pytest.mark.parametrize("options", EVERY_WAY.values(), ids=EVERY_WAY.keys())
def test_every_way_reaches_its_ratio_is_plain_and_the_same_twice(options) -> None:
    model, samples = deep(), samples_from(pictures())
    pruned = Prune(ratio=0.5, samples=samples, **options)(model)
    assert pruned.structure.violations(pruned.graph.constants) == []
    parameters = sum(np.count_nonzero(array) for array in pruned.graph.constants.values())
    assert parameters <= 0.7 * sum(array.size for array in model.graph.constants.values())
    assert predict(pruned.graph, [(pictures(3),)])[0].shape == (3, 5)
    record = pruned.history[-1]
    assert json.loads(json.dumps(dict(record.facts))) == dict(record.facts)
    assert Prune(ratio=0.5, samples=samples, **options)(model).digest == pruned.digest
    tables = print_recipe(Pipeline((Prune(ratio=0.5, samples=samples, **options),)), {"samples": samples})
    (again,) = make_pipeline(tables, {"samples": samples}, where="recipe").stages
    assert again.options() == Prune(ratio=0.5, samples=samples, **options).options()


@pytest.mark.parametrize("options", [{}, {"schedule": "gradual", "epochs": 2}])
def test_only_pointwise_convolutions_may_lose_weights(options) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, groups=2)]
    model = traced(nn.Sequential(*layers), 1, 10, 10)
    pruned = Prune(ratio=0.5, kind="weights", only="pointwise", samples=samples_from(pictures()), **options)(model)
    zeros = {n: np.count_nonzero(pruned.graph.constants[n] == 0) for n in pruned.graph.constants if "weight" in n}
    assert list(zeros.values()) == [0, 0, 32, 0]


def test_latency_is_predicted_from_measurements(monkeypatch) -> None:
    monkeypatch.setattr("toolchain.stages.latency.ROUND_S", 0.0)
    monkeypatch.setattr("toolchain.stages.latency.ROUNDS", 1)
    facts = Prune(ratio=0.2, of="latency", int8_latency=False)(deep()).history[-1].facts
    before, after = facts["latency_ms"]
    assert 0 < after < before
    assert facts["latency_model"]["networks"] == 24 and facts["latency_model"]["error"] > 0


def test_samples_count_only_where_something_looks_at_them() -> None:
    samples = samples_from(pictures())
    assert Prune(ratio=0.5, samples=samples).options()["samples"] is None
    for options in ({"epochs": 1}, {"kind": "layers"}, {"importance": "apoz"}):
        assert Prune(ratio=0.5, samples=samples, **options).options()["samples"] == samples.calibration_digest


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "gradual", "kind": "weights"},
        {"schedule": "gradual"},
        {"schedule": "iterative", "rounds": 2},
        {"schedule": "iterative", "rounds": 2, "kind": "layers"},
    ],
)
@pytest.mark.parametrize("killed_at", [1, 5, 11])
def test_a_training_that_was_killed_goes_on_to_the_same_result(options, killed_at, tmp_path, monkeypatch) -> None:
    stage = Prune(ratio=0.5, samples=samples_from(pictures(), batch_size=8), epochs=2, seed=1, **options)
    model, saved = deep(), []

    def save_and_die(self, state) -> None:
        self.save(state())
        saved.append(self)
        if len(saved) == killed_at:
            raise KeyboardInterrupt

    monkeypatch.setattr("toolchain.compress.recovery.checkpoint.Checkpoint.save_soon", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        stage(model, checkpoints=tmp_path)
    assert stage(model, checkpoints=tmp_path).digest == stage(model).digest
