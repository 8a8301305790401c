import numpy as np
import pytest

from toolchain.compress.channels.groups import ChannelGroup, find_groups
from toolchain.compress.channels.rules import CHANNEL_RULES, matching_runs
from toolchain.graph import Op, parse_graph


def groups_of(text: str) -> dict[str, ChannelGroup]:
    return {group.name: group for group in find_groups(parse_graph(text))}


def places(group: ChannelGroup) -> dict[str, list[list[int]]]:
    return {f"{cut.tensor}[{cut.axis}]": cut.indices.tolist() for cut in group.cuts}


def test_every_op_has_a_rule() -> None:
    assert set(CHANNEL_RULES) == set(Op)


@pytest.mark.parametrize(
    ("given", "wanted", "runs"),
    [
        ((1, 4, 2, 3), (1, 24), [([1, 2, 3], [1])]),
        ((2, 3, 1, 4), (6, 4), [([0, 1], [0]), ([3], [1])]),
        ((5, 4, 1, 1), (5, 4), [([0], [0]), ([1], [1])]),
        ((1, 12), (1, 3, 2, 2), [([1], [1, 2, 3])]),
        ((4, 6), (3, 8), [([0, 1], [0, 1])]),
        ((1, 1), (1,), []),
    ],
)
def test_matching_runs(given, wanted, runs) -> None:
    assert matching_runs(given, wanted) == runs


def test_linear_makes_and_reads_channels() -> None:
    found = groups_of("""
        input x: float32[1,3]
        constant a.weight: float32[4,3]
        constant a.bias: float32[4]
        constant b.weight: float32[2,4]
        a = linear(x, a.weight, a.bias)
        r = relu(a)
        b = linear(r, b.weight)
        output b""")
    each = [[0], [1], [2], [3]]
    assert places(found["a"]) == {"a.weight[0]": each, "a.bias[0]": each, "b.weight[1]": each}
    assert found["a"].prunable
    assert found["x"].reason == "x is an input of the graph"
    assert found["b"].reason == "b is an output of the graph"


def test_flatten_gives_each_channel_its_columns() -> None:
    found = groups_of("""
        input x: float32[1,3,4,4]
        constant c.weight: float32[2,3,3,3]
        constant l.weight: float32[5,8]
        c = conv2d(x, c.weight)
        f = reshape(c) shape=(1,8)
        l = linear(f, l.weight)
        output l""")
    assert places(found["c"]) == {"c.weight[0]": [[0], [1]], "l.weight[1]": [[0, 1, 2, 3], [4, 5, 6, 7]]}


def test_flatten_after_a_permute_strides_over_the_columns() -> None:
    found = groups_of("""
        input x: float32[1,3,4,4]
        constant c.weight: float32[2,3,3,3]
        constant l.weight: float32[5,8]
        c = conv2d(x, c.weight)
        p = permute(c) axes=(0,2,3,1)
        f = reshape(p) shape=(1,8)
        l = linear(f, l.weight)
        output l""")
    assert places(found["c"])["l.weight[1]"] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_unflatten_ties_the_columns_of_a_channel() -> None:
    found = groups_of("""
        input x: float32[1,3]
        constant l.weight: float32[8,3]
        constant c.weight: float32[5,2,1,1]
        l = linear(x, l.weight)
        r = reshape(l) shape=(1,2,2,2)
        c = conv2d(r, c.weight)
        output c""")
    assert places(found["l"]) == {"l.weight[0]": [[0, 1, 2, 3], [4, 5, 6, 7]], "c.weight[1]": [[0], [1]]}


def test_concat_keeps_branches_apart_and_offsets_the_second() -> None:
    found = groups_of("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[2,3,1,1]
        constant b.weight: float32[3,3,1,1]
        constant c.weight: float32[4,5,1,1]
        a = conv2d(x, a.weight)
        b = conv2d(x, b.weight)
        j = concat(a, b) axis=1
        c = conv2d(j, c.weight)
        output c""")
    assert places(found["a"])["c.weight[1]"] == [[0], [1]]
    assert places(found["b"])["c.weight[1]"] == [[2], [3], [4]]


def test_concat_with_a_graph_input_cuts_only_the_other_part() -> None:
    found = groups_of("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[2,3,1,1]
        constant c.weight: float32[4,5,1,1]
        a = conv2d(x, a.weight)
        j = concat(x, a) axis=1
        c = conv2d(j, c.weight)
        output c""")
    assert places(found["a"])["c.weight[1]"] == [[3], [4]]
    assert found["a"].prunable


def test_slices_of_channels_are_groups_of_their_own() -> None:
    found = find_groups(
        parse_graph("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[6,3,1,1]
        constant c.weight: float32[4,2,1,1]
        constant d.weight: float32[4,4,1,1]
        a = conv2d(x, a.weight)
        s = slice(a) axes=(1,) starts=(0,) stops=(2,) steps=(1,)
        t = slice(a) axes=(1,) starts=(2,) stops=(6,) steps=(1,)
        c = conv2d(s, c.weight)
        d = conv2d(t, d.weight)
        y = add(c, d)
        output y""")
    )
    cuts = [places(group) for group in found if group.prunable]
    assert cuts == [
        {"a.weight[0]": [[0], [1]], "c.weight[1]": [[0], [1]]},
        {"a.weight[0]": [[2], [3], [4], [5]], "d.weight[1]": [[0], [1], [2], [3]]},
    ]


def test_elementwise_ties_both_and_cuts_constants() -> None:
    found = groups_of("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[2,3,1,1]
        constant b.weight: float32[2,3,1,1]
        constant s: float32[2,1,1]
        constant one: float32[1]
        constant c.weight: float32[4,2,1,1]
        a = conv2d(x, a.weight)
        b = conv2d(x, b.weight)
        j = sub(a, b)
        m = mul(j, s)
        n = add(one, m)
        c = conv2d(n, c.weight)
        output c""")
    each = [[0], [1]]
    assert places(found["a"]) == {"a.weight[0]": each, "b.weight[0]": each, "s[0]": each, "c.weight[1]": each}
    assert "b" not in found


def test_depthwise_ties_inputs_to_the_outputs_they_make() -> None:
    found = groups_of("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[2,3,1,1]
        constant d.weight: float32[4,1,3,3]
        constant d.bias: float32[4]
        constant c.weight: float32[4,4,1,1]
        a = conv2d(x, a.weight)
        d = depthwise_conv2d(a, d.weight, d.bias)
        c = conv2d(d, c.weight)
        output c""")
    pairs = [[0, 1], [2, 3]]
    assert places(found["a"]) == {
        "a.weight[0]": [[0], [1]],
        "d.weight[0]": pairs,
        "d.bias[0]": pairs,
        "c.weight[1]": pairs,
    }


GROUPED = """
    input x: float32[1,3,4,4]
    constant a.weight: float32[{channels},3,1,1]
    constant g.weight: float32[{channels},{fan_in},1,1]
    constant c.weight: float32[4,{channels},1,1]
    a = conv2d(x, a.weight)
    g = conv2d(a, g.weight) groups={groups}
    c = conv2d(g, c.weight)
    output c"""


def test_a_few_large_blocks_lose_the_same_position_each() -> None:
    found = groups_of(GROUPED.format(channels=6, fan_in=3, groups=2))
    assert places(found["a"]) == {"a.weight[0]": [[0, 3], [1, 4], [2, 5]], "g.weight[1]": [[0], [1], [2]]}
    assert places(found["g"]) == {
        "g.weight[0]": [[0, 3], [1, 4], [2, 5]],
        "c.weight[1]": [[0, 3], [1, 4], [2, 5]],
    }


def test_many_small_blocks_go_as_a_whole() -> None:
    found = groups_of(GROUPED.format(channels=6, fan_in=2, groups=3))
    blocks = [[0, 1], [2, 3], [4, 5]]
    assert places(found["a"]) == {"a.weight[0]": blocks, "g.weight[0]": blocks, "c.weight[1]": blocks}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("softmax(a) axis=1", "divides by the sum over it"),
        ("mean(a) axes=(1,) keepdim=True", "divides by its size"),
        ("pad(a) amounts=(0,1,0,0,0,1,0,0)", "pads along it"),
        ("slice(a) axes=(1,) starts=(0,) stops=(4,) steps=(2,)", "takes every 2th of it"),
        ("mul(a, x)", "x is an input of the graph"),
        ("permute(a) axes=(0,2,1,3)", "moves a window along it"),
        ("reshape(a) shape=(1,2,16,2)", "mixes it with other axes"),
    ],
)
def test_what_holds_channels_in_place_says_so(line, reason) -> None:
    shapes = {"mean": 1, "pad": 6, "slice": 2}
    fan_in = shapes.get(line.split("(")[0], 2 if "reshape" in line else 4)
    found = groups_of(f"""
        input x: float32[1,4,4,4]
        constant a.weight: float32[4,4,1,1]
        constant c.weight: float32[3,{fan_in},1,1]
        a = conv2d(x, a.weight)
        m = {line}
        c = conv2d(m, c.weight)
        output c""")
    assert not found["a"].prunable
    assert reason in found["a"].reason


def test_softmax_over_another_axis_lets_channels_pass() -> None:
    found = groups_of("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[2,3,1,1]
        constant c.weight: float32[4,2,1,1]
        a = conv2d(x, a.weight)
        s = softmax(a) axis=3
        c = conv2d(s, c.weight)
        output c""")
    assert found["a"].prunable


def test_a_channel_spread_over_many_stays() -> None:
    found = groups_of("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[4,3,1,1]
        constant b.weight: float32[1,3,1,1]
        constant c.weight: float32[4,4,1,1]
        a = conv2d(x, a.weight)
        b = conv2d(x, b.weight)
        m = mul(a, b)
        c = conv2d(m, c.weight)
        output c""")
    assert found["a"].prunable
    assert "spreads" in found["b"].reason


def test_a_weight_used_twice_ties_what_both_uses_read() -> None:
    found = groups_of("""
        input x: float32[1,3]
        constant a.weight: float32[4,3]
        constant b.weight: float32[4,3]
        constant w: float32[2,4]
        a = linear(x, a.weight)
        b = linear(x, b.weight)
        p = linear(a, w)
        q = linear(b, w)
        y = add(p, q)
        output y""")
    assert set(places(found["a"])) == {"a.weight[0]", "b.weight[0]", "w[1]"}


def test_a_weight_that_feeds_itself_is_cut_on_both_axes() -> None:
    found = groups_of("""
        input x: float32[1,3]
        constant a.weight: float32[4,3]
        constant w: float32[4,4]
        constant o.weight: float32[2,4]
        a = linear(x, a.weight)
        h = linear(a, w)
        k = linear(h, w)
        o = linear(k, o.weight)
        output o""")
    assert set(places(found["a"])) == {"a.weight[0]", "w[0]", "w[1]", "o.weight[1]"}


def test_groups_print_as_one_line_each() -> None:
    (group, *_) = find_groups(parse_graph(GROUPED.format(channels=6, fan_in=2, groups=3)))
    assert str(group) == "a: 3 channels, a.weight[0] x2, g.weight[0] x2, c.weight[1] x2 (prunable)"
    assert isinstance(group.cuts[0].indices, np.ndarray)
