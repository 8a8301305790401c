"""Why a layer loses accuracy, named from what was measured of it, and what to do about it.

W is the energy of the error that rounding the node's constants alone makes on float inputs, R that of rounding its
result alone, S the part of R at values outside the grid. The larger of W and R says where to look; the first line that
holds is the cause, further ones are kept beside it:

    saturation                 S >= SATURATION (W + R)
    where W >= R:
    channel ranges far apart   one scale for all output channels, and max_c r_c >= WEIGHT_SPREAD median_c r_c
                               (Nagel et al., Data-Free Quantization, arXiv 1906.04721, figure 2); or, of the input
                               channels, which always share scales, max_i r_i >= INPUT_SPREAD r, where half of the
                               error E[x_i^2] |W_q - W|_i^2 comes in through channels of a range below r
    bias shift                 mean_c E[e_c]^2 >= BIAS E[e^2], e the error added, E[e_c]^2 estimated without the
                               variance of few samples: (sum_n m_nc)^2 - sum_n m_nc^2 over n (n - 1), m the means of e
                               over a sample's channel (ibid., section 3.2)
    outliers eat the range     99.9 % of the weights lie within LEVELS of their channel's grid
    rounding of weights        else
    where R > W:
    shared scale               some tensor with the same scale has SHARED times the own range
    channel ranges far apart   max_c s_c >= RESULT_SPREAD median_c s_c, s_c^2 = E[y_c^2]
    outliers eat the range     99.9 % of the values lie within LEVELS of the grid
    bias shift                 as above
    rounding of the result     else

A range r is the largest magnitude of a channel's weights; of a result the root mean square s stands for it, which a
single outlier does not move far. Channels that are all zero do not count. RESULT_SPREAD is larger than WEIGHT_SPREAD
since the channels of few samples scatter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SATURATION: Final = 0.5
BIAS: Final = 0.5
WEIGHT_SPREAD: Final = 4.0
INPUT_SPREAD: Final = 16.0
RESULT_SPREAD: Final = 16.0
LEVELS: Final = 0.25
SHARED: Final = 4.0


class Cause(StrEnum):
    """What makes most of the error that a layer adds."""

    CHANNELS = "channel ranges far apart"
    OUTLIERS = "outliers eat the range"
    BIAS = "bias shift"
    WEIGHTS = "rounding of weights"
    RESULT = "rounding of the result"
    SATURATION = "saturation"
    SHARED = "shared scale"


@dataclass(frozen=True)
class Measures:
    """What causes are named from. Errors are energies relative to the float result's; None is what cannot be measured
    or does not apply.

    `weight_error` W, `result_error` R, `saturation_error` S; `clipped` the share of values outside the grid;
    `bias_share` of the error added; `weight_spread` (per-tensor weights), `input_spread` and `result_spread` the
    largest channel over the median one, as the module's docstring has it; `weight_levels` and `result_levels` the share
    of the grid that holds 99.9 % of the values; `shared_ratio` the widest range in a group of one scale over the own.
    """

    weight_error: float = 0.0
    result_error: float = 0.0
    saturation_error: float = 0.0
    clipped: float = 0.0
    bias_share: float | None = None
    weight_spread: float | None = None
    input_spread: float | None = None
    result_spread: float | None = None
    weight_levels: float | None = None
    result_levels: float | None = None
    shared_ratio: float | None = None

    @property
    def weights_dominate(self) -> bool:
        """Whether rounding the constants costs at least as much as rounding the result."""
        return self.weight_error >= self.result_error


def name_causes(measures: Measures) -> tuple[Cause, ...]:
    """The cause, then what else holds; nothing where no error is added."""
    total = measures.weight_error + measures.result_error
    if total <= 0.0:
        return ()
    found = [Cause.SATURATION] if measures.saturation_error >= SATURATION * total else []
    found += _of_weights(measures) if measures.weights_dominate else _of_result(measures)
    plain = Cause.WEIGHTS if measures.weights_dominate else Cause.RESULT
    return tuple(found) or (plain,)


def advise(cause: Cause, measures: Measures, *, has_bias: bool, is_corrected: bool) -> tuple[str, ...]:
    """What to do, the cheapest first."""
    if cause is Cause.BIAS:
        if not has_bias:
            return ("give the layer a bias, to correct", "learned rounding")
        return ("learned rounding", "more calibration samples") if is_corrected else ("correct_bias = true",)
    if cause is Cause.CHANNELS and measures.weights_dominate and measures.weight_spread is None:
        return _FOR_INPUTS
    return (_FOR_WEIGHTS if measures.weights_dominate else _FOR_RESULT)[cause]


_FOR_RESULT: Final[dict[Cause, tuple[str, ...]]] = {
    Cause.CHANNELS: ("equalise (cross-layer, or into the weights behind a norm)", "16-bit activations"),
    Cause.OUTLIERS: ("percentile or mse ranges", "16-bit activations or float"),
    Cause.RESULT: ("16-bit activations", "float for this layer"),
    Cause.SATURATION: ("wider ranges: min-max, a higher percentile", "samples that reach these values"),
    Cause.SHARED: ("equalise what is joined", "16-bit activations or float for what joins"),
}
_FOR_INPUTS: Final = ("equalise (cross-layer, or with the norm before it)", "learned rounding")
_FOR_WEIGHTS: Final[dict[Cause, tuple[str, ...]]] = {
    Cause.CHANNELS: ("per-channel weights, if the device has them", "equalise (cross-layer)", "correct_bias = true"),
    Cause.OUTLIERS: ("mse bounds of weights", "learned rounding"),
    Cause.WEIGHTS: ("learned rounding", "more bits for these weights"),
    Cause.SATURATION: _FOR_RESULT[Cause.SATURATION],
}


def _of_weights(found: Measures) -> Iterator[Cause]:
    if (found.weight_spread or 0.0) >= WEIGHT_SPREAD or (found.input_spread or 0.0) >= INPUT_SPREAD:
        yield Cause.CHANNELS
    if found.bias_share is not None and found.bias_share >= BIAS:
        yield Cause.BIAS
    if found.weight_levels is not None and found.weight_levels < LEVELS:
        yield Cause.OUTLIERS


def _of_result(found: Measures) -> Iterator[Cause]:
    if found.shared_ratio is not None and found.shared_ratio >= SHARED:
        yield Cause.SHARED
    if found.result_spread is not None and found.result_spread >= RESULT_SPREAD:
        yield Cause.CHANNELS
    if found.result_levels is not None and found.result_levels < LEVELS:
        yield Cause.OUTLIERS
    if found.bias_share is not None and found.bias_share >= BIAS:
        yield Cause.BIAS
