"""What of a graph is known to fail on the HTP before anything is compiled, where a bound of one attribute cannot say
it.

Found by compiling single ops with onnxruntime-qnn 2.7.0 (QAIRT 2.51).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolchain.graph import Finding, Graph, Node, Op
from toolchain.profiles import DeviceProfile
from toolchain.profiles.backends import HTP_SOCS

_MOST_AXES = 5
_LAST_WITHOUT_POINTWISE_DEPTHWISE = 69
"""The last architecture whose compiler may run out of memory over a depthwise convolution of 1x1: it does where it
joins the layer to no other."""


def find(graph: Graph, profile: DeviceProfile) -> tuple[Finding, ...]:
    """Ops that QNN refuses, or does not compile for some SoC."""
    socs = () if profile.qnn is None else profile.qnn.socs
    return tuple(finding for node in graph.nodes for finding in _node_findings(graph, node, socs))


def _node_findings(graph: Graph, node: Node, socs: Sequence[str]) -> Iterator[Finding]:
    label, dtype = f"{node.op} {node.name}", graph.types[node.output].dtype.value
    read = [name for name in node.inputs if not graph.is_constant(name)]
    rank = max(graph.types[name].rank for name in (*read, node.output))
    if rank > _MOST_AXES:
        moves = node.op in (Op.RESHAPE, Op.PERMUTE)
        but = "some patterns of reshape and permute alone pass, else the op runs on the CPU"
        why = f"{rank} axes, the HTP takes {_MOST_AXES}{f': {but}' if moves else ''}"
        yield Finding(label, why, node.source, dtype, "join axes that stay together", blocks=not moves)
    if node.op is Op.DEPTHWISE_CONV2D and set(graph.types[node.inputs[1]].shape[2:]) == {1}:
        old = [soc for soc in socs if HTP_SOCS[soc].htp_arch <= _LAST_WITHOUT_POINTWISE_DEPTHWISE]
        if old:
            why = f"over some depthwise 1x1 convolutions QNN's compiler for {', '.join(old)} runs out of memory"
            instead = "a batch norm right behind a convolution, where it folds away, or a profile of newer SoCs"
            yield Finding(label, why, node.source, dtype, instead, blocks=False)
