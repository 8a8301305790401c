"""Sums, and what is made of them: norms, logsumexp, variances, products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op

X = normal(1, 4, 5, 6)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("axes", [1, (1, 2), (2, 3), -1, (1, 2, 3)])
def test_sum(axes, keepdim):
    check(lambda x: x.sum(axes, keepdim), X, ops={Op.SUM})


def test_sum_of_all_and_of_what_is_counted():
    check(
        lambda x: (x.sum()[None], (x > 0).sum(1), x.relu().count_nonzero(1), (x > 1).sum((2, 3), dtype=torch.float32)),
        X,
    )


@pytest.mark.parametrize("order", [1, 2, 3, 2.5, np.inf, -np.inf])
def test_vector_norms(order):
    check(lambda x: (torch.linalg.vector_norm(x, order, dim=1), torch.linalg.vector_norm(x, order, dim=(2, 3))), X)


def test_norms_under_their_other_names():
    check(lambda x: (x.norm()[None], x.norm(dim=1, keepdim=True), x.norm(1, dim=2), torch.linalg.norm(x, dim=-1)), X)
    check(lambda x: (torch.linalg.norm(x, dim=(2, 3)), torch.norm(x, "fro", dim=(1, 2))), X)


@pytest.mark.parametrize("order", [1, 2])
def test_normalize(order):
    check(lambda x: (F.normalize(x, order), F.normalize(x, order, dim=-1)), X)


def test_distances():
    y = normal(1, 4, 5, 6, seed=1)
    check(lambda x, y: (F.pairwise_distance(x, y), F.pairwise_distance(x, y, 1, keepdim=True)), X, y)
    check(torch.linalg.vecdot, X, y)


def test_cosine_similarity():
    check(lambda x, y: F.cosine_similarity(x, y, dim=1), X, normal(1, 4, 5, 6, seed=1))


@pytest.mark.parametrize("axes", [1, (2, 3)])
def test_logsumexp(axes):
    check(lambda x: (x.logsumexp(axes), x.logsumexp(axes, True)), X)
    check(lambda x: x.logsumexp(axes), X * 30, int8=False)


VARIANCES = {
    "of all": lambda x: (x.var()[None], x.std()[None], x.var(unbiased=False)[None]),
    "axis": lambda x: (x.var(1), x.std(1), x.var(1, keepdim=True)),
    "axes": lambda x: (x.var((2, 3)), x.std((2, 3), unbiased=False, keepdim=True)),
    "correction": lambda x: (x.var(1, correction=0), x.std(1, correction=2), x.var((1, 2), correction=0, keepdim=True)),
    "with the mean": lambda x: (*torch.var_mean(x, 1), *torch.std_mean(x, (2, 3), keepdim=True, correction=0)),
    "with the mean, older form": lambda x: (*torch.var_mean(x, 1, unbiased=False), *torch.std_mean(x, [1], True, True)),
}


@pytest.mark.parametrize("name", VARIANCES)
def test_variances(name):
    check(VARIANCES[name], X)


def test_products():
    x = normal(1, 4, 5, seed=1, scale=1.0)
    check(lambda x: (x.prod(1), x.prod(2, keepdim=True), x[:, :2, :2].prod()[None]), x)


def test_softmin():
    check(lambda x: F.softmin(x, 1), X)
