"""The terms of the loss by their formulas, and how features are chosen and compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from toolchain.compress.recovery.choices import Task
from toolchain.compress.recovery.features import attention_maps, choose_features, feature_loss, named_features
from toolchain.compress.recovery.objective import Objective, Targets
from toolchain.errors import OptionError
from toolchain.graph import parse_graph

ATTENTION = """input x: float32[1,6,8]
constant w: float32[8,8]
q = linear(x, w)
k = linear(q, w)
s = matmul(q, t)
a = softmax(s) axis=-1
y = matmul(a, k)
output y"""


def logits(seed: int) -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_nearness_is_the_inverse_of_the_signal_to_noise_ratio():
    y, t = logits(0), logits(1).detach()
    loss = Objective().loss((y,), {}, Targets((t,)))
    torch.testing.assert_close(loss, ((y - t) ** 2).sum() / (t**2).sum())


def test_soft_classes_are_weighed_by_the_squared_temperature_and_alpha():
    y, t = logits(0), logits(1).detach()
    plain = Objective().loss((y,), {}, Targets((t,)))
    soft = Objective(temperature=3.0, alpha=0.5).loss((y,), {}, Targets((t,)))
    p = (t / 3).softmax(-1)
    divergence = (p * (p.log() - (y / 3).log_softmax(-1))).sum() / 6
    torch.testing.assert_close(soft - plain, 0.5 * 9 * divergence)


def test_cross_entropy_needs_labels_and_class_scores():
    objective, labels = Objective(task=Task.CROSS_ENTROPY), torch.arange(6) % 5
    loss = objective.loss((logits(0),), {}, Targets(labels=labels))
    torch.testing.assert_close(loss, F.cross_entropy(logits(0), labels))
    with pytest.raises(OptionError, match="needs labels"):
        objective.loss((logits(0),), {}, Targets())
    with pytest.raises(OptionError, match="class scores"):
        objective.loss((logits(0)[None],), {}, Targets(labels=labels))


def test_a_loss_of_the_users_sees_outputs_targets_and_labels():
    labels = torch.arange(6)
    task = lambda outputs, targets, known: (outputs[0] - targets[0]).abs().mean() + known.sum()  # noqa: E731
    y, t = logits(0), logits(1).detach()
    torch.testing.assert_close(
        Objective(task=task).loss((y,), {}, Targets((t,), labels=labels)), (y - t).abs().mean() + 15
    )


@pytest.mark.parametrize("wrong", [0.5, torch.ones(3), torch.tensor(1.0)], ids=["number", "vector", "constant"])
def test_a_loss_without_a_gradient_is_refused(wrong):
    with pytest.raises(OptionError, match="the loss returned"):
        Objective(task=lambda *_: wrong).loss((logits(0),), {}, Targets())


def test_features_are_the_mean_over_pairs():
    y, t = logits(0), logits(1).detach()
    ours, theirs = torch.randn(2, 6, 3, 4, 4)
    objective = Objective(features={"a": "a", "b": "c"}, alpha=2.0, feature_weight=3.0)
    loss = objective.loss((y,), {"a": ours, "b": theirs}, Targets((t,), {"a": theirs, "b": theirs}))
    expected = 6 * 0.5 * ((ours - theirs) ** 2).sum() / (theirs**2).sum()
    torch.testing.assert_close(loss - Objective().loss((y,), {}, Targets((t,))), expected)


@pytest.mark.parametrize("shape", [(6, 3, 4, 4), (6, 5, 4, 4), (6, 7), (6, 2, 9, 9)])
def test_features_of_any_shapes_are_comparable(shape):
    theirs = torch.randn(6, 5, 4, 4)
    ours = torch.randn(shape).requires_grad_()
    loss = feature_loss(ours, theirs)
    loss.backward()
    assert loss.ndim == 0
    assert loss > 0
    assert ours.grad.abs().max() > 0
    assert feature_loss(theirs, theirs) == 0


def test_attention_of_unlike_channels_says_where_and_not_how_much():
    theirs = torch.randn(6, 5, 4, 4)
    assert feature_loss(torch.cat([theirs, theirs], 1) * 3, theirs) < 1e-10


def chain(names: str) -> str:
    lines = ["input x: float32[1,8]", *(f"constant w{n}: float32[8,8]" for n in names)]
    before = ["x", *names]
    return "\n".join(
        [*lines, *(f"{n} = linear({b}, w{n})" for b, n in zip(before, names, strict=False)), f"output {names[-1]}"]
    )


def test_features_are_spread_over_the_work_and_are_no_outputs():
    student, teacher = parse_graph(chain("abcdefgh")), parse_graph(chain("abcdefghi"))
    assert list(choose_features(student, teacher, 3)) == ["b", "d", "f"]
    with pytest.raises(OptionError, match="no layer of one name"):
        choose_features(student, parse_graph(chain("zyw")))


def test_attention_maps_are_what_softmax_gives_a_product():
    text = ATTENTION.replace("s = matmul", "t = permute(k) axes=(0,2,1)\ns = matmul")
    graph = parse_graph(text, {"w": np.ones((8, 8), np.float32)})
    assert attention_maps(graph, graph) == {"a": "a"}


def test_names_that_are_no_activations_are_all_told():
    student, teacher = parse_graph(chain("abc")), parse_graph(chain("pqr"))
    assert named_features(student, teacher, ["a=p", "b=q"]) == {"a": "p", "b": "q"}
    with pytest.raises(OptionError, match=r"the teacher has no tensor 'b'(?s:.)*the student has no tensor 'wa'"):
        named_features(student, teacher, ["b", "wa=p"])
