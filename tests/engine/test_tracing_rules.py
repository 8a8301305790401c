"""Every ATen op that the tracer knows, through a small module: what is traced computes what torch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.engine.move_cases import MOVES, Fn
from toolchain.engine.run import run, to_tensors
from toolchain.engine.tracing.rules import ATEN_RULES, IDENTITIES, RESHAPES
from toolchain.engine.tracing.rules.resizing import REFUSED as KNOWN_AND_REFUSED
from toolchain.engine.tracing.tracer import export, trace
from toolchain.errors import UnsupportedError
from toolchain.graph import Op

aten = torch.ops.aten


def norm(kind=nn.BatchNorm2d, **options) -> nn.Module:
    layer = kind(4, **options)
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    return layer


IMAGE, ODD, ROW, ROWS = (2, 4, 8, 6), (2, 4, 7, 5), (3, 8), (2, 5, 8)

# (ATen op, module, input shape); the op must be in the program, or the case tests nothing
CASES: list[tuple[str, nn.Module, tuple[int, ...]]] = [
    ("conv2d", nn.Conv2d(4, 6, 3), IMAGE),
    ("conv2d", nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(2, 1), bias=False), IMAGE),
    ("conv2d", nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, 3, groups=4), IMAGE),
    ("conv2d", nn.Conv2d(4, 12, 3, groups=4, padding=1), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, (4, 3), padding="same", dilation=(1, 2)), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, 2, padding="same"), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, 3, padding="valid"), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, 3, padding=2, padding_mode="reflect"), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, 3, padding=2, padding_mode="circular"), IMAGE),
    ("conv1d", nn.Conv1d(5, 6, 3, stride=2, padding=1), ROWS),
    ("conv1d", nn.Conv1d(5, 10, 4, padding="same", dilation=2, groups=5), ROWS),
    ("conv_transpose2d", nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), IMAGE),
    ("conv_transpose2d", nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), (2, 1), groups=2, dilation=(1, 3)), IMAGE),
    ("conv_transpose2d", Fn(lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 3, 3) / 9, stride=2)), IMAGE),
    ("conv_transpose1d", nn.ConvTranspose1d(5, 10, 4, stride=3, padding=1, output_padding=2, groups=5), ROWS),
    ("linear", nn.Linear(8, 5), ROW),
    ("linear", nn.Linear(8, 5, bias=False), ROWS),
    ("linear", nn.Linear(6, 5), IMAGE),
    ("batch_norm", norm(), IMAGE),
    ("batch_norm", norm(affine=False), IMAGE),
    ("batch_norm", norm(eps=0.1), IMAGE),
    ("batch_norm", norm(nn.BatchNorm1d), (3, 4)),
    ("relu", Fn(lambda x: x.relu()), IMAGE),
    ("relu6", Fn(aten.relu6), IMAGE),
    ("hardtanh", Fn(lambda x: F.hardtanh(x, 0, 6)), IMAGE),
    ("clamp", Fn(lambda x: x.clamp(0, 6)), IMAGE),
    ("clamp", Fn(lambda x: x.clamp(min=0)), IMAGE),
    ("clamp_min", Fn(lambda x: x.clamp_min(0.0)), IMAGE),
    ("leaky_relu", Fn(F.leaky_relu), IMAGE),
    ("leaky_relu", nn.LeakyReLU(0.3), IMAGE),
    ("sigmoid", nn.Sigmoid(), IMAGE),
    ("tanh", nn.Tanh(), IMAGE),
    ("hardswish", nn.Hardswish(), IMAGE),
    ("hardsigmoid", nn.Hardsigmoid(), IMAGE),
    ("silu", nn.SiLU(), IMAGE),
    ("softmax", nn.Softmax(dim=-1), ROW),
    ("softmax", Fn(lambda x: F.softmax(x, dim=1)), IMAGE),
    ("add", Fn(lambda x: x + 1.5), IMAGE),
    ("add", Fn(lambda x: torch.add(x, x.relu(), alpha=0.5)), IMAGE),
    ("sub", Fn(lambda x: x.relu() - x), IMAGE),
    ("sub", Fn(lambda x: torch.sub(x, x.relu(), alpha=3)), IMAGE),
    ("rsub", Fn(lambda x: 2 - x), IMAGE),
    ("rsub", Fn(lambda x: torch.rsub(x, x.relu(), alpha=2)), IMAGE),
    ("mul", Fn(lambda x: 3 * x * x.relu()), IMAGE),
    ("div", Fn(lambda x: x / 4), IMAGE),
    ("clamp", Fn(lambda x: x.clamp(-0.5, 0.7)), IMAGE),
    ("clamp", Fn(lambda x: torch.clamp(x, x.relu() - 1, x.relu())), IMAGE),
    ("clamp_max", Fn(lambda x: x.clamp_max(0.3)), IMAGE),
    ("hardtanh", nn.Hardtanh(), IMAGE),
    ("prelu", nn.PReLU(4), IMAGE),
    ("prelu", nn.PReLU(), IMAGE),
    ("elu", Fn(lambda x: F.elu(x, 0.5)), IMAGE),
    ("selu", Fn(F.selu), IMAGE),
    ("celu", Fn(lambda x: F.celu(x, 1.5)), IMAGE),
    ("gelu", Fn(F.gelu), IMAGE),
    ("gelu", Fn(lambda x: F.gelu(x, approximate="tanh")), IMAGE),
    ("mish", Fn(F.mish), IMAGE),
    ("softplus", Fn(lambda x: F.softplus(x, 2.0, 3.0)), IMAGE),
    ("log_sigmoid", Fn(F.logsigmoid), IMAGE),
    ("glu", Fn(lambda x: F.glu(x, 1)), IMAGE),
    ("threshold", Fn(lambda x: F.threshold(x, 0.1, 2.0)), IMAGE),
    ("threshold", Fn(lambda x: F.threshold(x, 0, 0)), IMAGE),
    ("softshrink", Fn(F.softshrink), IMAGE),
    ("hardshrink", Fn(F.hardshrink), IMAGE),
    ("log_softmax", Fn(lambda x: F.log_softmax(x, 1)), IMAGE),
    ("div", Fn(lambda x: x / (x.relu() + 1)), IMAGE),
    ("div", Fn(lambda x: torch.div(x, 2, rounding_mode="floor")), IMAGE),
    ("div", Fn(lambda x: torch.div(x, 2, rounding_mode="trunc")), IMAGE),
    ("floor_divide", Fn(lambda x: x // 2), IMAGE),
    ("remainder", Fn(lambda x: x % 2), IMAGE),
    ("fmod", Fn(lambda x: x.fmod(2)), IMAGE),
    ("pow", Fn(lambda x: x**3), IMAGE),
    ("pow", Fn(lambda x: 2**x), IMAGE),
    ("pow", Fn(lambda x: x.abs() ** 1.5), IMAGE),
    ("square", Fn(torch.square), IMAGE),
    ("reciprocal", Fn(lambda x: 1 / (x.abs() + 1)), IMAGE),
    ("minimum", Fn(lambda x: torch.minimum(x, x.relu() - 0.5)), IMAGE),
    ("maximum", Fn(lambda x: torch.maximum(x, x.relu() - 0.5)), IMAGE),
    ("fmin", Fn(lambda x: torch.fmin(x, x.relu() - 0.5)), IMAGE),
    ("fmax", Fn(lambda x: torch.fmax(x, x.relu() - 0.5)), IMAGE),
    ("min", Fn(lambda x: torch.min(x, x.relu() - 0.5)), IMAGE),
    ("max", Fn(lambda x: torch.max(x, x.relu() - 0.5)), IMAGE),
    ("exp", Fn(torch.exp), IMAGE),
    ("exp2", Fn(torch.exp2), IMAGE),
    ("expm1", Fn(torch.expm1), IMAGE),
    ("sin", Fn(torch.sin), IMAGE),
    ("cos", Fn(torch.cos), IMAGE),
    ("erf", Fn(torch.erf), IMAGE),
    ("abs", Fn(torch.abs), IMAGE),
    ("neg", Fn(torch.neg), IMAGE),
    ("sign", Fn(torch.sign), IMAGE),
    ("sgn", Fn(torch.sgn), IMAGE),
    ("floor", Fn(torch.floor), IMAGE),
    ("ceil", Fn(torch.ceil), IMAGE),
    ("round", Fn(torch.round), IMAGE),
    ("trunc", Fn(torch.trunc), IMAGE),
    ("fix", Fn(torch.fix), IMAGE),
    ("round", Fn(lambda x: x.round(decimals=1)), IMAGE),
    ("log", Fn(lambda x: torch.log(x.abs() + 0.5)), IMAGE),
    ("log2", Fn(lambda x: torch.log2(x.abs() + 0.5)), IMAGE),
    ("log10", Fn(lambda x: torch.log10(x.abs() + 0.5)), IMAGE),
    ("log1p", Fn(lambda x: torch.log1p(x.abs() + 0.5)), IMAGE),
    ("sqrt", Fn(lambda x: torch.sqrt(x.abs() + 0.5)), IMAGE),
    ("rsqrt", Fn(lambda x: torch.rsqrt(x.abs() + 0.5)), IMAGE),
    ("lerp", Fn(lambda x: torch.lerp(x, x.relu(), 0.3)), IMAGE),
    ("addcmul", Fn(lambda x: torch.addcmul(x, x, x, value=0.3)), IMAGE),
    ("addcdiv", Fn(lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.3)), IMAGE),
    ("eq", Fn(lambda x: x.round().eq(1).float()), IMAGE),
    ("ne", Fn(lambda x: x.round().ne(1).float()), IMAGE),
    ("lt", Fn(lambda x: x.round().lt(1).float()), IMAGE),
    ("le", Fn(lambda x: x.round().le(1).float()), IMAGE),
    ("gt", Fn(lambda x: x.round().gt(1).float()), IMAGE),
    ("ge", Fn(lambda x: x.round().ge(1).float()), IMAGE),
    ("logical_and", Fn(lambda x: torch.logical_and(x > 0, x < 1).float()), IMAGE),
    ("logical_or", Fn(lambda x: torch.logical_or(x > 0, x < 1).float()), IMAGE),
    ("logical_xor", Fn(lambda x: torch.logical_xor(x > 0, x < 1).float()), IMAGE),
    ("bitwise_and", Fn(lambda x: torch.bitwise_and(x > 0, x < 1).float()), IMAGE),
    ("bitwise_or", Fn(lambda x: torch.bitwise_or(x > 0, x < 1).float()), IMAGE),
    ("bitwise_xor", Fn(lambda x: torch.bitwise_xor(x > 0, x < 1).float()), IMAGE),
    ("logical_not", Fn(lambda x: torch.logical_not(x > 0).float()), IMAGE),
    ("bitwise_not", Fn(lambda x: (~(x > 0)).float()), IMAGE),
    ("__and__", Fn(lambda x: ((x > 0) & (x < 1)).float()), IMAGE),
    ("__or__", Fn(lambda x: ((x > 0) | (x < 1)).float()), IMAGE),
    ("__xor__", Fn(lambda x: ((x > 0) ^ (x < 1)).float()), IMAGE),
    ("where", Fn(lambda x: torch.where(x > 0, x, 0.5)), IMAGE),
    ("where", Fn(lambda x: torch.where(x > 0, x > 1, x < -1).float()), IMAGE),
    ("masked_fill", Fn(lambda x: x.masked_fill(x > 0, -2.0)), IMAGE),
    ("max_pool2d", nn.MaxPool2d(2), IMAGE),
    ("max_pool2d", nn.MaxPool2d(3, stride=2, padding=1), ODD),
    ("max_pool2d", nn.MaxPool2d(2, ceil_mode=True), ODD),
    ("max_pool2d", nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE),
    ("max_pool2d", nn.MaxPool2d((3, 2), stride=(3, 1), padding=(1, 0), ceil_mode=True), ODD),
    ("avg_pool2d", nn.AvgPool2d(2), IMAGE),
    ("avg_pool2d", nn.AvgPool2d(3, stride=2, padding=1), ODD),
    ("avg_pool2d", nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), ODD),
    ("avg_pool2d", nn.AvgPool2d(2, ceil_mode=True), ODD),
    ("avg_pool2d", nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), IMAGE),
    ("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d(1), IMAGE),
    ("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
    ("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d((None, 1)), IMAGE),
    ("adaptive_max_pool2d", nn.AdaptiveMaxPool2d(1), IMAGE),
    ("adaptive_max_pool2d", nn.AdaptiveMaxPool2d((2, 3)), IMAGE),
    ("adaptive_max_pool2d", nn.AdaptiveMaxPool2d((3, 4)), ODD),
    ("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d((3, 9)), ODD),
    ("max_pool2d", nn.MaxPool2d(3, stride=2, padding=1, dilation=2), ODD),
    ("avg_pool2d", nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE),
    ("avg_pool2d", nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, divisor_override=5), IMAGE),
    ("max_pool1d", nn.MaxPool1d(3, stride=2, padding=1, ceil_mode=True), ROWS),
    ("avg_pool1d", nn.AvgPool1d(3, stride=2, padding=1, ceil_mode=True), ROWS),
    ("adaptive_avg_pool1d", nn.AdaptiveAvgPool1d(3), ROWS),
    ("adaptive_avg_pool1d", nn.AdaptiveAvgPool1d(1), ROWS),
    ("adaptive_max_pool1d", nn.AdaptiveMaxPool1d(5), ROWS),
    ("upsample_nearest1d", nn.Upsample(scale_factor=2), ROWS),
    ("upsample_nearest2d", nn.Upsample(scale_factor=(2, 1.3)), IMAGE),
    ("_upsample_nearest_exact1d", nn.Upsample(5, mode="nearest-exact"), ROWS),
    ("_upsample_nearest_exact2d", nn.Upsample(scale_factor=1.7, mode="nearest-exact"), IMAGE),
    ("upsample_linear1d", nn.Upsample(13, mode="linear", align_corners=True), ROWS),
    ("upsample_bilinear2d", nn.Upsample(scale_factor=1.7, mode="bilinear"), IMAGE),
    ("upsample_bilinear2d", nn.UpsamplingBilinear2d(scale_factor=2), IMAGE),
    ("pixel_shuffle", nn.PixelShuffle(2), IMAGE),
    ("pixel_unshuffle", nn.PixelUnshuffle(2), IMAGE),
    ("channel_shuffle", nn.ChannelShuffle(2), IMAGE),
    ("mean", Fn(lambda x: x.mean()), IMAGE),
    ("mean", Fn(lambda x: x.mean(dim=(-1, 1), keepdim=True)), IMAGE),
    ("mean", Fn(lambda x: x.mean(2)), IMAGE),
    ("permute", Fn(lambda x: x.permute(0, -1, 1, 2)), IMAGE),
    ("transpose", Fn(lambda x: x.transpose(-1, 1)), IMAGE),
    ("t", Fn(lambda x: x.t()), ROW),
    ("cat", Fn(lambda x: torch.cat([x, x.relu(), x], -1)), IMAGE),
    ("cat", Fn(lambda x: torch.cat([x])), IMAGE),
    ("concat", Fn(lambda x: aten.concat([x, x.relu()], 1)), IMAGE),
    ("stack", Fn(lambda x: torch.stack([x, x.relu()], dim=-1)), IMAGE),
    ("stack", Fn(lambda x: torch.stack([x, x.relu(), x], dim=1)), ROW),
    ("pad", Fn(lambda x: F.pad(x, (1, 0, 2, 3))), IMAGE),
    ("pad", Fn(lambda x: F.pad(x, (0, 1), value=-2.0)), IMAGE),
    ("pad", Fn(lambda x: F.pad(x, (0, 0, 1, 1, 0, 2, 0, 0))), IMAGE),
    ("pad", nn.ZeroPad2d((1, 2, 0, 1)), IMAGE),
    ("pad", nn.ReflectionPad2d((1, 2, 0, 3)), IMAGE),
    ("pad", nn.ReplicationPad2d((1, 9, 0, 3)), IMAGE),
    ("pad", nn.CircularPad2d((1, 2, 0, 3)), IMAGE),
    ("pad", Fn(lambda x: F.pad(x, (-1, 1, 0, -2))), IMAGE),
    ("reflection_pad1d", Fn(lambda x: aten.reflection_pad1d(x, [2, 1])), ROWS),
    ("reflection_pad2d", Fn(lambda x: aten.reflection_pad2d(x, [2, 1, 0, 3])), IMAGE),
    ("replication_pad1d", Fn(lambda x: aten.replication_pad1d(x, [2, 1])), ROWS),
    ("replication_pad2d", Fn(lambda x: aten.replication_pad2d(x, [2, 1, 0, 3])), IMAGE),
    ("_pad_circular", Fn(lambda x: aten._pad_circular(x, [2, 1, 0, 3])), IMAGE),
    ("constant_pad_nd", Fn(lambda x: aten.constant_pad_nd(x, [1, 2], 0.5)), IMAGE),
    ("slice", Fn(lambda x: x[:, 1:-1, ::2, 3:]), IMAGE),
    ("slice", Fn(lambda x: x[:, -2:]), IMAGE),
    ("select", Fn(lambda x: x[:, -1]), IMAGE),
    ("select", Fn(lambda x: x[..., 2]), IMAGE),
    ("narrow", Fn(lambda x: aten.narrow(x, 2, 1, 4)), IMAGE),
    ("narrow", Fn(lambda x: aten.narrow(x, -1, -3, 2)), IMAGE),
    ("split", Fn(lambda x: torch.mul(*x.split(4, dim=2))), IMAGE),
    ("split", Fn(lambda x: x.split(3, dim=-2)[2]), IMAGE),
    ("split_with_sizes", Fn(lambda x: torch.cat(x.split([1, 3], dim=1)[::-1], 1)), IMAGE),
    ("chunk", Fn(lambda x: torch.cat(x.chunk(3, dim=2)[::-1], 2)), IMAGE),
    ("chunk", Fn(lambda x: torch.sub(*x.chunk(2, dim=-1))), ROW),
    ("view", Fn(lambda x: x.view(2, -1)), IMAGE),
    ("reshape", Fn(lambda x: x.permute(0, 2, 3, 1).reshape(2, 48, 4)), IMAGE),
    ("flatten", nn.Flatten(), IMAGE),
    ("unflatten", nn.Unflatten(1, (2, 4)), ROW),
    ("squeeze", Fn(lambda x: x.mean(2, keepdim=True).squeeze(2)), IMAGE),
    ("squeeze", Fn(lambda x: x[:, :1].squeeze()), IMAGE),
    ("unsqueeze", Fn(lambda x: x.unsqueeze(-2)), ROW),
    ("_unsafe_view", Fn(lambda x: aten._unsafe_view(x, [4, 2, 48])), IMAGE),
    ("dropout", nn.Dropout(0.9), IMAGE),
    ("feature_dropout", nn.Dropout2d(0.9), IMAGE),
    ("clone", Fn(lambda x: x.clone() + 1), IMAGE),
    ("contiguous", Fn(lambda x: x.transpose(1, 2).contiguous()), IMAGE),
    ("detach", Fn(lambda x: x.relu().detach() + 1), IMAGE),
    ("alias", Fn(lambda x: aten.alias(x) + 1), IMAGE),
    ("to", Fn(lambda x: x.to(torch.float32, copy=True) + 1), IMAGE),
    ("_to_copy", Fn(lambda x: aten._to_copy(x) + 1), IMAGE),
    ("lift_fresh_copy", Fn(lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])), IMAGE),
]

# torch's own front doors lead elsewhere; no module of eval mode comes to these
CASES += [
    ("matmul", Fn(lambda x: x @ x.transpose(1, 2)), ROWS),
    ("matmul", Fn(lambda x: x @ torch.arange(8.0)), ROWS),
    ("bmm", Fn(lambda x: torch.bmm(x, x.mT)), ROWS),
    ("mm", Fn(lambda x: torch.mm(x, x.T)), ROW),
    ("mv", Fn(lambda x: torch.mv(x, x[0])), ROW),
    ("dot", Fn(lambda x: x * torch.dot(x[0], x[1])), ROW),
    ("outer", Fn(lambda x: torch.outer(x[0], x[1])), ROW),
    ("linear", Fn(lambda x: F.linear(x, x)), ROW),
    ("addmm", Fn(lambda x: torch.addmm(x[:, :3], x, x.T, beta=0.5, alpha=2)), ROW),
    ("baddbmm", Fn(lambda x: torch.baddbmm(x[:, :, :5], x, x.mT)), ROWS),
    ("einsum", Fn(lambda x: torch.einsum("nci,ndi->ncd", x, x)), ROWS),
    ("scaled_dot_product_attention", Fn(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), ROWS),
    (
        "scaled_dot_product_attention",
        Fn(lambda x: F.scaled_dot_product_attention(x, x, x, x[:, :, :5], scale=0.3)),
        ROWS,
    ),
    (
        "scaled_dot_product_attention",
        Fn(lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True)),
        IMAGE,
    ),
    ("layer_norm", nn.LayerNorm(8), ROWS),
    ("layer_norm", nn.LayerNorm([8, 6], bias=False), IMAGE),
    ("rms_norm", nn.RMSNorm(8), ROWS),
    ("group_norm", nn.GroupNorm(2, 4), IMAGE),
    ("instance_norm", nn.InstanceNorm2d(4, affine=True), IMAGE),
    ("sum", Fn(lambda x: x.sum((1, 2))), IMAGE),
    ("amax", Fn(lambda x: x.amax((1, 2))), IMAGE),
    ("amin", Fn(lambda x: x.amin(-1, keepdim=True)), IMAGE),
    ("argmax", Fn(lambda x: x.argmax(1).float()), IMAGE),
    ("argmin", Fn(lambda x: x * x.argmin()), IMAGE),
    ("max", Fn(lambda x: x.max(1)[0] + x.max(1)[1]), IMAGE),
    ("min", Fn(lambda x: x - x.min()), IMAGE),
    ("var", Fn(lambda x: x.var(1)), IMAGE),
    ("var", Fn(lambda x: x.var((2, 3), unbiased=False, keepdim=True)), IMAGE),
    ("std", Fn(lambda x: x.std((2, 3), correction=0)), IMAGE),
    ("var_mean", Fn(lambda x: torch.add(*torch.var_mean(x, 1))), IMAGE),
    ("norm", Fn(lambda x: aten.norm.ScalarOpt_dim(x, 2, [1])), IMAGE),
    ("linalg_vector_norm", Fn(lambda x: F.normalize(x) + x.norm(p=1, dim=1, keepdim=True)), IMAGE),
    ("linalg_vector_norm", Fn(lambda x: x.norm(p=3, dim=1) + x.norm(p=float("inf"), dim=1)), IMAGE),
    ("logsumexp", Fn(lambda x: x.logsumexp((1, 2))), IMAGE),
    ("cumsum", Fn(lambda x: x.cumsum(-1)), ROWS),
    ("topk", Fn(lambda x: x.topk(3, largest=False)[0]), ROWS),
    ("sort", Fn(lambda x: x.sort(1, descending=True)[0]), ROWS),
    ("any", Fn(lambda x: (x > 4).any(1) * 1.0), ROWS),
    ("all", Fn(lambda x: (x > -4).all(2, keepdim=True) * x), ROWS),
    ("prod", Fn(lambda x: x.prod(1)), ROWS),
    ("prod", Fn(lambda x: x * x[0, :2, :3].prod()), ROWS),
    ("inner", Fn(lambda x: torch.inner(x, x[:2])), ROW),
    ("addmv", Fn(lambda x: torch.addmv(x[:, 0], x, x[0])), ROW),
    ("instance_norm", norm(nn.InstanceNorm2d, affine=True, track_running_stats=True), IMAGE),
    ("std_mean", Fn(lambda x: torch.add(*torch.std_mean(x, 1, unbiased=False))), IMAGE),
    ("aminmax", Fn(lambda x: torch.add(*torch.aminmax(x, dim=1))), ROWS),
    ("count_nonzero", Fn(lambda x: x.relu().count_nonzero(1).float()), ROWS),
    ("argsort", Fn(lambda x: x.argsort(1).float()), ROWS),
    ("msort", Fn(torch.msort), ROWS),
    ("linalg_norm", Fn(lambda x: torch.linalg.norm(x, dim=1)), ROWS),
    ("linalg_vecdot", Fn(lambda x: torch.linalg.vecdot(x, x)), ROWS),
    ("cosine_similarity", Fn(lambda x: F.cosine_similarity(x, x[:1])), ROWS),
    ("pairwise_distance", Fn(lambda x: F.pairwise_distance(x, x[:1])), ROWS),
    ("lstm", Fn(lambda x, layer: layer(x)[0], nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True)), ROWS),
    ("lstm", Fn(lambda x, layer: torch.add(*layer(x)[1]), nn.LSTM(8, 6, bias=False)), ROWS),
    ("gru", Fn(lambda x, layer: layer(x)[0], nn.GRU(8, 6, bidirectional=True)), ROWS),
    ("rnn_tanh", Fn(lambda x, layer: layer(x)[1], nn.RNN(8, 6, batch_first=True)), ROWS),
    ("rnn_relu", Fn(lambda x, layer: layer(x)[0], nn.RNN(8, 6, nonlinearity="relu")), ROWS),
    ("lstm_cell", Fn(lambda x, cell: torch.add(*cell(x)), nn.LSTMCell(8, 6)), ROW),
    ("gru_cell", Fn(lambda x, cell: cell(x, x[:, :6]), nn.GRUCell(8, 6)), ROW),
    ("rnn_tanh_cell", Fn(lambda x, cell: cell(x), nn.RNNCell(8, 6)), ROW),
    ("rnn_relu_cell", Fn(lambda x, cell: cell(x), nn.RNNCell(8, 6, nonlinearity="relu")), ROW),
]


def ids(case) -> str:
    return case if isinstance(case, str) else ""


def example(shape) -> np.ndarray:
    return (3 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def op_names(module: nn.Module, x: np.ndarray) -> set[str]:
    return {getattr(node.target, "_opname", "") for node in export(module, (x,)).graph.nodes}


@pytest.mark.parametrize(("op", "module", "shape"), [*CASES, *MOVES], ids=ids)
def test_traced_equals_eager(op, module, shape):
    x = example(shape)
    assert op in op_names(module, x)
    graph = trace(module, (x,))
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x.copy())).numpy()
    (found,) = run(graph, to_tensors([x]))
    assert graph.types[graph.outputs[0]].shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


def test_every_rule_has_a_case():
    known = ATEN_RULES.keys() | RESHAPES | IDENTITIES
    assert known - {op for op, _, _ in (*CASES, *MOVES)} - KNOWN_AND_REFUSED.keys() == set()


def test_depthwise_convolutions_are_told_from_grouped_ones():
    ops = {groups: trace(nn.Conv2d(4, 8, 3, groups=groups), (example(IMAGE),)).nodes[0].op for groups in (1, 2, 4)}
    assert ops == {1: Op.CONV2D, 2: Op.CONV2D, 4: Op.DEPTHWISE_CONV2D}


class Computed(nn.Module):
    """A weight made of other weights: nothing of it depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.scale = nn.Parameter(torch.rand(3, 1))
        self.register_buffer("keep", torch.tensor([[True, False, True, True]] * 3))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x):
        weight = (self.weight - self.weight.mean(1, keepdim=True)) * self.scale * self.keep
        return F.linear(x, weight) / self.count


def test_what_depends_on_constants_alone_is_a_constant():
    module = Computed()
    graph = trace(module, (example((2, 4)),))
    assert [node.op for node in graph.nodes] == [Op.LINEAR, Op.MUL]
    assert {array.dtype for array in graph.constants.values()} == {np.dtype(np.float32)}
    expected = module(torch.from_numpy(example((2, 4)))).detach().numpy()
    np.testing.assert_allclose(run(graph, to_tensors([example((2, 4))]))[0].numpy(), expected, atol=1e-5)


def by_the_batch(x, layer):
    return F.batch_norm(x, layer.running_mean, layer.running_var, training=True)


REFUSED: list[tuple[str, nn.Module, tuple[int, ...], str]] = [
    ("prelu", Fn(lambda x: F.prelu(x, x.mean((0, 2, 3)))), IMAGE, "slopes must be constant"),
    ("bitwise_not", Fn(lambda x: ~(x > 0).int() + x), IMAGE, "bits of booleans"),
    ("batch_norm", nn.BatchNorm2d(4, track_running_stats=False), IMAGE, "running statistics"),
    ("batch_norm", Fn(by_the_batch, norm()), IMAGE, "batch's own"),
    ("adaptive_max_pool2d", Fn(lambda x: aten.adaptive_max_pool2d(x, [1, 1])[1].float()), IMAGE, "indices"),
    ("pad", Fn(lambda x: aten.pad(x, [9, 1], "mirror")), IMAGE, "mirror"),
    ("upsample_bicubic2d", nn.Upsample(scale_factor=2, mode="bicubic"), IMAGE, "bicubic"),
    ("_upsample_bicubic2d_aa", Fn(lambda x: F.interpolate(x, (4, 3), mode="bicubic", antialias=True)), IMAGE, "bic"),
    ("_upsample_bilinear2d_aa", Fn(lambda x: F.interpolate(x, (4, 3), mode="bilinear", antialias=True)), IMAGE, "anti"),
    ("einsum", Fn(lambda x: torch.einsum("nii->ni", x[:, :5, :5])), ROWS, "diagonal"),
    ("linalg_norm", Fn(lambda x: torch.linalg.norm(x, "nuc", dim=(1, 2))), ROWS, "nuc"),
    ("var", Fn(lambda x: x[:, :1].var(1)), ROWS, "variance of 1 value"),
    ("conv1d", nn.Conv1d(3, 4, 3), ROW, "batch of sequences"),
    ("conv2d", nn.Conv2d(4, 4, 3), (4, 8, 8), "batch of images"),
    ("conv2d", Fn(lambda x: F.conv2d(x, x)), IMAGE, "computed from the input"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "module", "shape", "message"), REFUSED, ids=ids)
def test_what_the_graph_cannot_say_is_refused_in_words(op, module, shape, message):
    with pytest.raises(UnsupportedError, match=message) as found:
        trace(module, (example(shape),))
    assert op in str(found.value)
    if isinstance(module, Fn):  # torch's own layers have no line of the user's around them here
        assert "_cases.py:" in str(found.value) or "test_tracing_rules.py:" in str(found.value)
