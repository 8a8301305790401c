"""Speaker verification: are two recordings of one voice? Judged by the equal error rate of cosine similarities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hard.network import Array


def share_verified(outputs: Sequence[Array], labels: Array | None) -> float:
    """1 - EER over all pairs of embeddings (N, width); labels (N,) are the speakers."""
    assert labels is not None
    embeddings = outputs[0].astype(np.float64)
    embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    first, second = np.triu_indices(len(labels), 1)
    similarity = (embeddings @ embeddings.T)[first, second]
    return 1 - equal_error_rate(similarity, (labels[:, None] == labels)[first, second])


def equal_error_rate(scores: Array, same: Array) -> float:
    """Where as many pairs of one speaker are refused as pairs of two are accepted.

    Ties are thresholds of their own: a network that gives everybody one embedding has a rate of 1/2.
    """
    values, where = np.unique(scores, return_inverse=True)
    refused = np.concatenate([[0], np.cumsum(np.bincount(where, same, len(values)))]) / same.sum()
    accepted = 1 - np.concatenate([[0], np.cumsum(np.bincount(where, ~same, len(values)))]) / (~same).sum()
    crossing = int(np.argmax(refused >= accepted))
    before = crossing - 1
    gap_before, gap = accepted[before] - refused[before], refused[crossing] - accepted[crossing]
    part = gap_before / (gap_before + gap) if gap_before + gap else 0.0
    return float(refused[before] + part * (refused[crossing] - refused[before]))
