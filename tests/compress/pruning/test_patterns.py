import numpy as np
import pytest
from compress.channel_networks import images, mobilenet, resnet, traced

from toolchain.compress.pruning.choices import Importance, Scope
from toolchain.compress.pruning.magnitude import apply_masks, choose_masks, plan_weights
from toolchain.compress.pruning.patterns import block_mask, block_scores, fine_mask, parse_pattern
from toolchain.errors import OptionError
from toolchain.graph import Structure, parse_graph
from toolchain.samples import Batch

SHAPE = (12, 10, 3, 3)


def scores(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).random(shape)


@pytest.mark.parametrize("text", ["2:4", "1:2", "4:8"])
def test_n_of_m_keeps_the_n_best_of_every_m_inputs(text: str) -> None:
    pattern = parse_pattern(text)
    assert pattern is not None and pattern.kept is not None
    given = scores()
    mask = fine_mask(given, pattern)
    whole = 10 // pattern.run * pattern.run
    runs = np.moveaxis(mask, 1, -1)[..., :whole].reshape(-1, pattern.run)
    values = np.moveaxis(given, 1, -1)[..., :whole].reshape(-1, pattern.run)
    assert (runs.sum(1) == pattern.kept).all()
    assert (np.where(runs, values, np.inf).min(1) > np.where(runs, -np.inf, values).max(1)).all()
    assert mask[:, whole:].all()


@pytest.mark.parametrize("text", ["1x4", "4x1", "4x4", "8x*", "5x3", "1x1"])
def test_blocks_stay_or_go_as_one(text: str) -> None:
    pattern = parse_pattern(text)
    assert pattern is not None
    given = block_scores(scores(), pattern)
    kept = given > np.median(given)
    mask = block_mask(kept, SHAPE, pattern)
    again = block_scores(mask.astype(float), pattern)
    sizes = block_scores(np.ones(SHAPE), pattern)
    np.testing.assert_array_equal(again, np.where(kept, sizes, 0))


def test_a_block_is_as_large_as_its_weights_together() -> None:
    pattern = parse_pattern("2x3")
    assert pattern is not None
    weight = scores((4, 6))
    expected = np.sqrt(np.square(weight).reshape(2, 2, 2, 3).sum(axis=(1, 3)))
    np.testing.assert_allclose(block_scores(weight, pattern)[:, :, 0], expected)


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "x4", "4x", "*x4", "2:4:8", ""])
def test_what_is_no_pattern_is_none(text: str) -> None:
    assert parse_pattern(text) is None


@pytest.mark.parametrize("text", ["1x4", "4x1", "4x*"])
@pytest.mark.parametrize("scope", [Scope.LOCAL, Scope.GLOBAL])
def test_block_masks_hold_the_share(text: str, scope: Scope) -> None:
    graph = traced(resnet())
    pattern = parse_pattern(text)
    assert pattern is not None
    plan = plan_weights(graph, 0.5, scope=scope, pattern=pattern)
    blocks = [block_scores(mask.astype(float), pattern).reshape(-1) > 0 for mask in plan.masks.values()]
    if scope is Scope.GLOBAL:
        pooled = np.concatenate(blocks)
        assert np.count_nonzero(~pooled) == pooled.size // 2
    else:
        assert all(np.count_nonzero(~b) == b.size // 2 for b in blocks)
    assert Structure().with_masks(plan.masks).violations(apply_masks(plan, graph).constants) == []


def test_global_takes_the_smallest_of_all_and_local_of_each() -> None:
    graph = traced(mobilenet())
    plan = plan_weights(graph, 0.6, scope=Scope.GLOBAL)
    gone = np.concatenate([np.abs(graph.constants[n][~m]) for n, m in plan.masks.items()])
    kept = np.concatenate([np.abs(graph.constants[n][m]) for n, m in plan.masks.items()])
    assert len(gone) == int(0.6 * (len(gone) + len(kept))) and gone.max() <= kept.min()
    shares = {np.count_nonzero(~m) / m.size for m in plan.masks.values()}
    assert max(shares) - min(shares) > 0.1


def test_every_output_channel_loses_its_share() -> None:
    graph = traced(resnet())
    plan = plan_weights(graph, 0.5, scope=Scope.OUTPUT)
    for mask in plan.masks.values():
        rows = mask.reshape(len(mask), -1)
        assert ((~rows).sum(1) == rows.shape[1] // 2).all()


def test_what_was_masked_stays_masked_with_blocks_too() -> None:
    graph = traced(resnet())
    before = Structure().with_masks(plan_weights(graph, 0.3).masks)
    pattern = parse_pattern("1x4")
    assert pattern is not None
    masks = plan_weights(graph, 0.5, before, pattern=pattern).masks
    assert all(not np.any(masks[name] & ~mask) for name, mask in before.masks.items())


LINEAR = """
    input x: float32[1,4]
    constant a.weight: float32[2,4]
    a = linear(x, a.weight)
    output a"""


def test_activation_aware_is_weight_times_the_norm_of_its_input() -> None:
    weight = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]], np.float32)
    graph = parse_graph(LINEAR, {"a.weight": weight})
    x = images(50, (1, 4)) * np.array([4.0, 2.0, 1.0, 0.1], np.float32)
    plan = plan_weights(graph, 0.5, importance=Importance.ACTIVATION_AWARE, batches=[Batch((x,), None)])
    score = np.abs(weight) * np.sqrt(np.square(x).mean(0))
    np.testing.assert_array_equal(plan.masks["a.weight"], score > np.sort(score.reshape(-1))[3])


def test_importances_of_channels_are_refused_for_weights() -> None:
    with pytest.raises(OptionError, match="one of channels"):
        plan_weights(traced(resnet()), 0.5, importance=Importance.PATH)


def test_on_the_way_to_a_pattern_the_least_of_what_it_takes_is_gone() -> None:
    scores = np.random.default_rng(0).random((6, 8, 3, 3))
    pattern = parse_pattern("2:4")
    assert pattern is not None
    (whole,) = choose_masks({"w": scores}, 0.5, {}, pattern=pattern).values()
    before = np.ones(scores.shape, bool)
    for share in (0.0, 0.2, 0.35, 0.5):
        (mask,) = choose_masks({"w": scores}, share, {"w": before}, pattern=pattern).values()
        assert np.count_nonzero(~mask) == int(share * mask.size)
        assert not (mask & ~before).any() and not (~mask & whole).any()
        if 0 < share < 0.5:
            assert scores[~mask].max() < scores[mask & ~whole].min()
        before = mask
    np.testing.assert_array_equal(before, whole)


def test_a_run_never_loses_more_than_its_pattern_though_scores_change() -> None:
    random = np.random.default_rng(1)
    pattern = parse_pattern("1:4")
    assert pattern is not None
    before = np.ones((5, 12), bool)
    for share in (0.2, 0.4, 0.6, 0.75):
        (before,) = choose_masks({"w": random.random((5, 12))}, share, {"w": before}, pattern=pattern).values()
        assert before.reshape(5, 3, 4).sum(2).min() >= 1
    assert (before.reshape(5, 3, 4).sum(2) == 1).all()


def test_plans_say_what_they_do() -> None:
    graph = parse_graph(LINEAR)
    pattern = parse_pattern("2:4")
    assert pattern is not None
    assert str(plan_weights(graph, 0.5, pattern=pattern)).startswith("keep 2 weights by l1 of every 4 input channels\n")
    plan = plan_weights(graph, 0.5, scope=Scope.GLOBAL, importance=Importance.RANDOM)
    assert str(plan).startswith("zero the 50% least weights by random of all tensors together\n")
