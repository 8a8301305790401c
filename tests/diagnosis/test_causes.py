"""A cause that was planted is the cause that is named, at the layer where it was planted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.diagnosis.networks import chain, images, join, quantized, statistics_of
from toolchain.diagnosis.causes import Cause, Measures, advise, name_causes
from toolchain.diagnosis.layers import Diagnosis, LayerDiagnosis, diagnose_graph
from toolchain.graph import DType
from toolchain.quantization import Granularity, Scheme
from toolchain.quantization.correct import correct_biases

PER_TENSOR = Scheme(weight_granularity=Granularity.PER_TENSOR)
APART = np.geomspace(2.0**-4, 2.0**4, 16).astype(np.float32)


def layer(found: Diagnosis, tensor: str) -> LayerDiagnosis:
    return next(one for one in found.layers if one.tensor == tensor)


def test_channels_scaled_apart_are_found_in_per_tensor_weights():
    found = diagnose_graph(quantized(chain(APART), images(), PER_TENSOR), [(images(),)])
    mid = layer(found, "mid")
    assert mid.cause is Cause.CHANNELS and mid.measures.weights_dominate
    # 16 channels over 2^8: the median lies half-way, at 2^-4 of the largest, but for how the draws differ
    assert 8 < mid.measures.weight_spread < 32
    assert found.worst(1)[0].tensor == "mid" and mid.share > 0.5
    assert "equalise" in " ".join(mid.advice)
    assert layer(found, "stem").cause is not Cause.CHANNELS


def test_the_same_network_unscaled_has_no_such_cause():
    found = diagnose_graph(quantized(chain(), images(), PER_TENSOR), [(images(),)])
    assert {one.cause for one in found.layers} <= {Cause.WEIGHTS, Cause.RESULT}


def test_channels_scaled_apart_are_found_in_activations():
    found = diagnose_graph(quantized(chain(APART**1.5), images()), [(images(),)])
    mid = layer(found, "mid")
    assert mid.cause is Cause.CHANNELS and not mid.measures.weights_dominate
    assert mid.measures.weight_spread is None, "weights have a scale a channel"
    head = layer(found, "head")
    assert head.cause is Cause.CHANNELS and head.measures.weights_dominate, "and in the weights that undo the scaling"
    assert head.measures.weight_spread is None and head.measures.input_spread > 16
    assert {one.tensor for one in found.worst(2)} == {"mid", "head"}


def test_outliers_eat_the_range_from_where_they_enter():
    array = images()
    array[0, :, 3, 3] *= 60  # one of 2,048 pixels: 0.05 % of the values
    found = diagnose_graph(quantized(chain(), array), [(array,)])
    for name in ("x", "stem", "mid"):
        one = layer(found, name)
        assert one.cause is Cause.OUTLIERS, name
        assert one.measures.result_levels < 0.25 and "percentile" in one.advice[0]


def low_weights() -> np.ndarray:
    """Rounding each of them makes it smaller, by 0.45 steps."""
    steps = np.random.default_rng(3).integers(0, 100, (16, 16, 1, 1)) + 0.45
    steps[:, 0] = 127
    return (steps / 127).astype(np.float32)


def test_a_bias_shift_is_named_until_it_is_corrected():
    graph, array = chain(**{"mid.w": low_weights()}), images()
    before = quantized(graph, array)
    mid = layer(diagnose_graph(before, [(array,)]), "mid")
    assert mid.cause is Cause.BIAS and mid.advice == ("correct_bias = true",)
    means = {name: s.means for name, s in statistics_of(graph, array).items() if s.means is not None}
    after = layer(diagnose_graph(correct_biases(before, means), [(array,)]), "mid")
    assert after.cause is not Cause.BIAS and after.measures.bias_share < 0.1
    assert after.added_db > mid.added_db + 3


def test_one_sample_shows_no_shift():
    graph = chain(**{"mid.w": low_weights()})
    mid = layer(diagnose_graph(quantized(graph, images()), [(images(),)], samples=1), "mid")
    assert mid.measures.bias_share is None and mid.cause is not Cause.BIAS


def test_the_small_side_of_a_concat_suffers_from_the_shared_scale():
    found = diagnose_graph(quantized(join(40.0), images()), [(images(),)])
    small, large = layer(found, "small"), layer(found, "large")
    assert small.cause is Cause.SHARED and 25 < small.measures.shared_ratio < 60
    assert large.cause is not Cause.SHARED and large.measures.shared_ratio == pytest.approx(1)
    assert found.worst(1)[0].tensor == "small"
    assert all(
        one.cause is not Cause.SHARED for one in diagnose_graph(quantized(join(1), images()), [(images(),)]).layers
    )


def test_a_range_that_clips_is_saturation():
    graph, array = chain(), images()
    high = statistics_of(graph, array)["mid"].maximum
    found = diagnose_graph(quantized(graph, array, ranges={"mid": (0.0, 0.4 * high)}), [(array,)])
    mid = layer(found, "mid")
    assert mid.cause is Cause.SATURATION and 0 < mid.measures.clipped < 0.2
    assert found.worst(1)[0].tensor == "mid"
    assert layer(found, "stem").cause is not Cause.SATURATION


def test_few_bits_are_rounding_of_weights_and_exact_weights_rounding_of_the_result():
    four = diagnose_graph(quantized(chain(), images(), Scheme(weight_dtype=DType.INT4)), [(images(),)])
    assert {layer(four, name).cause for name in ("stem", "mid", "head")} == {Cause.WEIGHTS}
    whole = {"mid.w": np.random.default_rng(0).choice([-127.0, 0.0, 127.0], (16, 16, 1, 1)).astype(np.float32) / 127}
    mid = layer(diagnose_graph(quantized(chain(**whole), images()), [(images(),)]), "mid")
    assert mid.cause is Cause.RESULT and mid.measures.weight_error < 1e-6 * mid.measures.result_error


@pytest.mark.parametrize(
    ("measures", "causes"),
    [
        (Measures(), ()),
        (Measures(weight_error=1.0), (Cause.WEIGHTS,)),
        (Measures(result_error=1.0), (Cause.RESULT,)),
        (Measures(weight_error=1.0, weight_spread=4.0, bias_share=0.9), (Cause.CHANNELS, Cause.BIAS)),
        (Measures(weight_error=1.0, weight_spread=3.9, weight_levels=0.24), (Cause.OUTLIERS,)),
        (Measures(weight_error=1.0, result_error=0.9, shared_ratio=9.0), (Cause.WEIGHTS,)),
        (Measures(result_error=1.0, saturation_error=0.5, result_levels=0.1), (Cause.SATURATION, Cause.OUTLIERS)),
        (Measures(result_error=1.0, shared_ratio=4.0, result_spread=16.0), (Cause.SHARED, Cause.CHANNELS)),
    ],
)
def test_thresholds(measures, causes):
    assert name_causes(measures) == causes


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("measures", [Measures(weight_error=1.0), Measures(result_error=1.0)])
def test_every_cause_that_can_be_named_has_advice(cause, measures):
    of_other_side = {Cause.SHARED, Cause.RESULT} if measures.weights_dominate else {Cause.WEIGHTS}
    if cause not in of_other_side:
        assert advise(cause, measures, has_bias=True, is_corrected=False)
