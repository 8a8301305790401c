import numpy as np
import pytest
from compress.ranges import channel_ranges, difference

from toolchain.compress.equalisation.migrate import migrate, with_affine_norms
from toolchain.engine.run import predict
from toolchain.graph import Codebook, Graph, Structure, parse_graph

BLOCK = """
    input x: float32[2,6,16]
    {constants}
    constant q.weight: float32[16,16]
    constant k.weight: float32[16,16]
    constant v.weight: float32[16,16]
    constant o.weight: float32[8,16]
    n = {norm}
    q = linear(n, q.weight)
    k = linear(n, k.weight)
    v = linear(n, v.weight)
    t = permute(k) axes=(0,2,1)
    s = matmul(q, t)
    p = softmax(s) axis=2
    y = matmul(p, v)
    o = linear(y, o.weight)
    output o"""

AFFINE = "constant n.weight: float32[16]\n constant n.bias: float32[16]"


def with_outliers(graph: Graph) -> Graph:
    """Two channels of the norm's result a hundred times larger than the others."""
    gamma = np.ones(16, np.float32)
    gamma[[3, 11]] = 100.0
    columns = {n: graph.constants[n] * np.float32(0.05) for n in ("q.weight", "k.weight", "v.weight")}
    return graph.with_constants({"n.weight": gamma, **columns})


def batch(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, 6, 16)).astype(np.float32)


@pytest.mark.parametrize("measured", [True, False])
def test_outliers_behind_a_norm_move_into_all_its_readers(measured: bool) -> None:
    graph = with_outliers(parse_graph(BLOCK.format(constants=AFFINE, norm="layer_norm(x, n.weight, n.bias) axes=(2,)")))
    samples = [(batch(),)] if measured else []
    moved, plan = migrate(graph, channel_ranges(graph, (batch(),)), samples=samples)
    found = {tensor.name: tensor for tensor in plan.tensors}
    assert found["n"].readers == ("q", "k", "v")
    assert found["n"].alpha is not None
    assert found["n"].spread_before > 20
    assert found["n"].spread_after < found["n"].spread_before / 3
    assert found["n"].error_db[1] < found["n"].error_db[0] - 3
    assert difference(graph, moved, batch(1)) < 1e-5
    assert plan.measured is measured
    assert "q, k, v" in str(plan)


@pytest.mark.parametrize("norm", ["layer_norm(x) axes=(2,)", "rms_norm(x) axes=(2,)"])
def test_a_norm_without_an_affine_part_gets_one_where_it_pays(norm: str) -> None:
    plain = parse_graph(BLOCK.format(constants="", norm=norm))
    x = batch()
    x[..., 5] *= 40  # survives the norm as an outlier
    moved, plan = migrate(plain, channel_ranges(plain, (x,)), samples=[(x,)])
    assert len(moved.producers["n"].inputs) > 1
    assert next(t for t in plan.tensors if t.name == "n").alpha is not None
    assert difference(plain, moved, x) < 1e-5


def test_norms_that_gain_nothing_stay_as_they_are() -> None:
    plain = parse_graph(BLOCK.format(constants="", norm="layer_norm(x) axes=(2,)"))
    wide = with_affine_norms(plain)
    assert len(wide.producers["n"].inputs) == 3
    np.testing.assert_array_equal(predict(wide, [(batch(),)])[0], predict(plain, [(batch(),)])[0])
    kept, plan = migrate(plain, channel_ranges(plain, (batch(),)), alphas=(0.0,))
    if next(t for t in plan.tensors if t.name == "n").alpha is None:
        assert kept.producers["n"].inputs == ("x",)


def test_a_product_of_linear_layers_is_followed() -> None:
    graph = parse_graph("""
        input x: float32[2,6,8]
        constant up.weight: float32[12,8]
        constant gate.weight: float32[12,8]
        constant down.weight: float32[8,12]
        up = linear(x, up.weight)
        gate = linear(x, gate.weight)
        g = sigmoid(gate)
        m = mul(up, g)
        down = linear(m, down.weight)
        output down""")
    weight = graph.constants["up.weight"].copy()
    weight[4] *= 60
    graph = graph.with_constants({"up.weight": weight})
    x = batch()[..., :8]
    moved, plan = migrate(graph, channel_ranges(graph, (x,)), samples=[(x,)])
    (site,) = plan.tensors
    assert (site.name, site.readers) == ("m", ("down",))
    assert site.alpha is not None
    assert difference(graph, moved, x) < 1e-5


def test_a_codebook_keeps_its_values() -> None:
    graph = with_outliers(parse_graph(BLOCK.format(constants=AFFINE, norm="layer_norm(x, n.weight, n.bias) axes=(2,)")))
    book = Codebook(np.zeros(4, np.float32), np.zeros((16, 16), np.uint8))
    structure = Structure(codebooks={"k.weight": book})
    moved, plan = migrate(graph, channel_ranges(graph, (batch(),)), structure=structure)
    assert all(tensor.name != "n" for tensor in plan.tensors)
    np.testing.assert_array_equal(moved.constants["k.weight"], graph.constants["k.weight"])


def test_layers_that_mix_rows_and_layers_that_mix_columns_of_one_norm() -> None:
    graph = parse_graph("""
        input x: float32[2,6,8]
        constant n.weight: float32[8]
        constant n.bias: float32[8]
        constant rows.weight: float32[6,6]
        constant columns.weight: float32[8,8]
        n = layer_norm(x, n.weight, n.bias) axes=(2,)
        t = permute(n) axes=(0,2,1)
        rows = linear(t, rows.weight)
        back = permute(rows) axes=(0,2,1)
        columns = linear(n, columns.weight)
        s = add(back, columns)
        output s""")
    x = batch()[..., :8]
    moved, _ = migrate(graph, channel_ranges(graph, (x,)), samples=[(x,)])
    assert difference(graph, moved, x) < 1e-5
