"""The tensors whose rounding the factors of a graph decide on, as terms of the objective of `equalise_noise`."""

from __future__ import annotations

from math import prod

import numpy as np

from toolchain.compress.equalisation.noise import ActivationNoise, Noise, WeightNoise
from toolchain.compress.equalisation.scale_factors import ChannelRanges, channel_extent
from toolchain.compress.equalisation.scale_flow import UNIT, Channels, ScaledUse
from toolchain.compress.fisher import Sensitivity
from toolchain.graph import WEIGHTED, DType
from toolchain.quantization import QUANTIZATION_RULES, Granularity, Kind, Scheme
from toolchain.quantization.affine import largest_integer

_CREST = 6.0  # largest value over root mean square, typical of activations


def noise_terms(
    channels: Channels, ranges: ChannelRanges, scheme: Scheme, sensitivity: Sensitivity | None = None
) -> list[Noise]:
    """One term for each weight and each activation whose channels have factors and were measured.

    What an error costs is `sensitivity` where it was measured; else noise of a channel counts as much as its readers
    amplify it, g_i^2 = sum |W_next[:, i]|^2, relative to the signal there.
    """
    gains = reader_gains(channels)
    terms: list[Noise] = []
    for use in channels.flow.uses:
        if use.is_weight and use.node.op in WEIGHTED:
            term = _weight_term(channels, use, scheme, _kernel_costs(channels, use, ranges, gains, sensitivity))
            terms += [term] if term is not None else []
    if scheme.activation_dtype is not None:
        terms += _activation_terms(channels, ranges, gains, scheme.activation_dtype, sensitivity)
    return terms


def reader_gains(channels: Channels) -> np.ndarray:
    """g^2 `(count,)` of each label: the summed squares of the weights that read it; 1 where no weight does."""
    gains = np.zeros(channels.flow.count)
    for use in channels.flow.uses:
        if use.is_weight:
            value = channels.flow.graph.constants[use.constant].astype(np.float64) ** 2
            roots = channels.root[use.down]
            extra = tuple(a for a in range(value.ndim) if roots.shape[a] == 1)
            np.add.at(gains, roots, value.sum(axis=extra, keepdims=True))
    gains[UNIT] = 0.0
    return np.where(gains > 0, gains, 1.0)


def kernel_sizes(channels: Channels, use: ScaledUse) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the weight of a layer: the largest magnitude of each kernel `(O, J)`, the roots of its outputs `(O,)` and of
    its inputs `(O, J)`, `(1, J)` where all outputs read the same."""
    value = np.abs(channels.flow.graph.constants[use.constant].astype(np.float64))
    size = value.reshape(*value.shape[:2], -1).max(axis=2)
    up, down = channels.root[use.up].reshape(-1), channels.root[use.down]
    down = down.reshape(down.shape[:2])
    if len(down) > 1 and np.array_equal(down, np.broadcast_to(down[:1], down.shape)):
        down = down[:1]
    return size, up, down


def _weight_term(channels: Channels, use: ScaledUse, scheme: Scheme, costs: np.ndarray | None) -> WeightNoise | None:
    size, up, down = kernel_sizes(channels, use)
    if scheme.weight_dtype is None or costs is None or costs.shape != size.shape or not np.any(size):
        return None
    levels = float(largest_integer(scheme.weight_dtype, scheme.weight_bits))
    per_channel = scheme.granularity(use.node.op) is Granularity.PER_CHANNEL
    return WeightNoise(use.constant, size, up, down, costs, levels, per_channel)


def _kernel_costs(
    channels: Channels, use: ScaledUse, ranges: ChannelRanges, gains: np.ndarray, sensitivity: Sensitivity | None
) -> np.ndarray | None:
    """What an error in each kernel `(O, J)` costs; None where it was not measured."""
    if sensitivity is not None:
        return sensitivity.weights.get(use.constant)
    node = use.node
    if node.inputs[0] not in ranges or node.output not in ranges:
        return None
    share = _share(channels, node.output, ranges, gains)
    outputs, fan_in, *kernel = channels.flow.shape(use.constant)
    power = _power(ranges, node.inputs[0])
    if share is None or len(share) != outputs or len(power) % fan_in or outputs % max(len(power) // fan_in, 1):
        return None
    blocks = np.repeat(power.reshape(-1, fan_in), outputs * fan_in // len(power), axis=0)
    return np.asarray(share[:, None] * blocks * prod(kernel))


def _power(ranges: ChannelRanges, name: str) -> np.ndarray:
    """E[x^2] `(C,)` of an activation, from its range."""
    low, high = ranges[name]
    return np.asarray((np.maximum(np.abs(low), np.abs(high)).astype(np.float64) / _CREST) ** 2)


def _share(channels: Channels, name: str, ranges: ChannelRanges, gains: np.ndarray) -> np.ndarray | None:
    """g^2 of each channel over the signal there: what one unit of noise variance in it counts."""
    roots, low, high = channel_extent(channels, name, ranges)
    gain = gains[roots]
    signal = float((gain * (np.maximum(np.abs(low), np.abs(high)) / _CREST) ** 2).sum())
    return gain / signal if signal > 0 else None


def _activation_terms(
    channels: Channels, ranges: ChannelRanges, gains: np.ndarray, dtype: DType, sensitivity: Sensitivity | None
) -> list[Noise]:
    """Of tensors that only differ by a move, the first."""
    terms: list[Noise] = []
    levels = 2.0 * largest_integer(dtype)
    for node in channels.flow.graph.nodes:
        name = node.output
        if name not in ranges or QUANTIZATION_RULES[node.op].kind is Kind.SHARED:
            continue
        roots, low, high = channel_extent(channels, name, ranges)
        if not np.any(roots != UNIT):
            continue
        costs = _share(channels, name, ranges, gains) if sensitivity is None else sensitivity.activations.get(name)
        if costs is not None and len(costs) == len(roots):
            terms.append(ActivationNoise(name, np.maximum(np.abs(low), np.abs(high)), roots, costs, levels))
    return terms
