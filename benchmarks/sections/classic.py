"""The classic example of channel pruning: Linear 10-20, ReLU, Linear 20-10 loses half of its hidden nodes."""

from __future__ import annotations

import numpy as np
from bars import Bar, Findings
from workshop import Workshop

WIDTH, HIDDEN = 10, 20


def measure_section(shop: Workshop, quick: bool) -> Findings:
    import torch

    from toolchain.stages.prune import Prune
    from toolchain.stages.trace import Trace

    found = Findings(
        "classic", f"Linear {WIDTH}-{HIDDEN}, ReLU, Linear {HIDDEN}-{WIDTH} pruned to half its hidden nodes"
    )
    torch.manual_seed(0)
    first, second = torch.nn.Linear(WIDTH, HIDDEN), torch.nn.Linear(HIDDEN, WIDTH)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), second)
    traced = Trace(example_inputs=(np.zeros((1, WIDTH), np.float32),))(network)
    pruned = Prune(ratio=0.5)(traced)
    weights = [array for array in pruned.graph.constants.values() if array.ndim == 2]
    shape = ", ".join(f"Linear {w.shape[1]}-{w.shape[0]}" for w in weights)
    kept = HIDDEN // 2
    wanted = f"Linear {WIDTH}-{kept}, Linear {kept}-{WIDTH}"
    found.bars.append(_bar("what is left", wanted, shape))
    # how much a node lets through: the size of what makes it times the size of what reads it
    made = torch.cat([first.weight, first.bias[:, None]], 1).norm(dim=1)
    importance = (made * second.weight.norm(dim=0)).detach().numpy()
    best = np.sort(np.argsort(-importance)[:kept])
    same = int((weights[0][:, None] == first.weight.detach().numpy()[best][None]).all(2).any(0).sum())
    found.bars.append(_bar("of the ten most important nodes, kept", str(kept), str(same)))
    found.facts = {"left": shape, "kept": same}
    return found


def _bar(what: str, wanted: str, measured: str) -> Bar:
    return Bar(what, wanted, measured, wanted == measured)
