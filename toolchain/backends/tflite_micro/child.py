"""What runs in a process of its own, which tflite-micro may end: `python child.py FOLDER`. Imports nothing of ours.

FOLDER holds model.tflite and request.json: {"arena": bytes, "inputs": [[file of a port, ...] of a sample, ...],
"outputs": count, "tensors": [index, ...]}; arrays are .npy files. An output is written as output_SAMPLE_PORT.npy, a
tensor of the first sample as tensor_INDEX.npy. With "tables", [{"tensor": index, "bits": n, "axis": n or null}, ...],
compressed.tflite is written instead; with "smallest", {"from": bytes, "step": bytes}, the smallest arena of at least so
many bytes that the file can be loaded in is printed. The arena report goes where C's standard error goes.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np


def run(folder: Path, request: Any) -> None:
    """Run every sample; report the arena, or keep tensors: the interpreter does one or the other."""
    from tflite_micro import runtime

    kinds = runtime.InterpreterConfig
    kind = kinds.kPreserveAllTensors if request["tensors"] else kinds.kAllocationRecording
    content = (folder / "model.tflite").read_bytes()
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=request["arena"], intrepreter_config=kind)
    for at, files in enumerate(request["inputs"]):
        for port, name in enumerate(files):
            interpreter.set_input(np.load(folder / name), port)
        interpreter.invoke()
        for port in range(request["outputs"]):
            np.save(folder / f"output_{at}_{port}.npy", interpreter.get_output(port))
        if at == 0:
            for index in request["tensors"]:
                np.save(folder / f"tensor_{index}.npy", interpreter.GetTensor(index, 0)["tensor_data"])
    if not request["tensors"]:
        interpreter.print_allocations()


def find_smallest(folder: Path, least: int, step: int) -> int:
    """The smallest of least, least + step, ... that the file loads in: by doubling, then halving."""
    from tflite_micro import runtime

    content = (folder / "model.tflite").read_bytes()

    def works(steps: int) -> bool:
        loading = os.fork()  # a load that fails may end its process
        if loading == 0:
            with suppress(RuntimeError):
                runtime.Interpreter.from_bytes(content, arena_size=least + steps * step)
                os._exit(0)
            os._exit(1)
        return os.waitpid(loading, 0)[1] == 0

    if works(0):
        return least
    failing, working = 0, 1
    while not works(working):
        failing, working = working, 2 * working
    while working - failing > 1:
        middle = (failing + working) // 2
        failing, working = (failing, middle) if works(middle) else (middle, working)
    return least + working * step


def compress(folder: Path, tables: Any) -> None:
    """Store the named weights as indices into tables."""
    from tflite_micro.tensorflow.lite.micro.compression import compress as compressed
    from tflite_micro.tensorflow.lite.micro.compression import spec

    specs = [
        spec.Tensor(0, table["tensor"], [spec.LookUpTableCompression(table["bits"], _mode(spec, table["axis"]))])
        for table in tables
    ]
    content = (folder / "model.tflite").read_bytes()
    (folder / "compressed.tflite").write_bytes(bytes(compressed(content, specs)))


def _mode(spec: Any, axis: Any) -> Any:
    return spec.PerTensor() if axis is None else spec.PerChannel(axis)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    wanted = json.loads((place / "request.json").read_text())
    if "tables" in wanted:
        compress(place, wanted["tables"])
    elif "smallest" in wanted:
        print(find_smallest(place, wanted["smallest"]["from"], wanted["smallest"]["step"]))
    else:
        run(place, wanted)
