"""A stand-in for `htp_session.py` that loads nothing of QNN: it does what the file `behaviour` beside the job says."""

import json
import os
import sys
from pathlib import Path

import numpy as np

job = json.loads(Path(sys.argv[1]).read_text())
options, behaviour = job["options"], Path(job["model"]).read_text()
arch, soc = f"V{options['htp_arch']}", int(options["soc_model"])
if behaviour == "dies":
    os.abort()
if behaviour == "sleeps":
    import time

    time.sleep(60)
if behaviour == "refuses":
    said = "[ONNXRuntimeError] : 11 : EP_FAIL : Failed to finalize QNN graph. Error: QNN_COMMON_ERROR_MEM_ALLOC"
    sys.exit(f"onnxruntime.capi.onnxruntime_pybind11_state.EPFail: {said}")
if behaviour == "raises":
    sys.exit("RuntimeError: QNNExecutionProvider finds no device")
if behaviour == "falls back":
    print("\x1b[1;31m2026-01-01 [E:onnxruntime:, qnn.cc:2290 Get] QNN SetupBackend failed: Invalid config\x1b[m")
else:
    target = {"htp_arch": "" if behaviour == "other arch" else arch, "soc_model": soc}
    trace = {"soc_traces": [{"compilation_target": target}], "subgraph_traces": [], "unsupported_nodes": []}
    Path("qnn_op_trace.json").write_text("{" if behaviour == "half a trace" else json.dumps(trace))
if job["context"] is not None and behaviour != "without context":
    Path(job["context"]).write_bytes(b"onnx")
    Path(job["context"][: -len(".onnx")] + "_qnn.bin").write_bytes(b"binary")
with np.load("inputs.npz") as archive:
    arrays = [archive[key] for key in archive.files]
np.savez("outputs.npz", *(array + 1 for array in arrays))
Path("done.json").write_text(json.dumps({"outputs": [f"{name}/next" for name in job["inputs"]]}))
