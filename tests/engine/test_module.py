"""A graph as a torch module: the user's names, gradients, and what compression fixed, whoever trains it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.engine.module import GraphModule
from toolchain.engine.observe import observe
from toolchain.engine.run import run, to_tensors
from toolchain.engine.simulate import simulate
from toolchain.engine.tracing.tracer import trace
from toolchain.graph import Codebook, Graph, Structure, fold, parse_graph
from toolchain.quantization import QuantizedGraph, Scheme, assign_params, dequantize, quantize

X = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def traced() -> Graph:
    return trace(Net(), (X[:1],))


def quantized() -> QuantizedGraph:
    graph = fold(traced())
    return assign_params(graph, {n: s.minmax() for n, s in observe(graph, [(X,)]).items()}, Scheme())


def train(module: GraphModule, steps: int = 5, rate: float = 0.05) -> None:
    """Steps of an optimizer with momentum, which moves weights even where their gradient is masked."""
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9, weight_decay=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.from_numpy(X)).square().mean().backward()
        optimizer.step()


def test_state_dict_has_the_users_keys_and_loads_into_the_users_module():
    module, user = GraphModule(traced()), Net()
    assert set(module.state_dict()) == set(user.state_dict()) - {"body.1.num_batches_tracked"}
    user.load_state_dict(module.state_dict(), strict=False)
    torch.testing.assert_close(module(torch.from_numpy(X)), user.eval()(torch.from_numpy(X)))
    module.load_state_dict(user.state_dict(), strict=False)


def test_float_mode_equals_run():
    graph = traced()
    (expected,) = run(graph, to_tensors([X]))
    assert torch.equal(GraphModule(graph)(torch.from_numpy(X)), expected)


def test_batch_norm_statistics_are_not_trained():
    module = GraphModule(traced())
    assert {name for name, _ in module.named_buffers()} == {"body.1.running_mean", "body.1.running_var"}
    before = module.trained_constants()["body.1.running_var"]
    train(module)
    np.testing.assert_array_equal(module.trained_constants()["body.1.running_var"], before)


def test_several_outputs_come_as_a_tuple():
    graph = parse_graph("input x: float32[1,4]\na = relu(x)\nb = tanh(a)\noutput a, b")
    outputs = GraphModule(graph)(torch.ones(1, 4))
    assert isinstance(outputs, tuple)
    assert len(outputs) == 2


@pytest.mark.parametrize("name", ["graph", "params", "structure", "constant", "graph.weight", "_masks"])
def test_no_name_of_the_users_is_taken(name):
    """A scalar at the top level of a model is called `constant`; a user may call a parameter anything."""
    graph = parse_graph(
        f"input x: float32[2,4]\nconstant {name}: float32[4]\nconstant a.b: float32[4]\n"
        f"s = add(x, {name})\ny = mul(s, a.b)\noutput y"
    )
    module = GraphModule(graph)
    assert set(module.state_dict()) == {name, "a.b"}
    (expected,) = run(graph, [torch.ones(2, 4)])
    assert torch.equal(module(torch.ones(2, 4)), expected)
    module.load_state_dict({key: tensor + 1 for key, tensor in module.state_dict().items()})
    np.testing.assert_array_equal(module.trained_constants()[name], graph.constants[name] + 1)
    assert torch.equal(copy.deepcopy(module)(torch.ones(2, 4)), module(torch.ones(2, 4)))


def test_training_does_not_reach_the_graph():
    graph = traced()
    before = graph.constants["head.weight"].copy()
    train(module := GraphModule(graph))
    np.testing.assert_array_equal(graph.constants["head.weight"], before)
    assert np.any(module.trained_constants()["head.weight"] != before)


# ---- masks and codebooks -----------------------------------------------------------------------------------


def masked(graph: Graph) -> tuple[Graph, Structure]:
    random = np.random.default_rng(1)
    masks = {n: random.random(a.shape) < 0.5 for n, a in graph.constants.items() if n.endswith("weight") and a.ndim > 1}
    return graph.with_constants({n: graph.constants[n] * m for n, m in masks.items()}), Structure(masks)


def clustered(graph: Graph) -> tuple[Graph, Structure]:
    random = np.random.default_rng(2)
    books = {
        name: Codebook(np.linspace(-0.3, 0.3, 4, dtype=np.float32), random.integers(0, 4, array.shape).astype(np.uint8))
        for name, array in graph.constants.items()
        if name.endswith("weight") and array.ndim > 1
    }
    return graph.with_constants({n: b.decode() for n, b in books.items()}), Structure(codebooks=books)


@pytest.mark.parametrize("compressed", [masked, clustered])
@pytest.mark.parametrize("is_quantized", [False, True])
def test_masks_and_codebooks_hold_while_the_weights_move(compressed, is_quantized):
    model = quantized()
    graph, structure = compressed(model.graph)
    assert structure.violations(graph.constants) == []
    module = GraphModule(graph, params=model.params if is_quantized else None, structure=structure)
    train(module)
    constants = module.trained_constants()
    trained = module.trained_structure()
    assert trained.violations(constants) == []
    for name in (*structure.masks, *structure.codebooks):
        assert np.any(constants[name] != graph.constants[name]), f"{name} did not move"
        assert constants[name].shape == graph.constants[name].shape
    for name, book in trained.codebooks.items():
        np.testing.assert_array_equal(book.decode(), constants[name])
        np.testing.assert_array_equal(book.indices, structure.codebooks[name].indices)


def test_a_masked_weight_of_a_codebook_stays_zero():
    graph, structure = clustered(quantized().graph)
    name = "head.weight"
    structure = structure.with_masks({name: np.random.default_rng(3).random((5, 8)) < 0.5})
    module = GraphModule(graph, structure=structure)
    train(module)
    assert not module.trained_constants()[name][~structure.masks[name]].any()


# ---- fake quantization -------------------------------------------------------------------------------------


def test_gradients_flow_through_fake_quantization_to_every_parameter():
    model = quantized()
    module = GraphModule(model.graph, params=model.params)
    module(torch.from_numpy(X)).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0, name


def test_weights_are_seen_on_their_grid_and_kept_in_float():
    model = quantized()
    module = GraphModule(model.graph, params=model.params)
    for name, q in model.integers.items():
        if model.params[name].q_max == 127:
            seen = module.constant(name).detach().numpy()
            np.testing.assert_allclose(seen, dequantize(q, model.params[name]), rtol=1e-6, atol=1e-9)
            np.testing.assert_array_equal(module.trained_constants()[name], model.graph.constants[name])


def test_fake_quantization_is_within_two_steps_of_the_integers():
    """Biases stay float in training and ties may fall either way: a step at each of the two layers."""
    model = quantized()
    fake = GraphModule(model.graph, params=model.params)(torch.from_numpy(X)).detach().numpy()
    (name,) = model.graph.outputs
    exact = simulate(model, [quantize(X, model.params[model.graph.input_names[0]])])[0]
    steps = np.abs(quantize(fake, model.params[name]).astype(int) - exact.astype(int))
    assert steps.max() <= 2
    np.testing.assert_allclose(fake, dequantize(quantize(fake, model.params[name]), model.params[name]), atol=1e-6)


def test_corrected_biases_are_seen_corrected_and_kept_as_they_are():
    model = quantized()
    correction = np.arange(5, dtype=np.float32)
    module = GraphModule(model.graph, params=model.params, corrections={"head.bias": correction})
    bias = model.graph.constants["head.bias"]
    np.testing.assert_array_equal(module.constant("head.bias").detach(), bias + correction)
    np.testing.assert_array_equal(module.trained_constants()["head.bias"], bias)


def test_what_lies_outside_the_range_gets_no_gradient():
    graph = parse_graph(
        "input x: float32[1,3]\nconstant w: float32[3]\ny = add(x, w)\noutput y",
        {"w": np.zeros(3, np.float32)},
    )
    model = assign_params(graph, {"x": (-8.0, 8.0), "y": (-1.0, 1.0)}, Scheme())
    module = GraphModule(graph, params=model.params)
    module(torch.tensor([[0.5, 0.9, 5.0]])).sum().backward()
    assert module.get_parameter("w").grad.tolist() == [1.0, 1.0, 0.0]
