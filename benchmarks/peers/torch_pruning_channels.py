"""Peer: Torch-Pruning, channels by group norm to a share of the MACs, then the same training as ours has.

    python torch_pruning_channels.py --state X.pt --images X.npz --keep 0.5 --epochs 1 --rate 1e-3 --json out.json

`tp.pruner.MagnitudePruner` with `GroupMagnitudeImportance(p=2)` as its documents show, counts rounded to 8, the ratio
that comes nearest to the share of MACs.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from residual import SIZE, ResNet20, accuracy, learn

ROUND_TO = 8


def pruned(network: ResNet20, keep: float) -> tuple[torch.nn.Module, float]:
    """The network at the ratio that comes nearest to this share of the MACs, and the share it has."""
    example = torch.zeros(1, 3, SIZE, SIZE)
    whole, _ = tp.utils.count_ops_and_params(network, example)
    found: dict[float, torch.nn.Module] = {}
    for ratio in np.arange(0.05, 0.95, 0.01):
        smaller = copy.deepcopy(network)
        pruner = tp.pruner.MagnitudePruner(
            smaller,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=float(ratio),
            ignored_layers=[smaller.classes],
            round_to=ROUND_TO,
        )
        pruner.step()
        macs, _ = tp.utils.count_ops_and_params(smaller, example)
        found.setdefault(macs / whole, smaller)
    share = min(found, key=lambda share: abs(share - keep))
    return found[share], share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--keep", type=float, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = ResNet20()
    network.load_state_dict(torch.load(arguments.state, weights_only=True))
    found = dict(np.load(arguments.images))
    smaller, share = pruned(network.eval(), arguments.keep)
    before = accuracy(smaller.eval(), found["test"], found["test_labels"])
    learn(smaller, found["train"], found["train_labels"], epochs=arguments.epochs, rate=arguments.rate)
    after = accuracy(smaller, found["test"], found["test_labels"])
    result = {"macs_share": share, "before": before, "after": after, "version": tp.__version__}
    arguments.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
