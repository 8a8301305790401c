"""Statistics of batch norms, estimated anew once weights have moved (Wu and Johnson, arXiv 2105.07576).

Over batches i of n_i samples, each normalised by its own statistics m_i and v_i on the way,

    mean = sum n_i m_i / sum n_i,      variance = sum n_i (v_i + m_i^2) / sum n_i - mean^2
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from toolchain.compress.recovery.teaching import tensors_of
from toolchain.engine.module import GraphModule
from toolchain.graph import Op
from toolchain.samples import Batch


def has_batch_norms(module: GraphModule) -> bool:
    """Whether there is anything to estimate."""
    return any(node.op is Op.BATCH_NORM for node in module.graph.nodes)


def reestimate(module: GraphModule, batches: Iterable[Batch], device: torch.device) -> None:
    """Set the statistics of all batch norms of `module` to those of `batches`."""
    statistics = [node.inputs[3:5] for node in module.graph.nodes if node.op is Op.BATCH_NORM]
    held = dict(module.named_buffers())
    sums: dict[str, Tensor] = {}
    total = 0
    module.use_batch_statistics(momentum=1.0)
    with torch.no_grad():
        for batch in batches:
            module(*tensors_of(batch, device))
            total += len(batch)
            for mean, variance in statistics:
                first, second = held[mean].double(), held[variance].double()
                sums[mean] = sums.get(mean, 0.0) + len(batch) * first
                sums[variance] = sums.get(variance, 0.0) + len(batch) * (second + first.square())
        for mean, variance in statistics:
            if total:
                center = sums[mean] / total
                held[mean].copy_(center)
                held[variance].copy_((sums[variance] / total - center.square()).clamp_min(0))
    module.use_batch_statistics(None)
