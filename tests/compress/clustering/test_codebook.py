import itertools
import time

import numpy as np
import pytest
from compress.channel_networks import mobilenet, traced
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.compress.clustering import k_means
from toolchain.compress.clustering.codebook import (
    Clustering,
    Granularity,
    apply_codebooks,
    fit_codebook,
    fit_codebooks,
    plan_codebooks,
)
from toolchain.compress.clustering.filters import tie_filters
from toolchain.compress.clustering.k_means import Start, nearest
from toolchain.compress.pruning.magnitude import apply_masks, plan_magnitude
from toolchain.graph import Codebook, Structure, fold


def inertia(weight: np.ndarray, book: Codebook) -> float:
    return float(np.square(weight.astype(np.float64) - book.decode()).sum())


def least_inertia(weight: np.ndarray, clusters: int) -> float:
    """By trying every way to cut the sorted weights into runs."""
    ordered = np.sort(weight.astype(np.float64))
    cuts = itertools.combinations(range(1, len(ordered)), clusters - 1)
    runs = (np.split(ordered, cut) for cut in cuts)
    return min(sum(float(np.square(run - run.mean()).sum()) for run in parts) for parts in runs)


@pytest.mark.parametrize("clusters", [2, 3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_close_to_the_best_there_is(clusters: int, seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal(14).astype(np.float32)
    best = least_inertia(weight, clusters)
    assert best * (1 - 1e-5) <= inertia(weight, fit_codebook(weight, clusters)) <= 1.5 * best


def test_the_best_there_is_where_clusters_lie_apart() -> None:
    random = np.random.default_rng(0)
    centres = np.array([-3.0, -1.0, 0.0, 2.0])
    weight = (random.choice(centres, 13) + 0.05 * random.standard_normal(13)).astype(np.float32)
    book = fit_codebook(weight, 4)
    assert inertia(weight, book) == pytest.approx(least_inertia(weight, 4), rel=1e-4)


@pytest.mark.parametrize("draw", ["standard_normal", "laplace"])
@pytest.mark.parametrize("clusters", [4, 16, 64])
def test_no_worse_than_the_k_means_of_scikit_learn(draw: str, clusters: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    weight = getattr(np.random.default_rng(0), draw)(size=5000).astype(np.float32)
    start = np.linspace(weight.min(), weight.max(), clusters).reshape(-1, 1)
    peer = cluster.KMeans(clusters, init=start, n_init=1).fit(weight.reshape(-1, 1)).inertia_
    assert inertia(weight, fit_codebook(weight, clusters)) <= peer * (1 + 1e-3)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    st.integers(2, 9),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_what_every_codebook_promises(values: list[float], clusters: int, seed: int, masked: bool) -> None:
    mask = np.random.default_rng(seed).random(len(values)) > 0.5 if masked else np.ones(len(values), bool)
    weight = np.array(values, np.float32) * mask
    book = fit_codebook(weight, clusters, mask if masked else None)
    assert book.values.dtype == np.float32
    assert book.indices.dtype == np.uint8
    assert book.indices.shape == weight.shape
    assert len(book.values) <= clusters
    assert (np.diff(book.values) >= 0).all()
    assert set(book.indices.tolist()) == set(range(len(book.values)))  # each is in use
    assert not book.decode()[~mask].any()
    if len(set(weight[mask].tolist())) + (not mask.all()) <= clusters:
        np.testing.assert_array_equal(book.decode(), weight)
    # each weight takes the nearest of the values it may take
    own = np.setdiff1d(np.arange(len(book.values)), np.unique(book.indices[~mask]))
    distance = np.abs(weight[mask].astype(np.float64)[:, None] - book.values[own].astype(np.float64))
    if own.size:
        taken = np.abs(weight[mask].astype(np.float64) - book.decode()[mask])
        np.testing.assert_allclose(taken, distance.min(axis=1), rtol=1e-6, atol=1e-9)


def test_masked_weights_have_a_zero_of_their_own() -> None:
    """Otherwise training the values would move the zero that kept weights share with masked ones."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((40, 40)).astype(np.float32)
    mask = random.random((40, 40)) > 0.6
    book = fit_codebook(weight * mask, 8, mask)
    (zero,) = np.flatnonzero(book.values == 0)
    np.testing.assert_array_equal(book.indices == zero, ~mask)
    assert len(book.values) == 8


def test_everything_masked_is_one_zero() -> None:
    book = fit_codebook(np.zeros(5, np.float32), 16, np.zeros(5, bool))
    assert book.values.tolist() == [0.0]
    assert not book.indices.any()


def test_values_next_to_each_other_stay_apart() -> None:
    pair = np.array([1.0, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    np.testing.assert_array_equal(fit_codebook(np.repeat(pair, 3), 2).decode(), np.repeat(pair, 3))
    np.testing.assert_array_equal(nearest(pair, pair), [0, 1])


def test_the_same_weights_give_the_same_codebook() -> None:
    weight = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    first, again = fit_codebook(weight, 32), fit_codebook(weight.copy(), 32)
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.indices, again.indices)


@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("draw", ["standard_normal", "laplace"])
def test_no_start_ends_far_from_the_best(start: Start, draw: str) -> None:
    """Centroids are moved where they gain, wherever they started: within a tenth of the best of all starts."""
    weight = getattr(np.random.default_rng(0), draw)(size=3000).astype(np.float32)
    found = {other: inertia(weight, fit_codebook(weight, 16, start=other)) for other in Start}
    assert found[start] <= 1.1 * min(found.values())


def test_starts_differ_and_a_seed_decides() -> None:
    ordered = np.sort(np.random.default_rng(0).laplace(size=2000)).astype(np.float32)
    starts = {start: k_means._started(ordered, ordered, 8, start, 0) for start in Start}
    assert starts[Start.LINEAR][[0, -1]].tolist() == [ordered[0], ordered[-1]]
    between = np.searchsorted(ordered, starts[Start.DENSITY])
    np.testing.assert_array_equal(np.diff(between), 250)  # as many weights between each two
    again, other = (k_means._started(ordered, ordered, 8, Start.PLUS_PLUS, seed) for seed in (0, 1))
    np.testing.assert_array_equal(starts[Start.PLUS_PLUS], again)
    assert (again != other).any()
    assert all((np.diff(centroids) >= 0).all() and len(centroids) == 8 for centroids in starts.values())


def test_no_value_is_wasted_between_two_heaps() -> None:
    """Weights that pruning left lie in two heaps, with room for centroids between them that no weight is near to."""
    weight = np.random.default_rng(0).standard_normal(60_000).astype(np.float32)
    weight = weight[np.abs(weight) > np.quantile(np.abs(weight), 0.95)]
    assert len(fit_codebook(weight, 7).values) == 7


def rows_apart(rows: int = 6, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((rows, 3, 5, 5)) * 4.0 ** np.arange(rows).reshape(-1, 1, 1, 1)).astype(np.float32)


@pytest.mark.parametrize(("granularity", "count"), [("per_tensor", 1), ("per_group", 3), ("per_channel", 6)])
def test_each_codebook_serves_its_own_channels(granularity: str, count: int) -> None:
    weight = rows_apart()
    chosen = Clustering(clusters=4, granularity=Granularity(granularity), group_size=2)
    book = fit_codebooks(tie_filters(weight, 0.0), chosen)
    assert book.sizes == (4,) * count
    rows = book.owners.reshape(6, -1)
    np.testing.assert_array_equal(rows, np.repeat(np.arange(6) * count // 6, 75).reshape(6, -1))
    assert book.is_per_channel == (granularity == "per_channel")
    assert Structure(codebooks={"w": book}).violations({"w": book.decode()}) == []
    for group in range(count):
        part = weight[rows[:, 0] == group]
        alone = fit_codebook(part, 4)
        np.testing.assert_array_equal(book.decode()[rows[:, 0] == group], alone.decode())


def test_finer_codebooks_lose_less() -> None:
    weight, losses = rows_apart(), []
    for granularity in Granularity:  # from coarse to fine
        chosen = Clustering(clusters=4, granularity=granularity, group_size=2)
        losses.append(inertia(weight, fit_codebooks(tie_filters(weight, 0.0), chosen)))
    assert losses == sorted(losses, reverse=True)


def test_more_than_256_values_take_wider_indices() -> None:
    chosen = Clustering(clusters=16, granularity=Granularity.PER_CHANNEL)
    book = fit_codebooks(tie_filters(rows_apart(40), 0.0), chosen)
    assert book.indices.dtype == np.uint16
    assert len(book.values) == 640


def test_masks_hold_in_every_codebook() -> None:
    weight = rows_apart()
    mask = np.abs(weight) > np.median(np.abs(weight), axis=(1, 2, 3), keepdims=True)
    mask[2] = False  # a whole filter
    book = fit_codebooks(
        tie_filters(weight * mask, 0.0, mask), Clustering(clusters=4, granularity=Granularity.PER_CHANNEL)
    )
    structure = Structure({"w": mask}, {"w": book})
    assert structure.violations({"w": book.decode()}) == []
    np.testing.assert_array_equal(book.decode() != 0, mask)


def near_filters() -> np.ndarray:
    random = np.random.default_rng(0)
    base = random.standard_normal((3, 2, 3, 3))
    return (base[[0, 1, 0, 2, 1, 0]] + 0.01 * random.standard_normal((6, 2, 3, 3))).astype(np.float32)


def test_near_filters_become_their_mean() -> None:
    weight = near_filters()
    tied = tie_filters(weight, 0.1)
    assert tied.owners.tolist() == [0, 1, 0, 3, 1, 0]
    assert tied.count == 3
    np.testing.assert_allclose(tied.weight[0], weight[[0, 2, 5]].mean(0), atol=1e-6)
    np.testing.assert_array_equal(tied.weight[[2, 4, 5]], tied.weight[[0, 1, 0]])
    np.testing.assert_array_equal(tied.weight[3], weight[3])
    assert tie_filters(weight, 0.0).count == 0
    assert np.linalg.norm(tied.weight - weight) <= 0.1 * np.linalg.norm(weight)


def test_tied_filters_share_their_zeros_and_their_codebook() -> None:
    weight, mask = near_filters(), np.ones((6, 2, 3, 3), bool)
    mask[0, 0, 0, 0] = mask[4, 1, 2, 2] = False
    tied = tie_filters(weight * mask, 0.5, mask)
    assert tied.mask is not None and not tied.mask[[0, 2, 5], 0, 0, 0].any() and not tied.mask[[1, 4], 1, 2, 2].any()
    book = fit_codebooks(tied, Clustering(clusters=8, granularity=Granularity.PER_CHANNEL))
    assert len(book.sizes) == 3
    np.testing.assert_array_equal(book.indices[[2, 4, 5]], book.indices[[0, 1, 0]])
    assert Structure({"w": tied.mask}, {"w": book}).violations({"w": book.decode()}) == []
    assert not book.is_per_channel  # two channels share one, and so a scale


@pytest.mark.parametrize("clusters", [1, 257])
def test_an_index_is_a_byte(clusters: int) -> None:
    with pytest.raises(ValueError, match="2 to 256"):
        fit_codebook(np.zeros(4, np.float32), clusters)


@pytest.mark.parametrize("clusters", [16, 256])
def test_a_million_weights_take_less_than_a_second(clusters: int) -> None:
    weight = np.random.default_rng(0).standard_normal((1000, 1000)).astype(np.float32)
    started = time.process_time()
    book = fit_codebook(weight, clusters)
    assert time.process_time() - started < 1.0
    assert len(book.values) == clusters


def test_codebooks_of_a_graph_hold_masks_and_print() -> None:
    graph = fold(traced(mobilenet()))
    masks = plan_magnitude(graph, 0.5)
    sparse, structure = apply_masks(masks, graph), Structure(masks.masks)
    plan = plan_codebooks(sparse, 8, structure)
    clustered = apply_codebooks(plan, sparse)
    assert structure.with_codebooks(plan.codebooks).violations(clustered.constants) == []
    assert all(np.count_nonzero(clustered.constants[n]) == np.count_nonzero(m) for n, m in masks.masks.items())
    assert set(plan.codebooks) == set(masks.masks)
    assert all(0 < error < 0.3 for error in plan.errors.values())
    first = next(iter(plan.codebooks))
    assert f"{first} " in str(plan)
    assert plan.facts()["tensors"][first]["values"] == 8
