"""What a traced graph says about the user's model: names, sources, shared weights; what it leaves alone."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.engine.run import run, to_tensors
from toolchain.engine.tracing.builder import is_torch, portable_path
from toolchain.engine.tracing.tracer import trace
from toolchain.errors import OptionError, UnsupportedError
from toolchain.graph import DType, Op

X = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)


class Bessel(nn.Module):
    """An op that no network has."""

    def forward(self, x):
        return torch.i0(x)


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.conv(x)) + x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.body = nn.Sequential(Block(4), Block(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.head(x.mean((2, 3))) * 2


def test_tensors_are_named_by_module_paths():
    graph = trace(Net(), (X,))
    assert [node.output for node in graph.nodes] == [
        "stem",
        "body.0.conv",
        "body.0.act.sigmoid",
        "body.0.act.mul",
        "body.0",
        "body.1.conv",
        "body.1.act.sigmoid",
        "body.1.act.mul",
        "body.1",
        "mean",
        "head",
        "mul",
    ]
    assert [node.name for node in graph.nodes] == [node.output for node in graph.nodes]
    assert graph.input_names == ("x",)


def test_constants_are_named_as_in_the_state_dict():
    module = Net()
    graph = trace(module, (X,))
    assert set(module.state_dict()) == set(graph.constants) - {"constant"}
    np.testing.assert_array_equal(graph.constants["body.1.conv.bias"], module.body[1].conv.bias.detach())


def test_sources_are_the_users_lines():
    graph = trace(Net(), (X,))
    lines, first = inspect.getsourcelines(Block)
    line = first + next(i for i, text in enumerate(lines) if "self.act(self.conv(x))" in text)
    for name, module in (
        ("body.0.conv", "body.0.conv"),
        ("body.1.act.mul", "body.1.act"),
        ("body.1", "body.1"),
    ):
        source = graph.producers[name].source
        assert (source.module, source.file.rpartition("/")[2], source.line) == (
            module,
            "test_tracing_names.py",
            line,
        )
        assert not source.file.startswith("/")


def test_torchvision_is_no_part_of_torch():
    assert is_torch(torch.nn.modules.conv.__file__)
    assert not is_torch(torch.__file__.replace("torch/__init__.py", "torchvision/models/resnet.py"))
    assert not is_torch("")


def test_a_path_is_the_same_on_any_machine():
    assert portable_path(torch.nn.modules.conv.__file__).endswith("torch/nn/modules/conv.py")
    assert not portable_path(torch.nn.modules.conv.__file__).startswith("/")
    assert portable_path("/nowhere/at/all/net.py") == "net.py"


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, x):
        return self.layer(self.layer(x))


def test_a_module_called_twice_has_names_of_its_own_for_each_call():
    module = Twice().eval()
    graph = trace(module, (X,))
    names = [node.output for node in graph.nodes]
    assert len(set(names)) == 6
    assert all(name.startswith("layer.") for name in names)
    assert set(graph.constants) == set(module.state_dict()) - {"layer.1.num_batches_tracked"}
    expected = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(run(graph, to_tensors([X]))[0].numpy(), expected, atol=1e-5)


class Tied(nn.Module):
    """Two layers over one weight, and a third over its transpose: the same memory, but another matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.third = nn.Parameter(self.first.weight.detach().T)

    def forward(self, x):
        return nn.functional.linear(self.second(self.first(x).relu()), self.third)


def test_weights_in_shared_memory_are_stored_once_and_a_transposed_view_is_not_one():
    module = Tied()
    graph = trace(module, (np.ones((2, 5), np.float32),))
    assert set(graph.constants) == {"first.weight", "first.bias", "second.bias", "third"}
    expected = module(torch.ones(2, 5)).detach().numpy()
    np.testing.assert_allclose(run(graph, [torch.ones(2, 5)])[0].numpy(), expected, atol=1e-5)


def test_a_module_in_train_mode_is_traced_in_eval_and_left_in_train():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    module[1].eval()
    statistics = module[1].running_mean.clone()
    graph = trace(module, (X,))
    assert [m.training for m in module] == [True, False, True]
    assert module.training
    assert [node.op for node in graph.nodes] == [Op.CONV2D, Op.BATCH_NORM]
    assert torch.equal(module[1].running_mean, statistics)


def test_flags_are_put_back_when_tracing_fails():
    module = nn.Sequential(Bessel(), nn.Dropout()).train()
    with pytest.raises(UnsupportedError):
        trace(module, (X,))
    assert module.training
    assert module[1].training


def test_training_the_module_afterwards_does_not_reach_the_graph():
    module = nn.Conv2d(3, 4, 1)
    graph = trace(module, (X,))
    before = graph.constants["weight"].copy()
    with torch.no_grad():
        module.weight.add_(1)
    np.testing.assert_array_equal(graph.constants["weight"], before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_become_float32(dtype):
    program = torch.export.export(nn.Conv2d(3, 4, 1).to(dtype), (torch.from_numpy(X).to(dtype),))
    graph = trace(program)
    assert {array.dtype for array in graph.constants.values()} == {np.dtype(np.float32)}
    assert [value.type.dtype for value in graph.inputs] == [DType.FLOAT32]
    module = nn.Linear(4, 4)
    module.register_buffer("scale", torch.rand(4, dtype=dtype))
    module.forward = lambda x: x * module.scale.float()
    assert trace(module, (np.ones((1, 4), np.float32),)).constants["scale"].dtype == np.float32


class TwoInputs(nn.Module):
    def forward(self, image, gate):
        return {"gated": image * gate, "image": image, "both": [image + gate, image.relu()]}


def test_several_inputs_and_outputs_keep_their_names_and_order():
    graph = trace(TwoInputs(), (X, X[:, :, :1, :1].copy()))
    assert graph.input_names == ("image", "gate")
    assert graph.outputs == ("mul", "image", "add", "relu")
    assert {value.type.dtype for value in graph.inputs} == {DType.FLOAT32}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, bool])
def test_inputs_that_are_no_reals_keep_their_type(dtype):
    values = np.array([[1, 0, 1]]).astype(dtype)
    graph = trace(nn.Sequential(nn.Identity(), nn.Flatten(0)), (values,))
    assert [value.type.dtype for value in graph.inputs] == [DType(np.dtype(dtype).name)]
    np.testing.assert_array_equal(run(graph, to_tensors([values]))[0].numpy(), values[0])


class Nested(nn.Module):
    def forward(self, batch, scale=None, *, bias=None):
        tokens, (mask, *_) = batch["tokens"], batch["masks"]
        x = tokens * mask
        if scale is not None:
            x = x * scale
        if bias is not None:
            x = x + bias
        return {"x": x, "none": None, "more": (tokens, [x, (mask.relu(),)])}


def test_nested_inputs_and_outputs_are_flat_in_the_graph():
    tokens, mask, scale = (np.full((1, 4), value, np.float32) for value in (2, 3, 5))
    graph = trace(Nested(), ({"tokens": tokens, "masks": [mask, mask]}, scale))
    assert graph.input_names == ("batch_tokens", "batch_masks_0", "batch_masks_1", "scale")
    assert graph.outputs == ("mul_1", "batch_tokens", "mul_1", "relu")
    found = run(graph, to_tensors([tokens, mask, mask, scale]))
    assert [tensor.flatten()[0].item() for tensor in found] == [30, 2, 30, 3]


def test_inputs_by_name_may_be_left_out():
    batch = {"tokens": np.ones((1, 4), np.float32), "masks": (np.ones((1, 4), np.float32),)}
    graph = trace(Nested(), {"batch": batch, "bias": np.ones((1, 4), np.float32)})
    assert graph.input_names == ("batch_tokens", "batch_masks_0", "bias")
    assert trace(Nested(), (batch, None)).input_names == ("batch_tokens", "batch_masks_0")


def test_an_exported_program_is_traced_without_example_inputs():
    module = Net().eval()
    program = torch.export.export(module, (torch.from_numpy(X),))
    graph = trace(program)
    expected = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(run(graph, to_tensors([X]))[0].numpy(), expected, atol=1e-5)


def test_an_exported_program_of_any_batch_is_traced_at_its_example():
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()),
        (torch.from_numpy(np.repeat(X, 2, 0)),),
        dynamic_shapes={"input": {0: batch}},
    )
    graph = trace(program)
    assert graph.types[graph.outputs[0]].shape == (2, 144)


# ---- what cannot be traced ---------------------------------------------------------------------------------


class Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 1), Bessel())

    def forward(self, x):
        x = torch.lgamma(self.inner(x))  # the second follows the first, and is listed all the same
        return torch.digamma(x)


def test_all_unsupported_ops_are_listed_at_once_with_module_and_line():
    with pytest.raises(UnsupportedError, match=r"3 op\(s\)") as found:
        trace(Unsupported(), (X,))
    lines, first = inspect.getsourcelines(Unsupported.forward)
    for op, module, line in (("i0", "inner.1", None), ("lgamma", "(top level)", 1), ("digamma", "(top level)", 2)):
        assert f"- {op}: not in the op set [{module} at " in str(found.value)
        assert line is None or f"test_tracing_names.py:{first + line}]" in str(found.value)
    assert found.value.exit_code == 5
    assert lines


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


def test_data_dependent_control_flow_is_named_and_placed():
    with pytest.raises(UnsupportedError, match="data-dependent control flow") as found:
        trace(Branching(), (X,))
    _, first = inspect.getsourcelines(Branching.forward)
    assert found.value.where.endswith(f"test_tracing_names.py:{first + 1}")
    assert "torch.where" in found.value.hint


def test_a_model_that_does_not_run_says_where():
    with pytest.raises(UnsupportedError, match=r"torch\.export fails"):
        trace(nn.Linear(3, 3), (X[:, :, :, :5].copy(),))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_all_named(value):
    module = Net()
    with torch.no_grad():
        module.stem.weight[0, 0] = value
        module.head.bias[1] = value
    with pytest.raises(OptionError, match="not finite") as found:
        trace(module, (X,))
    assert "stem.weight holds" in str(found.value)
    assert "head.bias holds" in str(found.value)


@pytest.mark.parametrize("dtype", [np.int16, np.int8])
def test_inputs_of_another_dtype_are_refused_in_words(dtype):
    with pytest.raises(UnsupportedError, match="give example inputs of float32, int64") as found:
        trace(nn.Sequential(nn.Identity(), nn.ReLU()), (np.ones((1, 3), dtype),))
    assert "Traceback" not in str(found.value)


class Constant(nn.Module):
    def forward(self, x):
        return x.relu(), torch.arange(3), 7


def test_outputs_that_no_input_reaches_are_refused_in_words():
    with pytest.raises(UnsupportedError, match="do not depend on the inputs") as found:
        trace(Constant(), (X,))
    assert "output 1 is int64[3]" in str(found.value)
    assert "output 2 is 7" in str(found.value)
