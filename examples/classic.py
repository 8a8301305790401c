"""The classic example: Linear 10-20, ReLU, Linear 20-10 loses the half of its hidden nodes that matters least."""

import torch
from torch import nn

from toolchain import Prune, Trace, format_graph

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 10))
with torch.no_grad():
    model[2].weight[:, ::2] *= 0.01  # what the even nodes say hardly reaches the output

pruned = Prune(ratio=0.5)(Trace(example_inputs=(torch.zeros(1, 10),))(model))
print(format_graph(pruned.graph, sources=False))

kept = pruned.graph.constants["0.weight"]
assert kept.shape == (10, 10)
assert (kept == model[0].weight.detach().numpy()[1::2]).all(), "the ten odd nodes are kept"
