"""Where every op of an ONNX file runs, from the trace that QNN's provider writes of it, with QNN's reason and a cure.

onnxruntime changes the graph before it asks the provider: names of nodes get a suffix (`_token_7`, `/duplicated`), and
some nodes are folded into others and are in no trace. QuantizeLinear and DequantizeLinear belong to the ops they stand
beside and are not counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnx import NodeProto

from toolchain.backends.backend import Placement, Written
from toolchain.backends.qnn.findings import find
from toolchain.errors import DeviceError
from toolchain.formats.onnx.reader import parse_onnx
from toolchain.graph import Graph, Node
from toolchain.graph.cost import node_costs
from toolchain.profiles import DeviceProfile, device_findings

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_SUFFIX = re.compile(r"(_token_\d+|/duplicated)+$")
_ASSIGNED = re.compile(r"\.\s*\w+ node `.*` will not be assigned to QNN EP\.?$", re.DOTALL)
_VALIDATOR = "Failed to add node."
_REFUSED = "QNN's validator refuses the op for the HTP with these types, shapes or attributes"


@dataclass(frozen=True)
class Placed:
    """Where ops run, in the file's order, and the shares on the NPU: of the ops, and of the multiply-adds as the graph
    counts them (of an op that becomes several, all must be there)."""

    placements: tuple[Placement, ...]
    nodes_share: float
    macs_share: float


def place(written: Written, trace: Mapping[str, Any], profile: DeviceProfile) -> Placed:
    """Read a trace of the file. Raises DeviceError where it is none, or names nothing of the file."""
    try:
        refused = {_plain(node["node_name"]): node["reason"] for node in trace["unsupported_nodes"]}
        taken = {_plain(name) for name in _sources(trace)}
    except (KeyError, TypeError) as error:
        raise DeviceError(f"QNN's trace of ops cannot be read: {error!r}") from error
    graph = written.model.graph
    owners = _owners(graph)
    instead = _cures(graph, profile)
    placements, off = [], set()
    ops = [proto for proto in parse_onnx(written.content).graph.node if proto.op_type not in _CONVERSIONS]
    named = [proto for proto in ops if proto.name in refused or proto.name in taken]
    if ops and not named:
        raise DeviceError(f"QNN's trace names none of the {len(ops)} ops of {written.name}")
    for proto in named:
        owner = _owner(proto, owners)
        if proto.name in refused:
            off.add(owner.output if owner else "")
            cure = instead.get(owner.output, "") if owner else ""
            placements.append(Placement(proto.op_type, proto.name, "cpu", _reason(refused[proto.name]), cure))
        else:
            placements.append(Placement(proto.op_type, proto.name, "npu"))
    return Placed(tuple(placements), _nodes_share(placements), _macs_share(graph, off))


def _plain(name: str) -> str:
    return _SUFFIX.sub("", name)


def _sources(trace: Mapping[str, Any]) -> Iterator[str]:
    for part in trace["subgraph_traces"]:
        for mapping in part["op_mappings"]:
            yield from (source["name"] for source in mapping["sources"] if source["type"] == "OP")


def _reason(said: str) -> str:
    return _REFUSED if said == _VALIDATOR else _ASSIGNED.sub("", said).strip().rstrip(".")


def _owners(graph: Graph) -> dict[str, Node]:
    """Nodes of the graph by their own name and by that of the tensor they make."""
    return {node.output: node for node in graph.nodes} | {node.name: node for node in graph.nodes}


def _owner(proto: NodeProto, owners: Mapping[str, Node]) -> Node | None:
    """The node that `proto` was written for: one of its name, or the one its name lies under."""
    name = str(proto.name)
    while name not in owners and "/" in name:
        name = name.rpartition("/")[0]
    return owners.get(name)


def _cures(graph: Graph, profile: DeviceProfile) -> dict[str, str]:
    """What to write instead of an op, by its output: as the profile's rules and those of the HTP say."""
    known = (*device_findings(graph, profile), *find(graph, profile))
    by_label = {finding.op: finding.instead for finding in known if finding.instead}
    told = {node.output: profile.execution.instead.get(node.op, "") for node in graph.nodes}
    return told | {
        node.output: by_label[label] for node in graph.nodes if (label := f"{node.op} {node.name}") in by_label
    }


def _nodes_share(placements: list[Placement]) -> float:
    return sum(one.where == "npu" for one in placements) / len(placements) if placements else 1.0


def _macs_share(graph: Graph, off: set[str]) -> float:
    costs = {node.output: cost.macs for node, cost in zip(graph.nodes, node_costs(graph), strict=True)}
    total = sum(costs.values())
    return sum(macs for name, macs in costs.items() if name not in off) / total if total else 1.0
