"""What compression fixed, proved from the bytes: each file's weights are read back and laid out as the graph has them.

For each weight: zeros lie where its mask says, each codebook has at most its k values, integers lie on the grid that
the specification gives them. A float file is held to the same masks and codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from toolchain.errors import DisagreementError, raise_collected
from toolchain.formats.onnx.check import read_constants as read_onnx_constants
from toolchain.formats.onnx.external import SUFFIX as DATA_SUFFIX
from toolchain.formats.tflite.check import read_constants as read_tflite_constants
from toolchain.graph import Structure, weight_inputs
from toolchain.quantization import QuantizedGraph
from toolchain.stages.states import ExportedModel


@dataclass(frozen=True)
class FileProof:
    """One weight in one file: how many of its elements are zero, and distinct ones at most in a codebook (in the whole
    tensor where it has none); the element type; every finding, none where all holds."""

    file: str
    dtype: str
    zeros: int
    distinct: int
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorProof:
    """One weight: elements, how many its mask holds at zero (None: no mask), codebooks and values of the largest (None:
    no codebook), the integers it may take (None: float), and what each file holds."""

    tensor: str
    elements: int
    masked: int | None
    codebooks: int | None
    values: int | None
    grid: tuple[int, int] | None
    files: tuple[FileProof, ...] = field(default=())

    def to_plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "grid": self.grid and list(self.grid), "files": [_plain(file) for file in self.files]}


def _plain(file: FileProof) -> dict[str, Any]:
    return {**vars(file), "findings": list(file.findings)}


def prove(model: ExportedModel) -> tuple[TensorProof, ...]:
    """A row for each weight of a layer, and any other constant with a mask or codebook, read from every file."""
    graph, structure = model.graph, model.structure
    weights = {node.inputs[at] for node in graph.nodes for at in weight_inputs(node.op)}
    names = [name for name in graph.constants if name in weights | set(structure.masks) | set(structure.codebooks)]
    rows = {name: _row(name, model) for name in names}
    for file, content in model.files.items():
        if file.endswith(DATA_SUFFIX):
            continue
        is_float = ".float." in file or model.quantized.is_float
        asked = QuantizedGraph(graph, {}) if is_float else model.quantized
        if file.endswith(".onnx"):
            held = read_onnx_constants(content, asked, model.files.get(file + DATA_SUFFIX))
        else:
            held = read_tflite_constants(content, asked)
        for name, row in rows.items():
            proof = _prove_file(file, name, held.get(name), structure, asked)
            rows[name] = replace(row, files=(*row.files, proof))
    return tuple(rows.values())


def raise_unproved(rows: tuple[TensorProof, ...]) -> None:
    """Raises DisagreementError that lists every finding."""
    lines = [f"{file.file}: {line}" for row in rows for file in row.files for line in file.findings]
    raise_collected(DisagreementError, "what compression fixed is not in the files:", lines)


def _row(name: str, model: ExportedModel) -> TensorProof:
    mask, book = model.structure.masks.get(name), model.structure.codebooks.get(name)
    params = model.params.get(name)
    return TensorProof(
        name,
        int(model.graph.constants[name].size),
        None if mask is None else int(np.count_nonzero(~mask)),
        None if book is None else len(book.sizes),
        None if book is None else max(book.sizes),
        None if params is None else (int(params.q_min), int(params.q_max)),
    )


def _prove_file(
    file: str, name: str, weight: np.ndarray | None, structure: Structure, asked: QuantizedGraph
) -> FileProof:
    if weight is None:
        return FileProof(file, "", 0, 0, (f"{name}: is not in the file",))
    params = asked.params.get(name)
    if params is not None and weight.dtype == np.uint8:
        weight = (weight.astype(np.int16) - 128).astype(np.int8)
    findings = _only(structure, name).violations({name: weight})
    dtype = str(asked.stored_dtype(name))
    if params is not None:
        outside = int(np.count_nonzero((weight < params.q_min) | (weight > params.q_max)))
        if weight.dtype.kind not in "iu" or outside:
            findings.append(
                f"{name}: {outside} of {weight.size} {weight.dtype} lie outside {params.q_min} .. {params.q_max}"
            )
    return FileProof(
        file, dtype, int(np.count_nonzero(weight == 0)), _distinct(name, weight, structure), tuple(findings)
    )


def _only(structure: Structure, name: str) -> Structure:
    held: Mapping[str, Any] = {n: m for n, m in structure.masks.items() if n == name}
    return Structure(held, {n: b for n, b in structure.codebooks.items() if n == name})


def _distinct(name: str, weight: np.ndarray, structure: Structure) -> int:
    book = structure.codebooks.get(name)
    return len(np.unique(weight)) if book is None else max(book.count_distinct(weight))
