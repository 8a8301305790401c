"""Every op as torch evaluates it, against plain numpy; and a graph run node by node."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.engine.numpy_ops import apply
from tests.graph.op_cases import CASES, case_graph, case_inputs
from toolchain.engine.run import activations, as_tensors, predict, run, to_tensors
from toolchain.graph import parse_graph

# What a constant's own batch axis pins cannot take another batch.
ANY_BATCH = [case for case in CASES if case != "concat with a constant"]


def expected(graph, inputs):
    """Result of the graph's only node in float64."""
    values = {**graph.constants, **dict(zip(graph.input_names, inputs, strict=True))}
    (node,) = graph.nodes
    return apply(node, *(values[name].astype(np.float64) for name in node.inputs))


@pytest.mark.parametrize("case", CASES)
def test_every_op_in_float64(case):
    graph = case_graph(case)
    inputs = case_inputs(graph)
    constants = as_tensors(graph.constants, torch.float64)
    tensors = [t.double() if t.is_floating_point() else t for t in to_tensors(inputs)]
    (found,) = run(graph, tensors, constants=constants)
    assert tuple(found.shape) == graph.types["y"].shape
    np.testing.assert_allclose(found.numpy(), expected(graph, inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_every_op_in_float32(case):
    graph = case_graph(case)
    inputs = case_inputs(graph)
    (found,) = run(graph, to_tensors(inputs))
    wanted = expected(graph, inputs)
    assert str(found.dtype) == f"torch.{graph.types['y'].dtype}"
    finite = np.abs(wanted[np.isfinite(wanted)]).max()
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-6 * max(finite, 1.0))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("case", ANY_BATCH)
def test_every_op_takes_another_batch_than_it_was_traced_with(case, batch):
    graph = case_graph(case)
    inputs = case_inputs(graph, batch)
    (found,) = run(graph, to_tensors(inputs))
    np.testing.assert_allclose(found.numpy(), expected(graph, inputs), rtol=1e-5, atol=1e-5)


def test_padding_wider_than_half_a_pooling_window():
    graph = parse_graph("input x: float32[1,1,3,3]\ny = max_pool2d(x) kernel_size=(2,2) padding=(1,1,2,1)\noutput y")
    inputs = [-np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)]
    np.testing.assert_array_equal(run(graph, to_tensors(inputs))[0].numpy(), expected(graph, inputs))


TWO_OUTPUTS = parse_graph(
    "input x: float32[2,4]\nconstant w: float32[4,4]\na = relu(x)\nb = linear(a, w)\nc = add(a, b)\noutput c, a, x"
)


def test_outputs_come_in_their_order_and_may_be_read_or_handed_through():
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    c, a, same = (o.numpy() for o in run(TWO_OUTPUTS, to_tensors([x])))
    np.testing.assert_array_equal(a, np.maximum(x, 0))
    np.testing.assert_array_equal(same, x)
    np.testing.assert_allclose(c, a + a @ TWO_OUTPUTS.constants["w"].T, atol=1e-6)


def test_a_hook_sees_every_activation_in_order_and_may_replace_it():
    seen = []

    def hook(name, value):
        seen.append(name)
        return value * 0 if name == "b" else value

    c, a, _ = run(TWO_OUTPUTS, [torch.ones(2, 4)], hook=hook)
    assert seen == ["x", "a", "b", "c"]
    assert torch.equal(c, a)


def test_a_tensor_is_freed_after_its_last_use():
    graph = parse_graph("input x: float32[1,4]\na = relu(x)\nb = tanh(a)\nc = relu(b)\noutput c")
    alive: dict[str, torch.Tensor] = {}
    import weakref

    found = []

    def hook(name, value):
        value = value.clone()
        alive[name] = weakref.ref(value)
        found.append(sorted(n for n, reference in alive.items() if reference() is not None))
        return value

    run(graph, [torch.ones(1, 4)], hook=hook)
    # when c is made, a is gone; b has just been read
    assert found[-1] == ["b", "c"]


def test_run_all_and_predict_agree():
    batches = [[np.random.default_rng(i).standard_normal((2, 4)).astype(np.float32)] for i in range(3)]
    whole = predict(TWO_OUTPUTS, batches)
    assert [o.shape for o in whole] == [(6, 4)] * 3
    np.testing.assert_array_equal(whole[0][2:4], activations(TWO_OUTPUTS, batches[1])["c"])


def test_predict_gives_a_scalar_output_as_it_is_or_one_a_run():
    graph = parse_graph("input x: float32[2,3]\ny = sum(x) axes=(0,1)\noutput y")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert predict(graph, [(x,)])[0].shape == ()
    np.testing.assert_array_equal(predict(graph, [(x,), (2 * x,)])[0], [15, 30])


def test_constants_keep_a_scalars_shape():
    assert to_tensors([np.float32(3)[...]])[0].shape == ()
