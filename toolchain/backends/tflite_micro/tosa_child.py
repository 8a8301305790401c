"""A TFLite file in Arm's TOSA reference model: `PYTHON tosa_child.py FOLDER`, by an interpreter that has it.

FOLDER holds model.tflite and inputs input_SAMPLE_PORT.npy; outputs are written as output_SAMPLE_PORT.npy. The file is
converted to TOSA (tosa-converter-for-tflite), serialized (tosa-opt) and run. Imports nothing of ours.
"""

import subprocess
import sys
from itertools import count, takewhile
from pathlib import Path

import numpy as np


def main(folder: Path) -> None:
    """Convert, serialize, run every sample."""
    import tosa_reference_model

    tools = Path(sys.executable).parent
    bytecode, graph = folder / "model.mlirbc", folder / "model.tosa"
    convert = [
        str(tools / "tosa-converter-for-tflite"),
        str(folder / "model.tflite"),
        "--bytecode",
        "-o",
        str(bytecode),
    ]
    subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
    serialize = [str(tools / "tosa-opt"), str(bytecode), "--tosa-serialize", f"--tosa-flatbuffer-filename={graph}"]
    subprocess.run([*serialize, "-o", str(folder / "unused.mlir")], check=True)
    content = graph.read_bytes()
    for at in takewhile(lambda at: (folder / f"input_{at}_0.npy").exists(), count()):
        ports = takewhile(Path.exists, (folder / f"input_{at}_{port}.npy" for port in count()))
        outputs, status = tosa_reference_model.run(content, [np.load(path) for path in ports])
        if status != tosa_reference_model.GraphStatus.TOSA_VALID:
            sys.exit(f"the reference model says {status}")
        for port, array in enumerate(outputs):
            np.save(folder / f"output_{at}_{port}.npy", array)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
