"""softmax along any axis, and before it masks, whose depth must not cost the other values their integers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, eager, normal, quantized
from toolchain.engine.simulate import Simulator
from toolchain.graph import Op
from toolchain.quantization import dequantize, quantize_inputs


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_softmax(axis):
    check(lambda x: F.softmax(x, axis), normal(1, 4, 5, 6), ops={Op.SOFTMAX})


CAUSAL = torch.full((6, 6), -torch.inf).triu(1)
KEPT = np.float32([[[[1, 1, 1, 1, 0, 0]]]])
MASKS = {
    "added, infinite": lambda x, kept: x * 0.7 + CAUSAL + kept * 0,
    "added, large": lambda x, kept: x * 0.7 + CAUSAL.clamp_min(-1e9) + kept * 0,
    "added, computed": lambda x, kept: x * 0.7 + (1 - kept) * torch.finfo(torch.float32).min,
    "added twice": lambda x, kept: x * 0.7 + (1 - kept) * -1e4 + CAUSAL,
    "chosen, infinite": lambda x, kept: (x * 0.7).masked_fill(kept == 0, -torch.inf),
    "chosen, large, scaled": lambda x, kept: x.masked_fill(kept == 0, -1e9) * 0.7,
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_leave_the_rest_its_resolution(name):
    inputs = (normal(1, 4, 6, 6), KEPT)
    module = lambda x, kept: F.softmax(MASKS[name](x, kept), -1)  # noqa: E731
    graph = check(module, *inputs, ops={Op.SOFTMAX})
    model = quantized(graph, *inputs)
    (softmax,) = (node for node in graph.nodes if node.op is Op.SOFTMAX)
    # 16 below what is not masked, once a mask, and the values themselves
    assert model.params[softmax.inputs[0]].step <= (2 * 16 + 2 * np.ptp(inputs[0])) / 255
    simulated = Simulator(model).run(quantize_inputs(model, inputs))[softmax.output]
    found = dequantize(simulated, model.params[softmax.output])
    assert np.abs(found - eager(module, *inputs)[0]).max() < 0.05
    assert not found[eager(module, *inputs)[0] == 0].any()
