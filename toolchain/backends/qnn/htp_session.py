"""One ONNX file on the Hexagon tensor processor, as Qualcomm's provider for onnxruntime compiles and runs it: on a host
its compiler and emulator, on a Snapdragon the processor itself.

Run as `python htp_session.py JOB.json` in the folder of the job, in a process of its own, as the libraries it loads may
die of a file: standard library, numpy, onnxruntime and onnxruntime-qnn alone. The job names the file, the options of
the provider, the ports that `inputs.npz` has arrays for, (N, *port) each, and the context file to write. It leaves
`outputs.npz` (likewise, for the ports that `done.json` names) and the provider's trace of ops.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROVIDER = "QNNExecutionProvider"
TRACE = "qnn_op_trace.json"
_ERRORS_ONLY = 3


def open_session(path: str, options: dict[str, str], context: str | None) -> Any:
    """A session of the file at `path` on the provider. Raises RuntimeError where there is no such device."""
    import onnxruntime as ort
    import onnxruntime_qnn as qnn

    ort.set_default_logger_severity(_ERRORS_ONLY)
    ort.register_execution_provider_library(PROVIDER, qnn.get_library_path())
    devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
    if not devices:
        raise RuntimeError(f"{PROVIDER} finds no device")
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    if context is not None:
        settings.add_session_config_entry("ep.context_enable", "1")
        settings.add_session_config_entry("ep.context_file_path", context)
    trace = {"enable_framework_op_trace": "1", "framework_op_trace_dir": "."}
    settings.add_provider_for_devices(devices[:1], {"backend_path": qnn.get_qnn_htp_path(), **trace, **options})
    return ort.InferenceSession(path, settings)


def main(job_file: str) -> None:
    """What the job asks for."""
    import numpy as np

    job = json.loads(Path(job_file).read_text())
    session = open_session(job["model"], job["options"], job["context"])
    names = [value.name for value in session.get_outputs()]
    with np.load("inputs.npz", allow_pickle=False) as archive:  # by position: ports have names that archives may not
        inputs = [archive[key] for key in archive.files]
    feeds = [dict(zip(job["inputs"], row, strict=True)) for row in zip(*inputs, strict=True)]
    rows = [session.run(names, feed) for feed in feeds]
    np.savez("outputs.npz", *(np.stack(column) for column in zip(*rows, strict=True)))
    Path("done.json").write_text(json.dumps({"outputs": names}))


if __name__ == "__main__":
    main(sys.argv[1])
