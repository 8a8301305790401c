"""Every architecture of the zoo is a sound model: it runs, tells inputs apart, keeps the batch, and can be exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from tests.zoo.architectures import ARCHITECTURES, build_architecture

BATCH = 8


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request):
    module, inputs = build_architecture(request.param, count=16)
    return module, inputs


def run(module: torch.nn.Module, inputs: tuple[np.ndarray, ...], count: int) -> list[torch.Tensor]:
    with torch.inference_mode():
        return pytree.tree_leaves(module(*(torch.from_numpy(array[:count]) for array in inputs)))


def test_outputs_are_finite_keep_the_batch_and_tell_inputs_apart(architecture):
    module, inputs = architecture
    assert not module.training and all(len(array) == 16 for array in inputs)
    assert all(array.dtype in (np.float32, np.int64, np.bool_) for array in inputs)
    outputs = run(module, inputs, BATCH)
    for output in outputs:
        assert output.shape[0] == BATCH
        assert torch.isfinite(output).all()
        assert len(output.reshape(BATCH, -1).unique(dim=0)) > 1
        if output.is_floating_point():
            assert output.std(0).mean() > 0.02 * output.abs().mean()
    # what is given back for a sample does not depend on the others of its batch
    for output, alone in zip(outputs, run(module, inputs, 1), strict=True):
        torch.testing.assert_close(output[:1], alone, rtol=1e-4, atol=1e-4 * float(output.double().abs().max()))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_is_small_and_can_be_exported(architecture):
    module, inputs = architecture
    assert sum(parameter.numel() for parameter in module.parameters()) < 3e6
    given = tuple(torch.from_numpy(array[:1]) for array in inputs)
    program = torch.export.export(module, given)
    with torch.inference_mode():
        found, expected = pytree.tree_leaves(program.module()(*given)), pytree.tree_leaves(module(*given))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_architectures_are_the_same_on_every_call():
    (first, inputs), (second, again) = build_architecture("bert", count=16), build_architecture("bert", count=16)
    for array, other in zip(inputs, again, strict=True):
        np.testing.assert_array_equal(array, other)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key


def test_there_are_enough_of_them():
    assert len(ARCHITECTURES) >= 40
