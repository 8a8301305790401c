"""The network node by node: what each costs, and how far its tensor is from the float graph's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolchain.graph import DType, Graph, Source, fold
from toolchain.graph.cost import node_costs, peak_activation_bytes
from toolchain.quantization import AffineParams
from toolchain.report.plain import finite
from toolchain.stages.states import ExportedModel
from toolchain.validation.results import TensorResult


def layer_rows(model: ExportedModel, tensors: Mapping[str, TensorResult]) -> list[dict[str, Any]]:
    """One entry an input and a node, in evaluation order."""
    graph = model.graph
    stored = stored_bytes(graph, model.params)
    rows = [_row(name, name, "input", Source(name), tensors.get(name)) for name in graph.input_names]
    for node, cost, weight_bytes in zip(graph.nodes, node_costs(graph), stored, strict=True):
        row = _row(node.name, node.output, node.op.value, node.source, tensors.get(node.output))
        rows.append(row | {"macs": cost.macs, "parameters": cost.parameters, "weight_bytes": weight_bytes})
    return rows


def _row(name: str, tensor: str, op: str, source: Source, found: TensorResult | None) -> dict[str, Any]:
    return {
        "name": name,
        "tensor": tensor,
        "op": op,
        "source": {"module": source.module, "file": source.file, "line": source.line or None},
        "macs": 0,
        "parameters": 0,
        "weight_bytes": 0,
        "sqnr_db": finite(found.sqnr_db) if found else None,
        "range_low": finite(found.low) if found else None,
        "range_high": finite(found.high) if found else None,
        "seen_low": finite(found.seen_low) if found else None,
        "seen_high": finite(found.seen_high) if found else None,
        "op_steps": dict(sorted(found.op_steps.items())) if found else {},
    }


def stored_bytes(graph: Graph, params: Mapping[str, AffineParams]) -> list[int]:
    """Bytes of constants each node brings into a file; one read by two nodes is counted at the first."""
    seen: set[str] = set()
    found = []
    for node in graph.nodes:
        own = [name for name in dict.fromkeys(node.inputs) if name in graph.constants and name not in seen]
        seen.update(own)
        found.append(sum(graph.constants[name].size * _dtype(graph, params, name).bytes for name in own))
    return found


def graph_cost(graph: Graph, params: Mapping[str, AffineParams]) -> dict[str, int]:
    """Totals over a graph: multiply-accumulates, parameters, bytes of weights, peak bytes of activations."""
    costs = node_costs(graph)
    quantized = [params[name].dtype.bytes for name in graph.activations if name in params]
    return {
        "macs": sum(cost.macs for cost in costs),
        "parameters": sum(cost.parameters for cost in costs),
        "weight_bytes": sum(stored_bytes(graph, params)),
        "peak_activation_bytes": peak_activation_bytes(graph, max(quantized, default=None)),
    }


def float_cost(reference: Graph) -> dict[str, int]:
    """Totals over the float file, whose batch norms are folded as the deployed file's are."""
    return graph_cost(fold(reference), {})


def _dtype(graph: Graph, params: Mapping[str, AffineParams], name: str) -> DType:
    return params[name].dtype if name in params else graph.types[name].dtype
