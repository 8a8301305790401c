"""Small networks written for the HTP, with one golden sample each, as a deployment gives them to the back end."""

from __future__ import annotations

import numpy as np
from torch import nn

from tests.ops.harness import quantized, traced
from toolchain.backends.backend import Written
from toolchain.formats.onnx import write_onnx
from toolchain.formats.onnx.runner import OnnxRunner
from toolchain.formats.onnx.scope import shift_integers
from toolchain.graph import DType
from toolchain.profiles import DeviceProfile, load_profile
from toolchain.quantization import QuantizedGraph, Scheme, quantize_inputs

UNSIGNED = {np.dtype(np.int8): DType.UINT8, np.dtype(np.int16): DType.UINT16}


def written(module, *inputs: np.ndarray, scheme: Scheme | None = None) -> Written:
    """A module quantized on its one sample, written in QDQ form."""
    model = quantized(traced(module, *inputs), *inputs, scheme=scheme)
    return written_model(model, *inputs)


def written_model(model: QuantizedGraph, *inputs: np.ndarray) -> Written:
    content = write_onnx(model, qdq_only=True)
    integers = quantize_inputs(model, inputs)
    expected = OnnxRunner(content, model).run(integers)
    return Written("model.onnx", content, model, (_stored(integers),), (_stored(expected),))


def _stored(arrays) -> tuple[np.ndarray, ...]:
    return tuple(shift_integers(a, UNSIGNED[a.dtype]) if a.dtype in UNSIGNED else a for a in arrays)


def profile_of(*socs: str, contexts: bool = False) -> DeviceProfile:
    """The HTP's profile, for these SoCs."""
    whole = load_profile("qualcomm-htp")
    assert whole.qnn is not None
    return whole.model_copy(update={"qnn": whole.qnn.model_copy(update={"socs": socs, "contexts": contexts})})


def small_network() -> nn.Module:
    """A convolution, a depthwise one, a residual sum and a classifier."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.last = nn.Linear(8, 5)

        def forward(self, x):
            x = nn.functional.relu6(self.first(x))
            return self.last((x + self.depthwise(x)).mean((2, 3)))

    return Network()
