"""What a module in training holds beyond its first masks and codebooks: tightened masks, learned steps, chosen grids,
statistics of batch norms, recurrent layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.engine.module import GraphModule
from toolchain.engine.simulate import simulate
from toolchain.engine.tracing.tracer import trace
from toolchain.graph import Codebook, Structure, fold
from toolchain.quantization import QuantizedGraph, Scheme, assign_params, quantize, symmetric_params
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.quantize import Quantize
from toolchain.stages.states import QuantizedModel
from toolchain.stages.trace import Trace

X = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)


class Net(nn.Module):
    """A join of two scales, a fixed scale, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.gate = nn.Conv2d(8, 8, 1)
        self.side = nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x * torch.sigmoid(self.gate(x))
        x = torch.cat([x, self.side(x)], 1)
        return self.head(x.mean((2, 3)))


def quantized(module: nn.Module | None = None, inputs: np.ndarray = X, **options) -> QuantizedModel:
    torch.manual_seed(0)
    samples = samples_from(inputs, calibration_count=6, judging_count=2, batch_size=2)
    model = Trace(example_inputs=(inputs[:1],))((module or Net()).eval())
    return Quantize(**options)(Calibrate(samples=samples)(model))


def train(
    module: GraphModule, steps: int = 6, kind=torch.optim.SGD, rate: float = 0.02, inputs: np.ndarray = X
) -> None:
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(module.parameters(), lr=rate, weight_decay=0.01, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        (module(torch.from_numpy(inputs)) - 1).square().mean().backward()
        optimizer.step()


def test_masks_can_be_tightened_and_never_loosened():
    graph = fold(trace(Net(), (X[:1],)))
    shape = graph.constants["head.weight"].shape
    first, second = np.arange(60).reshape(shape) % 2 == 0, np.arange(60).reshape(shape) % 3 == 0
    module = GraphModule(graph, structure=Structure({"head.weight": first}))
    train(module, 2)
    module.set_masks({"head.weight": second, "gate.weight": np.zeros((8, 8, 1, 1), bool)})
    train(module, 2)
    constants, structure = module.trained_constants(), module.trained_structure()
    assert structure.violations(constants) == []
    np.testing.assert_array_equal(structure.masks["head.weight"], first & second)
    np.testing.assert_array_equal(constants["head.weight"] != 0, first & second)
    assert not constants["gate.weight"].any()
    with pytest.raises(ValueError, match=r"side\.bias"):
        module.set_masks({"side.bias": np.ones(3, bool)})


def test_a_codebooks_zero_stays_zero_beside_a_mask():
    """Or the masked weights would be a value more than the codebook has."""
    graph = fold(trace(Net(), (X[:1],)))
    book = Codebook(np.float32([-0.2, 0, 0.2]), np.arange(60).reshape(5, 12).astype(np.uint8) % 3)
    graph = graph.with_constants({"head.weight": book.decode()})
    mask = (np.arange(60).reshape(5, 12) % 3 != 1) | (np.arange(60).reshape(5, 12) < 30)
    module = GraphModule(graph, structure=Structure({"head.weight": mask}, {"head.weight": book}))
    train(module)
    structure = module.trained_structure()
    assert structure.violations(module.trained_constants()) == []
    assert structure.codebooks["head.weight"].values[1] == 0
    assert (structure.codebooks["head.weight"].values[[0, 2]] != book.values[[0, 2]]).all()


# ---- learned steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("options", [{}, {"weight_bits": 4}, {"numbers": "w8a16"}], ids=str)
def test_learned_steps_come_back_as_the_specification(kind, options):
    model = quantized(**options)
    module = model.to_module(learned_steps=True)
    train(module, kind=kind)
    made = model.from_module(module)
    fixed = {"sigmoid", "sigmoid_1"} & set(model.params)
    assert fixed
    moved = 0
    for name, before in model.params.items():
        after = made.params[name]
        same = replace(after, scale=before.scale)
        assert same == before, name  # dtype, zero point, axis and bounds
        moved += bool(np.any(after.scale != before.scale))
        if name in fixed:
            assert after == before
    weights = [name for name in model.params if name.endswith("weight")]
    assert moved >= len(weights)
    assert "numbers" in options or moved > len(model.params) // 2
    # what shared a scale does so still
    for one, before in model.params.items():
        for other, also in model.params.items():
            if (
                before == also
                and model.graph.types[one].shape[2:]
                and one.startswith("cat")
                and other.startswith("cat")
            ):
                assert made.params[one] == made.params[other]


def test_the_module_computes_what_the_specification_says_after_training():
    model = quantized()
    module = model.to_module(learned_steps=True)
    train(module)
    made = model.from_module(module)
    with torch.no_grad():
        fake = module(torch.from_numpy(X)).numpy()
    exact = simulate(made.quantized, [quantize(X, made.params[made.graph.input_names[0]])])[0]
    (name,) = made.graph.outputs
    steps = np.abs(quantize(fake, made.params[name]).astype(int) - exact.astype(int))
    # biases stay float in training and ties may fall either way: a step at each of the four layers
    assert steps.max() <= 4
    again = made.to_module()
    with torch.no_grad():
        np.testing.assert_allclose(again(torch.from_numpy(X)).numpy(), fake, atol=4 * made.params[name].step)


def test_learned_steps_are_one_vector_beside_the_users_keys():
    model = quantized()
    module = model.to_module(learned_steps=True)
    assert set(module.state_dict()) - set(model.to_module().state_dict()) == {"step_sizes.factors"}
    assert sum(p.numel() for p in module.step_parameters()) < sum(p.scale.size for p in model.params.values())
    assert model.from_module(module).params == model.params


def test_a_mean_is_never_finer_than_the_means_of_integers():
    model = quantized()
    module = model.to_module(learned_steps=True)
    node = next(node for node in model.graph.nodes if node.op == "mean")
    with torch.no_grad():
        for parameter in module.step_parameters():
            parameter.copy_(torch.linspace(-6, 0, len(parameter)))
    made = model.from_module(module)
    source, result = made.params[node.inputs[0]].step, made.params[node.output].step
    assert result >= source / 64 * (1 - 1e-6)


# ---- chosen grids ------------------------------------------------------------------------------------------


def test_a_grid_narrower_than_its_weights_stays():
    graph = fold(trace(Net(), (X[:1],)))
    bounds = {name: np.abs(a.reshape(len(a), -1)).max(1) * 0.6 for name, a in graph.constants.items() if a.ndim > 1}
    base = assign_params(
        graph, dict.fromkeys(graph.activations, (-4.0, 4.0)), Scheme(weight_bits=4), weight_bounds=bounds
    )
    model = QuantizedModel(graph=base.graph, reference=graph, params=base.params, float_nodes=base.float_nodes)
    module = model.to_module()
    train(module, rate=0.005)
    made = model.from_module(module)
    for name in bounds:
        np.testing.assert_array_equal(made.params[name].scale, model.params[name].scale)


def test_learned_rounding_is_where_training_starts_and_what_it_moves_by_half_a_step():
    """Weights sit in the middle of the steps they were given; a correction is never left off the grid."""
    model = quantized(weight_bits=4)
    name = "head.weight"
    weight, params = model.graph.constants[name], model.params[name]
    other = np.floor(weight / params.scale[:, None]).clip(-7, 7)  # down instead of to nearest
    model = replace(
        model, corrections={**model.corrections, name: (other * params.scale[:, None] - weight).astype(np.float32)}
    )
    integers = model.quantized.integers[name]
    assert (integers != quantize(weight, params)).any()
    module = model.to_module()
    np.testing.assert_allclose(module.constant(name).detach(), other * params.scale[:, None], rtol=1e-6)
    same = model.from_module(module)
    np.testing.assert_array_equal(same.quantized.integers[name], integers)
    with torch.no_grad():
        module.get_parameter(name).add_(0.4 * torch.from_numpy(params.scale)[:, None])
    np.testing.assert_array_equal(model.from_module(module).quantized.integers[name], integers)
    train(module, rate=0.1)
    made = model.from_module(module)
    assert (made.quantized.integers[name] != integers).any()
    seen = module.constant(name).detach().numpy()
    np.testing.assert_allclose(seen, made.quantized.integers[name] * made.params[name].scale[:, None], rtol=1e-6)


# ---- batch norms, recurrent layers -------------------------------------------------------------------------


def test_batch_statistics_are_those_of_torch_in_training():
    torch.manual_seed(0)
    user = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    module = GraphModule(trace(user.eval(), (X[:1],)))
    module.use_batch_statistics(0.1)
    user.train()
    torch.testing.assert_close(module(torch.from_numpy(X)), user(torch.from_numpy(X)))
    torch.testing.assert_close(module.get_buffer("1.running_var"), user[1].running_var)
    module.use_batch_statistics(None)
    torch.testing.assert_close(module(torch.from_numpy(X)), user.eval()(torch.from_numpy(X)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.parametrize("learned", [False, True])
def test_recurrent_layers_are_trained_on_the_grid_of_their_weights(learned):
    inputs = np.random.default_rng(0).standard_normal((8, 7, 6)).astype(np.float32)
    model = quantized(Recurrent(), inputs, numbers="dynamic_int8")
    name = "layer.weight_hh_l0"
    assert model.params[name].dtype == "int8"
    module = model.to_module(learned_steps=learned)
    train(module, inputs=inputs, rate=0.1)
    made = model.from_module(module)
    assert (made.graph.constants[name] != model.graph.constants[name]).any()
    step = made.params[name].broadcast(made.params[name].scale, 2)
    seen = module.constant(name).detach().numpy()
    np.testing.assert_allclose(seen, made.quantized.integers[name] * step, rtol=1e-5, atol=1e-7)


def test_symmetric_weights_of_a_narrow_grid_never_use_the_lowest_integer():
    module = GraphModule(
        trace(nn.Linear(4, 3), (np.ones((1, 4), np.float32),)),
        params={"weight": symmetric_params(np.ones(3), axis=0, bits=3)},
        learned_steps=True,
    )
    with torch.no_grad():
        module.get_parameter("weight").fill_(-9.0)
    step = torch.from_numpy(module.params["weight"].scale)
    torch.testing.assert_close(module.constant("weight"), (-3 * step)[:, None].expand(3, 4))


def test_quantized_graphs_and_modules_agree_on_what_is_learned():
    model = quantized()
    assert isinstance(model.quantized, QuantizedGraph)
    scales = model.to_module(learned_steps=True).trained_scales()
    for name, scale in scales.items():
        np.testing.assert_array_equal(scale, model.params[name].scale)
