"""Products of matrices: matmul and its kin, einsum, attention; transposes of the last two axes are free in TFLite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ops.harness import check, normal, operators, traced
from toolchain.errors import UnsupportedError
from toolchain.graph import Op

LEFT, RIGHT = normal(2, 5, 8), normal(2, 8, 6, seed=1)
ROWS, COLUMNS = normal(5, 8), normal(8, 6, seed=1)
VECTOR = normal(8, seed=2)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 5, 8), (2, 8, 6)),
        ((2, 3, 5, 8), (2, 3, 8, 6)),
        ((2, 3, 5, 8), (2, 1, 8, 6)),
        ((1, 5, 8), (1, 3, 8, 6)),
        ((2, 2, 3, 5, 8), (2, 2, 3, 8, 6)),
        ((2, 2, 1, 5, 8), (2, 1, 3, 8, 6)),
        ((1, 2, 2, 3, 5, 8), (1, 2, 2, 3, 8, 6)),
    ],
)
def test_ranks(shapes):
    left, right = (normal(*shape, seed=n) for n, shape in enumerate(shapes))
    check(torch.matmul, left, right, ops={Op.MATMUL})


def _of_a_sample(function, *operands):
    """Operands without an axis for the batch."""
    check(lambda *inputs: function(*(x[0] for x in inputs))[None], *(x[None] for x in operands))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (ROWS, COLUMNS),
        (ROWS, RIGHT),
        (ROWS, VECTOR),
        (VECTOR, COLUMNS),
        (VECTOR, RIGHT),
        (LEFT, VECTOR),
        (VECTOR, normal(8, seed=3)),
    ],
)
def test_matrices_and_vectors(left, right):
    _of_a_sample(torch.matmul, left, right)


def test_the_other_names():
    check(torch.bmm, LEFT, RIGHT)
    _of_a_sample(torch.mm, ROWS, COLUMNS)
    _of_a_sample(torch.mv, ROWS, VECTOR)
    _of_a_sample(torch.dot, VECTOR, VECTOR)
    _of_a_sample(torch.outer, VECTOR, ROWS[:, 0].copy())
    _of_a_sample(torch.inner, ROWS, normal(6, 8, seed=1))


@pytest.mark.parametrize("scales", [{}, {"beta": 0.5, "alpha": 2.0}, {"beta": 0}])
def test_products_that_are_added(scales):
    _of_a_sample(lambda x, y, z: torch.addmm(x, y, z, **scales), normal(6, seed=2), ROWS, COLUMNS)
    _of_a_sample(lambda x, y, z: torch.addmv(x, y, z, **scales), normal(5, seed=2), ROWS, VECTOR)
    check(lambda x, y, z: torch.baddbmm(x, y, z, **scales), normal(2, 5, 6, seed=2), LEFT, RIGHT)


def test_transposes_of_the_last_two_axes_are_read_by_the_operator():
    graph = check(lambda x, y: x.mT @ y.mT, normal(2, 8, 5), normal(2, 6, 8, seed=1), ops={Op.MATMUL})
    assert "TRANSPOSE" not in operators(graph)


class _Constant(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(normal(*shape, seed=4)))


class _OnTheRight(_Constant):
    def forward(self, x):
        return x @ self.weight


class _Transposed(_Constant):
    def forward(self, x):
        return x @ self.weight.T


class _OnTheLeft(_Constant):
    def forward(self, x):
        return self.weight @ x


class _Added(_Constant):
    def forward(self, x):
        return torch.addmm(self.weight[0], x, self.weight)


@pytest.mark.parametrize(("module", "x"), [(_OnTheRight(8, 6), LEFT), (_Transposed(6, 8), LEFT), (_Added(8, 6), ROWS)])
def test_a_constant_matrix_on_the_right_makes_a_linear_layer(module, x):
    graph = check(module, x, ops={Op.LINEAR})
    assert Op.MATMUL not in {node.op for node in graph.nodes}


def test_other_constants_stay_operands():
    check(_OnTheLeft(4, 5), LEFT, ops={Op.MATMUL})
    check(_OnTheRight(2, 8, 6), LEFT, ops={Op.MATMUL})


def test_a_linear_layer_whose_weight_is_computed():
    weight, bias = normal(6, 8, seed=1), normal(6, seed=2)
    _of_a_sample(F.linear, LEFT, weight, bias)
    _of_a_sample(F.linear, ROWS, weight)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((5, 8), (8, 6))),
        ("bij,bkj->bik", ((2, 5, 8), (2, 6, 8))),
        ("bqhd,bkhd->bhqk", ((2, 5, 3, 8), (2, 6, 3, 8))),
        ("bhqk,bkhd->bqhd", ((2, 3, 5, 6), (2, 6, 3, 8))),
        ("bijk,jkl->bil", ((2, 5, 3, 4), (3, 4, 6))),
        ("bchw,hkc->bkhw", ((2, 4, 5, 3), (5, 6, 4))),
        ("bi,bj->bij", ((2, 5), (2, 6))),
        ("bi,bi->bi", ((2, 5), (2, 5))),
        ("bi,bi->b", ((2, 5), (2, 5))),
        ("bi,bi->", ((2, 5), (2, 5))),
        ("...ij,...jk->...ik", ((2, 3, 5, 8), (2, 3, 8, 6))),
        ("bij,bjk", ((2, 5, 8), (2, 8, 6))),
        ("bijx,bjk->bik", ((2, 5, 8, 3), (2, 8, 6))),
        ("b i j , j k -> k b", ((2, 5, 8), (8, 6))),
    ],
)
def test_einsum(equation, shapes):
    left, right = (normal(*shape, seed=n) for n, shape in enumerate(shapes))
    _of_a_sample(lambda x, y: torch.einsum(equation, x, y), left, right)
    if equation[0] != "." and shapes[0][0] == shapes[1][0]:
        check(lambda x, y: torch.einsum(equation, x, y)[None], left[:1], right[:1])


def test_einsum_of_one_and_of_three():
    _of_a_sample(lambda x: torch.einsum("bij->jb", x), LEFT)
    _of_a_sample(lambda x, y, z: torch.einsum("bij,bjk,kl->bil", x, y, z), LEFT, RIGHT, normal(6, 3, seed=2))


def test_einsum_with_a_weight_makes_a_linear_layer():
    weight = torch.from_numpy(normal(6, 8, seed=1))
    for equation, operands in (("bld,kd->blk", 0), ("kd,bld->blk", 1)):
        graph = check(lambda x: torch.einsum(equation, *((x, weight) if operands == 0 else (weight, x))), LEFT)  # noqa: B023
        assert [node.op for node in graph.nodes] == [Op.LINEAR]


def test_a_diagonal_is_refused():
    with pytest.raises(UnsupportedError, match="diagonal"):
        traced(lambda x: torch.einsum("bii->bi", x), normal(2, 4, 4))


HEADS = tuple(normal(2, 4, steps, 8, seed=n, scale=1.0) for n, steps in enumerate((5, 7, 7)))
SHARED = (HEADS[0], HEADS[1][:, :2], HEADS[2][:, :2])
KEPT = np.arange(35).reshape(5, 7) % 3 != 0

ATTENTIONS = {
    "plain": (HEADS, {}),
    "scale": (HEADS, {"scale": 0.3}),
    "causal": (HEADS, {"is_causal": True}),
    "boolean mask": (HEADS, {"attn_mask": torch.from_numpy(KEPT)}),
    "real mask": (HEADS, {"attn_mask": torch.from_numpy(normal(5, 7, seed=5, scale=1.0))}),
    "shared heads": (SHARED, {"enable_gqa": True}),
    "shared heads, causal": (SHARED, {"enable_gqa": True, "is_causal": True}),
    "one head": (tuple(x[:, 0] for x in HEADS), {"is_causal": True}),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention(name):
    inputs, options = ATTENTIONS[name]
    check(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), *inputs, ops={Op.MATMUL, Op.SOFTMAX})


def test_attention_under_a_mask_that_is_given():
    kept = np.broadcast_to(KEPT, (2, 1, 5, 7)).copy()
    check(F.scaled_dot_product_attention, *HEADS, kept, ops={Op.MATMUL, Op.SOFTMAX})


class _SelfAttention(nn.Module):
    """(N, L, C), heads taken apart and joined as users write it: four permutes."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.projections = nn.Linear(features, 3 * features)
        self.heads = heads

    def forward(self, x):
        apart = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.projections(x).chunk(3, -1))
        return F.scaled_dot_product_attention(*apart).transpose(1, 2).flatten(2)


def test_attention_costs_the_permutes_of_the_model_alone():
    torch.manual_seed(0)
    graph = check(_SelfAttention(8, 2), normal(2, 5, 8, scale=1.0), error=1e-5)
    assert operators(graph).get("TRANSPOSE", 0) <= 4


class _OfOnePermute(_SelfAttention):
    """Queries, keys and values cut from one permuted tensor."""

    def forward(self, x):
        batch, steps, features = x.shape
        apart = self.projections(x).reshape(batch, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = apart[0] @ apart[1].mT * (features // self.heads) ** -0.5
        return (scores.softmax(-1) @ apart[2]).transpose(1, 2).reshape(batch, steps, features)


def test_one_transpose_serves_queries_keys_and_values():
    torch.manual_seed(0)
    graph = check(_OfOnePermute(8, 2), normal(1, 5, 8, scale=1.0))
    assert operators(graph)["TRANSPOSE"] == 2


class _SharedHeads(nn.Module):
    """Each head of the keys and values serves two of the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        query, key, value = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        key, value = (z[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for z in (key, value))
        return F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)


def test_heads_are_repeated_where_they_lie():
    torch.manual_seed(0)
    graph = check(_SharedHeads(), normal(1, 5, 8, scale=1.0))
    assert operators(graph)["TRANSPOSE"] == 4


class _MultiHead(nn.Module):
    def __init__(self, need_weights: bool, batch_first: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.need_weights = need_weights

    def forward(self, x, ignored=None):
        y, weights = self.attention(x, x, x, key_padding_mask=ignored, need_weights=self.need_weights)
        return (y, weights) if self.need_weights else y


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention(need_weights, batch_first):
    torch.manual_seed(0)
    check(_MultiHead(need_weights, batch_first), normal(1, 5, 8, scale=1.0), ops={Op.MATMUL, Op.SOFTMAX})


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_ignores_what_is_padding(need_weights):
    torch.manual_seed(0)
    ignored = np.array([[0, 0, 0, 1, 1]], bool)
    check(_MultiHead(need_weights), normal(1, 5, 8, scale=1.0), ignored, ops={Op.SOFTMAX})
