"""export: the ONNX and TFLite files, both from the one graph, read back and compared with what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolchain.errors import DisagreementError, OptionError, raise_collected
from toolchain.formats.artifact import Format, InOut, SparseWeights
from toolchain.formats.onnx import OPSETS, check_onnx, write_onnx_files
from toolchain.formats.onnx.external import SUFFIX as DATA_SUFFIX
from toolchain.formats.tflite import check_tflite, plan_sparse, write_tflite
from toolchain.graph import DType, Graph, fold
from toolchain.progress import Progress
from toolchain.quantization import QuantizedGraph, Reals
from toolchain.stages.stage import Stage
from toolchain.stages.states import ExportedModel, Model, QuantizedModel, TracedModel


@dataclass(frozen=True, kw_only=True)
class Export(Stage[Model, ExportedModel]):
    """`model.onnx` and `model.tflite`, as `formats` asks; `float_files` adds `model.float.onnx` and
    `model.float.tflite`.

    An ONNX model of 2 GiB and more is two files, its constants in `model.onnx.data`. A traced model gives only the
    float files. `in_out` chooses integer or float in- and outputs of the quantized files; `onnx_activations` is how
    the ONNX file stores the specification's int8 activations, and `onnx_qdq_only` whether every op stands between
    DequantizeLinear and QuantizeLinear, as compilers of NPUs read them. `dynamic_batch` leaves axis 0 of all in- and
    outputs open, for any number of samples at a time. `sparse` is which weights the TFLite files store without
    their zeros: those of float files that XNNPACK then computes without, or all that take fewer bytes so. Of each other
    layer full of zeros it is recorded why not.
    """

    name = "export"
    takes = (TracedModel, QuantizedModel)
    gives = ExportedModel

    formats: tuple[Format, ...] = (Format.ONNX, Format.TFLITE)
    in_out: InOut = InOut.INTEGER
    float_files: bool = False
    onnx_opset: int = 17
    onnx_activations: DType = DType.UINT8
    onnx_qdq_only: bool = False
    dynamic_batch: bool = False
    sparse: SparseWeights = SparseWeights.AUTO

    def __post_init__(self) -> None:
        if not self.formats:
            raise OptionError("export needs at least one format", hint="onnx, tflite or both")
        if self.onnx_opset not in OPSETS:
            raise OptionError(f"opset {self.onnx_opset} is not written", hint=f"choose {min(OPSETS)} to {max(OPSETS)}")

    def _run(self, model: Model, progress: Progress) -> ExportedModel:
        files: dict[str, bytes] = {}
        quantized = isinstance(model, QuantizedModel)
        graph = model.graph if quantized else fold(model.graph)
        if isinstance(model, QuantizedModel):
            files |= self._written(model.quantized, "model")
        if self.float_files or not quantized:
            files |= self._written(graph, "model.float" if quantized else "model")
        told = self._sparse_facts(model.quantized if isinstance(model, QuantizedModel) else graph)
        return ExportedModel(
            graph=graph,
            reference=model.reference,
            structure=model.structure,
            params=model.params if isinstance(model, QuantizedModel) else {},
            corrections=model.corrections if isinstance(model, QuantizedModel) else {},
            float_nodes=model.float_nodes if isinstance(model, QuantizedModel) else {},
            reals=model.reals if isinstance(model, QuantizedModel) else Reals.FLOAT32,
            files=files,
            history=model.recorded(self, {"bytes": {name: len(content) for name, content in files.items()}} | told),
        )

    def _sparse_facts(self, model: Graph | QuantizedGraph) -> dict[str, Any]:
        """What the TFLite file stores without its zeros, and why not what else is full of them; nothing where nothing
        is."""
        if Format.TFLITE not in self.formats:
            return {}
        plan = plan_sparse(model if isinstance(model, QuantizedGraph) else QuantizedGraph(model, {}), self.sparse)
        found = {"written": sorted(plan.weights), "refused": [str(finding) for finding in plan.refused]}
        return {"sparse": found} if any(found.values()) else {}

    @property
    def _shared(self) -> dict[str, Any]:
        return {"in_out": self.in_out, "dynamic_batch": self.dynamic_batch}

    def _written(self, model: Graph | QuantizedGraph, stem: str) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for kind in self.formats:
            if kind is Format.ONNX:
                name = f"{stem}.onnx"
                numbers = {"opset": self.onnx_opset, "activation_dtype": self.onnx_activations}
                form = {"qdq_only": self.onnx_qdq_only} | self._shared
                written = write_onnx_files(model, name, **form, **numbers)  # type: ignore[arg-type]
                findings = check_onnx(written[name], model, written.get(name + DATA_SUFFIX))
            else:
                name = f"{stem}.tflite"
                written = {name: write_tflite(model, **self._shared, sparse=self.sparse)}
                findings = check_tflite(written[name], model, sparse=self.sparse)
            raise_collected(DisagreementError, f"{stem}.{kind} does not hold what was asked for:", findings)
            files |= written
        return files
