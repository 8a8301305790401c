"""Features that a student learns from a teacher: which tensors, and how two of them are compared.

    equal shapes           |f - g|^2 / |g|^2                                              FitNets, arXiv 1412.6550
    equal but in channels  the same of a(f) and a(g), a(x) = sum_c x_c^2 / |sum_c x_c^2|  arXiv 1612.03928
    else                   the same of s(f) and s(g), s(x) = row-normalised x x^T (N, N)  arXiv 1907.09682

Attention maps are the softmax results that a matrix product reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from toolchain.errors import OptionError, raise_collected
from toolchain.graph import Graph, Op
from toolchain.graph.cost import node_costs

AUTOMATIC_FEATURES = 4


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Relative squared error of two features with the batch first, compared as the module says; a scalar."""
    if student.shape != teacher.shape:
        same_places = student.ndim == teacher.ndim > 2 and student.shape[2:] == teacher.shape[2:]
        compare = _attention if same_places else _similarity
        student, teacher = compare(student), compare(teacher)
    return (student - teacher).square().sum() / teacher.square().sum().clamp_min(1e-12)


def _attention(x: Tensor) -> Tensor:
    """Where a feature (N, C, ...) is active: (N, places), of length 1."""
    return F.normalize(x.square().sum(1).flatten(1), dim=1)


def _similarity(x: Tensor) -> Tensor:
    """How alike the samples of a batch are: (N, N), rows of length 1."""
    rows = x.flatten(1)
    return F.normalize(rows @ rows.T, dim=1)


def choose_features(student: Graph, teacher: Graph, count: int = AUTOMATIC_FEATURES) -> dict[str, str]:
    """Up to `count` results of layers that both graphs have, spread evenly over the student's multiply-adds.

    Raises OptionError where the graphs share none.
    """
    shared = {node.output for node in student.nodes if _is_shared(student, teacher, node.output)}
    costs = [cost.macs for cost in node_costs(student)]
    done = 0
    chosen: dict[str, str] = {}
    for node, macs in zip(student.nodes, costs, strict=True):
        done += macs
        wanted = len(chosen) + 1
        if node.output in shared and len(chosen) < count and done * (count + 1) >= wanted * sum(costs):
            chosen[node.output] = node.output
    if not chosen:
        raise OptionError(
            "the student and the teacher have no layer of one name", hint='name pairs: features = ["student=teacher"]'
        )
    return chosen


def attention_maps(student: Graph, teacher: Graph) -> dict[str, str]:
    """Softmax results that matrix products read, and that both graphs have; empty where there are none."""
    read = {name for node in student.nodes if node.op is Op.MATMUL for name in node.inputs}
    found = [n.output for n in student.nodes if n.op is Op.SOFTMAX and n.output in read]
    return {name: name for name in found if _is_shared(student, teacher, name)}


def named_features(student: Graph, teacher: Graph, names: Sequence[str]) -> dict[str, str]:
    """Pairs of tensors from `name` or `student=teacher`. Raises OptionError naming all that are no activation."""
    pairs = [(name.partition("=")[0], name.partition("=")[2] or name.partition("=")[0]) for name in names]
    findings = [
        f"{role} has no tensor {name!r}"
        for pair in pairs
        for role, graph, name in zip(("the student", "the teacher"), (student, teacher), pair, strict=True)
        if name not in graph.types or graph.is_constant(name) or not graph.is_real(name)
    ]
    raise_collected(OptionError, "features that are not there:", findings)
    return dict(pairs)


def _is_shared(student: Graph, teacher: Graph, name: str) -> bool:
    if name not in teacher.types or teacher.is_constant(name) or name in student.outputs:
        return False
    return student.is_real(name) and teacher.is_real(name) and len(student.types[name].shape) > 1
