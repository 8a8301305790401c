"""Run by the interpreter of another venv: every `name.tflite` of a folder on `name.npz`, results to `name.out.npz`.

Uses nothing but numpy and tflite_runtime. A file that the runtime refuses leaves its reason in `name.error`.
"""

import sys
from pathlib import Path

import numpy as np
from tflite_runtime.interpreter import Interpreter


def run(file: Path) -> None:
    interpreter = Interpreter(model_path=str(file))
    interpreter.allocate_tensors()
    given = np.load(file.with_suffix(".npz"))
    # twice: a file that keeps a state from call to call gives something else
    for _ in range(2):
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], given[detail["name"]])
        interpreter.invoke()
    found = {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()}
    np.savez(file.with_suffix(".out.npz"), **found)


for path in sorted(Path(sys.argv[1]).glob("*.tflite")):
    try:
        run(path)
    except (ValueError, RuntimeError) as error:
        path.with_suffix(".error").write_text(str(error))
