"""ATen ops that move, select, repeat or make tensors: cases for the tests of the tracing rules."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

IMAGE, ROW, ROWS = (2, 4, 8, 6), (3, 8), (2, 5, 8)
aten = torch.ops.aten


class Fn(nn.Module):
    """A function of the input; `layers` are what it may call."""

    def __init__(self, function: Callable, *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


# (ATen op, module, input shape)
MOVES: list[tuple[str, nn.Module, tuple[int, ...]]] = [
    ("permute", Fn(lambda x: x.permute(0, -1, 1, 2)), IMAGE),
    ("swapaxes", Fn(lambda x: x.swapaxes(1, 2)), IMAGE),
    ("swapdims", Fn(lambda x: x.swapdims(-1, 1)), IMAGE),
    ("movedim", Fn(lambda x: x.movedim((1, 2), (3, 1))), IMAGE),
    ("moveaxis", Fn(lambda x: x.moveaxis(-1, 1)), IMAGE),
    ("mT", Fn(lambda x: x.mT), IMAGE),
    ("mH", Fn(lambda x: x.mH), IMAGE),
    ("adjoint", Fn(lambda x: x.adjoint()), IMAGE),
    ("numpy_T", Fn(lambda x: x[:, 0, 0].T.sum(0)), IMAGE),
    ("matrix_H", Fn(lambda x: x[:, 0, 0].H.sum(0)), IMAGE),
    ("concat", Fn(lambda x: torch.concat((x, x), 1)), IMAGE),
    ("concatenate", Fn(lambda x: torch.concatenate((x, x), 1)), IMAGE),
    ("hstack", Fn(lambda x: torch.hstack((x, x))), IMAGE),
    ("vstack", Fn(lambda x: torch.vstack((x, x))[:2]), IMAGE),
    ("row_stack", Fn(lambda x: torch.row_stack((x, x))[:2]), IMAGE),
    ("dstack", Fn(lambda x: torch.dstack((x, x))), IMAGE),
    ("column_stack", Fn(lambda x: torch.column_stack((x, x))), ROW),
    ("unsafe_split", Fn(lambda x: torch.unsafe_split(x, 3, 1)[1]), IMAGE),
    ("unsafe_split_with_sizes", Fn(lambda x: torch.unsafe_split_with_sizes(x, [1, 3], 1)[1]), IMAGE),
    ("unsafe_chunk", Fn(lambda x: torch.unsafe_chunk(x, 2, 1)[1]), IMAGE),
    ("tensor_split", Fn(lambda x: x.tensor_split(3, 2)[1]), IMAGE),
    ("tensor_split", Fn(lambda x: x.tensor_split((2, -1), 3)[1]), IMAGE),
    ("hsplit", Fn(lambda x: torch.hsplit(x, 2)[1]), IMAGE),
    ("vsplit", Fn(lambda x: torch.cat(torch.vsplit(x, 2))), IMAGE),
    ("dsplit", Fn(lambda x: torch.dsplit(x, (1, 3))[1]), IMAGE),
    ("unbind", Fn(lambda x: x.unbind(1)[2]), IMAGE),
    ("expand", Fn(lambda x: x[:, :1].expand(-1, 3, -1, -1)), IMAGE),
    ("expand_as", Fn(lambda x: x[:, :1].expand_as(x)), IMAGE),
    ("broadcast_to", Fn(lambda x: torch.broadcast_to(x[:, :1], x.shape)), IMAGE),
    ("broadcast_tensors", Fn(lambda x: torch.broadcast_tensors(x[:, :1], x)[0]), IMAGE),
    ("meshgrid", Fn(lambda x: x + torch.meshgrid(x[0, 0, 0], x[0, 0, :, 0], indexing="xy")[1]), (1, 1, 4, 4)),
    ("repeat", Fn(lambda x: x.repeat(1, 2, 1, 9)), IMAGE),
    ("tile", Fn(lambda x: x.tile(2)), IMAGE),
    ("repeat_interleave", Fn(lambda x: x.repeat_interleave(2, 1)), IMAGE),
    ("repeat_interleave", Fn(lambda x: x.repeat_interleave(torch.tensor([1, 0, 2, 1]), 1)), IMAGE),
    ("flip", Fn(lambda x: x.flip(1, -1)), IMAGE),
    ("fliplr", Fn(torch.fliplr), IMAGE),
    ("flipud", Fn(torch.flipud), (1, 4)),
    ("rot90", Fn(lambda x: torch.rot90(x, 3, (2, 3))), IMAGE),
    ("roll", Fn(lambda x: torch.roll(x, (1, -2), (2, 3))), IMAGE),
    ("roll", Fn(lambda x: torch.roll(x, 3)), (1, 4, 4)),
    ("tril", Fn(lambda x: x.tril(1)), IMAGE),
    ("triu", Fn(lambda x: x.triu(-1)), IMAGE),
    ("diagonal", Fn(lambda x: x.diagonal(-1, 2, 3)), IMAGE),
    ("diag_embed", Fn(lambda x: x.diag_embed(1)), ROWS),
    ("unfold", Fn(lambda x: x.unfold(2, 3, 2)), IMAGE),
    ("im2col", nn.Unfold((3, 2), padding=(1, 0), stride=2), IMAGE),
    ("ravel", Fn(lambda x: x[0].ravel()[None]), (1, 4)),
    ("view_as", Fn(lambda x: x.view_as(torch.ones(2, 8, 24))), IMAGE),
    ("reshape_as", Fn(lambda x: x.reshape_as(torch.ones(2, 8, 24))), IMAGE),
    ("atleast_1d", Fn(torch.atleast_1d), ROW),
    ("atleast_2d", Fn(torch.atleast_2d), ROW),
    ("atleast_3d", Fn(torch.atleast_3d), ROW),
    ("type_as", Fn(lambda x: (x > 0).type_as(x)), IMAGE),
    ("index", Fn(lambda x: x[:, [2, 0, 3]]), IMAGE),
    ("index", Fn(lambda x: x[:, :, [0, 5], [1, 2]]), IMAGE),
    ("index_select", Fn(lambda x: x.index_select(1, torch.tensor([2, 0]))), IMAGE),
    ("gather", Fn(lambda x: x.gather(1, (x > 0).long())), IMAGE),
    ("take_along_dim", Fn(lambda x: torch.take_along_dim(x, (x[:, :1] > 0).long(), 1)), IMAGE),
    ("embedding", Fn(lambda x, e: e((x > 0).long()), nn.Embedding(3, 4)), ROW),
    ("embedding_bag", Fn(lambda x, e: e((x > 0).long()), nn.EmbeddingBag(3, 4)), ROW),
    ("one_hot", Fn(lambda x: F.one_hot((x > 0).long(), 3) * x[..., None]), ROW),
    ("slice_scatter", Fn(lambda x: torch.slice_scatter(x, x[:, :2], 1, 1, 3)), IMAGE),
    ("select_scatter", Fn(lambda x: torch.select_scatter(x, x[:, 0], 1, 2)), IMAGE),
    ("copy_", Fn(lambda x: torch.empty_like(x).copy_(x[:, :1]) + x), IMAGE),
    ("copy", Fn(lambda x: aten.copy(x, x[:, :1])), IMAGE),
    ("index_put", Fn(lambda x: x.index_put((torch.tensor([0, 1]),), torch.tensor(0.5))), IMAGE),
    ("_unsafe_index", Fn(lambda x: aten._unsafe_index(x, [None, torch.tensor([2, 0])])), IMAGE),
    ("_unsafe_index_put", Fn(lambda x: aten._unsafe_index_put(x, [None, torch.tensor([2])], x[:, :1])), IMAGE),
    ("scatter", Fn(lambda x: x.scatter(1, torch.zeros(2, 1, 8, 6, dtype=torch.long), x[:, 1:])), IMAGE),
    ("scatter", Fn(lambda x: x.scatter(1, torch.ones(2, 1, 8, 6, dtype=torch.long), 2.0)), IMAGE),
    ("index_fill", Fn(lambda x: x.index_fill(1, torch.tensor([0, 2]), 0.5)), IMAGE),
    ("zeros", Fn(lambda x: x + torch.zeros(6)), IMAGE),
    ("zeros_like", Fn(lambda x: x + torch.zeros_like(x)), IMAGE),
    ("new_zeros", Fn(lambda x: x + x.new_zeros(6)), IMAGE),
    ("ones", Fn(lambda x: x + torch.ones(6)), IMAGE),
    ("ones_like", Fn(lambda x: x + torch.ones_like(x)), IMAGE),
    ("new_ones", Fn(lambda x: x + x.new_ones(6)), IMAGE),
    ("empty", Fn(lambda x: x + torch.empty(6).fill_(2.0)), IMAGE),
    ("empty_like", Fn(lambda x: x + torch.empty_like(x).zero_()), IMAGE),
    ("new_empty", Fn(lambda x: x + x.new_empty(6).fill_(x[0, 0, 0, 0])), (1, 1, 2, 6)),
    ("empty_permuted", Fn(lambda x: x + torch.empty_permuted((6, 8), (1, 0)).fill_(1.0).T), IMAGE),
    ("empty_strided", Fn(lambda x: x + torch.empty_strided((6,), (1,)).fill_(1.0)), IMAGE),
    ("full", Fn(lambda x: x + torch.full((6,), 2.0)), IMAGE),
    ("full_like", Fn(lambda x: x + torch.full_like(x, 2.0)), IMAGE),
    ("new_full", Fn(lambda x: x + x.new_full((6,), 2.0)), IMAGE),
    ("scalar_tensor", Fn(lambda x: x + torch.scalar_tensor(2.0)), IMAGE),
    ("fill_", Fn(lambda x: x + torch.empty(6).fill_(2.0)), IMAGE),
    ("fill", Fn(lambda x: x + torch.fill(x, 2.0)), IMAGE),
    ("zero", Fn(lambda x: x + aten.zero(x)), IMAGE),
    ("arange", Fn(lambda x: x + torch.arange(1, 7)), IMAGE),
    ("linspace", Fn(lambda x: x + torch.linspace(0, 1, 6)), IMAGE),
    ("logspace", Fn(lambda x: x + torch.logspace(0, 1, 6)), IMAGE),
    ("eye", Fn(lambda x: x[..., :6, :] + torch.eye(6)), IMAGE),
]
