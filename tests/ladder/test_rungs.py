"""Which rungs there are, and in which order."""

import numpy as np

from toolchain import samples_from
from toolchain.graph import parse_graph
from toolchain.ladder.goal import Goal
from toolchain.ladder.judge import Judge
from toolchain.ladder.means import Means
from toolchain.ladder.rungs import LEARNED, ONLY_ASKED_FOR, make_rungs


def test_the_ladder_leaves_out_what_costs_as_much_and_reaches_less() -> None:
    samples = samples_from(np.zeros((4, 3), np.float32))
    graph = parse_graph("input x: float32[1,3]\ny = relu(x)\noutput y")
    means = Means(samples=samples, goal=Goal(sqnr_db=20.0), alternatives=(), seed=0, seconds=1.0)
    names = [rung.name for rung in make_rungs(means, Judge(graph, samples, (), None))]
    assert set(LEARNED) - ONLY_ASKED_FOR == {"learned rounding", "rounding by blocks"}
    assert not ONLY_ASKED_FOR & set(names)
    assert names.index("learned rounding") < names.index("rounding by blocks") < names.index("finer activations")
