"""The price list: what each file costs to keep, to send, to run, and which of the savings the target pays for.

Bytes are of real encodings: the file, deflated (zlib, level 9), packed (`toolchain.packing`), and as an NPU's compiler
encodes the weights. Bytes with lookup tables, as tflite-micro's compression stores them, are computed:

    b = ceil(log2 k) <= 7 bits a weight and k values, once a tensor or once a channel, where that is less
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, log2
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from toolchain.backends.vela.costs import compile_for_npu, is_npu
from toolchain.errors import ToolchainError
from toolchain.formats.tflite.parse import parse
from toolchain.graph import DType, Structure
from toolchain.packing.packer import pack
from toolchain.profiles import DeviceProfile, Pays
from toolchain.quantization import Granularity
from toolchain.report.headline import is_reference
from toolchain.report.plain import ratio
from toolchain.stages.states import ExportedModel
from toolchain.validation.proof import TensorProof

_MOST_LUT_BITS = 7


def price_list(
    model: ExportedModel,
    profile: DeviceProfile,
    proof: Sequence[TensorProof],
    cost: Mapping[str, Mapping[str, Any]],
    files: Sequence[Mapping[str, Any]],
    runtimes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Prices of every file and savings of the model, as plain JSON values. `cost`, `files` and `runtimes` are the
    report's."""
    known = {file["name"]: file for file in files}
    notes: list[str] = []
    rows = [
        _file(name, content, profile, known.get(name, {}), notes)
        for name, content in model.files.items()
        if PurePosixPath(name).suffix in (".onnx", ".tflite")
    ]
    for row in rows:
        measured = [run for run in runtimes if run["file"] == row["name"] and not is_reference(run)]
        row["latency_ms"] = {run["runtime"]: run["latency_ms"] for run in measured}
    return {
        "files": rows,
        "macs": cost["deployed"]["macs"],
        "float_macs": cost["float"]["macs"],
        "savings": [*_savings(model, profile, proof, cost)],
        "notes": list(dict.fromkeys(notes)),
    }


def _file(
    name: str, content: bytes, profile: DeviceProfile, known: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    try:
        packed = pack(content)[1]
    except ToolchainError as error:
        packed = None
        notes.append(f"{name} is not packed: {error.what}")
    npu = None
    if name.endswith(".tflite") and is_npu(profile) and not known.get("is_float"):
        found = compile_for_npu(content, profile)
        if isinstance(found, str):
            notes.append(found)
        else:
            npu = vars(found)
    packed_bytes = packed.packed_bytes if packed else None
    return {
        "name": name,
        "bytes": len(content),
        "float_bytes": known.get("float_bytes"),
        "deflated_bytes": len(zlib.compress(content, 9)),
        "packed_bytes": packed_bytes,
        "packed_ratio": ratio(known.get("float_bytes") or len(content), packed_bytes),
        "lut_bytes": lut_bytes(content) if name.endswith(".tflite") else None,
        "npu": npu,
    }


def lut_bytes(content: bytes) -> int | None:
    """Bytes of a TFLite file whose int8 weights tflite-micro's compression stores as lookup tables; None where none
    gets smaller."""
    try:
        model = parse(content)
    except ToolchainError:
        return None
    saved = 0
    for index, weight in model.values.items():
        facts = model.tensors[index]
        if facts.dtype is DType.INT8 and weight.ndim > 1:
            saved += max(weight.size - min(_lut_sizes(weight, facts.axis)), 0)
    return len(content) - saved if saved else None


def _lut_sizes(weight: np.ndarray, axis: int | None) -> Iterator[int]:
    """With one table, and with one a channel where scales are a channel's."""
    yield _lut_size(weight.size, 1, len(np.unique(weight)))
    if axis is not None:
        channels = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        yield _lut_size(weight.size, len(channels), max(len(np.unique(channel)) for channel in channels))


def _lut_size(elements: int, tables: int, values: int) -> int:
    bits = max(ceil(log2(values)), 1)
    return elements if bits > _MOST_LUT_BITS else -(-elements * bits // 8) + tables * 2**bits


def _savings(
    model: ExportedModel, profile: DeviceProfile, proof: Sequence[TensorProof], cost: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Each kind of saving: whether the model has it, how much, what it buys on this device, and why."""
    amounts = {
        "int8": _int8(model),
        "structured": _structured(cost),
        "unstructured": _unstructured(proof, model.structure),
        "codebook": _codebook(proof),
    }
    for kind, saving in profile.savings.items():
        pays, why = list(saving.pays), saving.why
        if kind == "unstructured":
            pays, why = _zeros_pay(model, profile, pays, why)
        if kind == "codebook" and amounts[kind]:
            pays, why = _codebooks_pay(proof, profile, pays, why)
        yield {
            "saving": kind,
            "amount": amounts[kind],
            "pays": [Pays(pay).value for pay in pays] if amounts[kind] else [],
            "why": why,
        }


def _int8(model: ExportedModel) -> str:
    quantized = [name for name in model.params if name in model.graph.constants]
    return f"{len(quantized)} constants in integers" if quantized else ""


def _structured(cost: Mapping[str, Mapping[str, Any]]) -> str:
    before, after = cost["float"]["macs"], cost["deployed"]["macs"]
    return f"{1 - after / before:.1%} fewer multiply-adds" if after < before else ""


def _unstructured(proof: Sequence[TensorProof], structure: Structure) -> str:
    elements = sum(row.elements for row in proof)
    masked = sum(row.masked or 0 for row in proof)
    return f"{masked / elements:.1%} of the weights are zero" if structure.masks and masked else ""


def _codebook(proof: Sequence[TensorProof]) -> str:
    held = [row for row in proof if row.codebooks]
    if not held:
        return ""
    several = [row for row in held if (row.codebooks or 0) > 1]
    which = f"{len(several)} of {len(held)} tensors have several codebooks" if several else "one codebook a tensor"
    return f"{which}, of at most {max(row.values or 0 for row in held)} values"


def _zeros_pay(model: ExportedModel, profile: DeviceProfile, pays: list[Pays], why: str) -> tuple[list[Pays], str]:
    """Zeros that a file stores as sparse tensors are skipped by the kernels that made the writer store them so."""
    sparse = [
        facts
        for name, content in model.files.items()
        if name.endswith(".tflite")
        for facts in parse(content).tensors
        if getattr(facts, "is_sparse", False)
    ]
    kernels = profile.kernels.sparse
    if sparse and kernels is not None:
        return [Pays.TIME, *(pay for pay in pays if pay is not Pays.TIME)], (
            f"{len(sparse)} weights are stored without their zeros, which the kernels skip: {kernels.source}"
        )
    return pays, why


def _codebooks_pay(
    proof: Sequence[TensorProof], profile: DeviceProfile, pays: list[Pays], why: str
) -> tuple[list[Pays], str]:
    """What codebooks buy beyond a download is bound to their number and size."""
    kernels = profile.kernels.codebooks
    if kernels is None:
        return pays, why
    unfit = [row for row in proof if row.codebooks and not _fits(row, profile)]
    if not unfit:
        return list(kernels.pays), f"{why}; {kernels.source}"
    wanted = f"{'one codebook a tensor' if kernels.granularity is Granularity.PER_TENSOR else 'codebooks'}"
    return [Pays.DOWNLOAD], (
        f"paid in full only with {wanted} of at most {kernels.values} values, and {len(unfit)} of {len(proof)} weights "
        f"have others: {kernels.source}"
    )


def _fits(row: TensorProof, profile: DeviceProfile) -> bool:
    assert profile.kernels.codebooks is not None
    granularity = Granularity.PER_TENSOR if row.codebooks == 1 else Granularity.PER_CHANNEL
    return profile.kernels.codebooks.fits(granularity, row.values or 0)
