"""The neutral graph: types, ops, shape rules, folding, cost, text form. Knows nothing of torch or of any file
format."""

from toolchain.graph.batch import BATCHES, mixes_samples, with_batch
from toolchain.graph.finding import Finding
from toolchain.graph.fold import fold, fold_structure
from toolchain.graph.graph import Graph, subgraph, sweep
from toolchain.graph.node import Node, unsupported
from toolchain.graph.ops import RECURRENT, WEIGHTED, Op, weight_inputs
from toolchain.graph.structure import Codebook, Structure
from toolchain.graph.text import format_graph, parse_graph
from toolchain.graph.types import DType, Source, TensorType, Value

__all__ = [
    "BATCHES",
    "RECURRENT",
    "WEIGHTED",
    "Codebook",
    "DType",
    "Finding",
    "Graph",
    "Node",
    "Op",
    "Source",
    "Structure",
    "TensorType",
    "Value",
    "fold",
    "fold_structure",
    "format_graph",
    "mixes_samples",
    "parse_graph",
    "subgraph",
    "sweep",
    "unsupported",
    "weight_inputs",
    "with_batch",
]
