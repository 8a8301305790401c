"""An onnxruntime session on the CPU whose results are those of the specification on every machine.

On x86-64 without VNNI, products of uint8 and int8 are summed by instructions that saturate at 16 bits. There
an option of the session makes int8 weights uint8, whose kernels do not saturate. It is not asked for
elsewhere: with int8 activations onnxruntime has no kernel for such weights.

int8 activations run on integer kernels on arm64, but on x86-64 onnxruntime prefers float or uint8 for many
ops, which is faster there. `int8_kernels` asks for the integer kernels all the same.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto

from toolchain.errors import UnsupportedError
from toolchain.formats.onnx.external import SUFFIX, data_names

_ERRORS_ONLY = 3


def load_session(
    content: bytes,
    threads: int,
    *,
    unsigned: bool,
    int8_kernels: bool = False,
    optimized_path: Path | None = None,
    data: bytes | None = None,
) -> Any:
    """The session. `unsigned`: activations are uint8; `optimized_path`: where the optimized graph is saved; `data`: the
    file beside that constants lie in.

    Raises UnsupportedError where onnxruntime does not take the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    if int8_kernels:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    if unsigned and _saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    if data is not None:
        names = data_names(ModelProto.FromString(content))
        options.add_external_initializers_from_files_in_memory(names, [data] * len(names), [len(data)] * len(names))
        if optimized_path is not None:
            beside = optimized_path.name + SUFFIX
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", beside)
    try:
        # falling back on the same provider would only print that it does
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no root of their own
        raise UnsupportedError(f"onnxruntime cannot load the file: {_first_line(error)}") from error


def run_session(session: Any, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The tensors called `names`. Raises UnsupportedError where onnxruntime cannot compute them."""
    try:
        found: list[np.ndarray] = session.run(list(names), dict(feeds))
    except Exception as error:
        raise UnsupportedError(f"onnxruntime cannot run the file: {_first_line(error)}") from error
    return found


def takes_unsigned(proto: ModelProto) -> bool:
    """Whether kernels of the file meet uint8: as its tensors, or as what it quantizes where it runs."""
    values = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    elements = {value.type.tensor_type.elem_type for value in values}
    elements |= {tensor.data_type for tensor in proto.graph.initializer}
    return TensorProto.UINT8 in elements or any(node.op_type == "DynamicQuantizeLinear" for node in proto.graph.node)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@cache
def _saturates() -> bool:
    """Whether this is an x86-64 without VNNI, as far as the system tells."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
