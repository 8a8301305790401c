"""Times TFLite files in turn on one thread of LiteRT: `sparse_child.py ROUNDS FILE...`.

A round gives the least of three inferences of each file, since other work on the machine only ever adds to one.

Prints JSON: the milliseconds of each file, round by round, after two rounds that are not counted, and the largest
difference of its outputs from those of the file before it, relative to their range. It needs nothing but numpy and
ai-edge-litert, so that it also runs on a device or in an emulator.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

WARM_UP, RUNS = 2, 3


def loaded(path: str) -> Any:
    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    values = np.random.default_rng(0).normal(size=given["shape"]).astype(np.float32)
    interpreter.set_tensor(given["index"], values)
    return interpreter


def timed_ms(interpreter: Any) -> float:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - started)
    return 1e3 * min(times)


def output(interpreter: Any) -> np.ndarray:
    found: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found


def main() -> None:
    rounds, paths = int(sys.argv[1]), sys.argv[2:]
    files = {path: loaded(path) for path in paths}
    times = [[timed_ms(file) for file in files.values()] for _ in range(WARM_UP + rounds)][WARM_UP:]
    outputs = [output(file) for file in files.values()]
    differences = [
        float(np.abs(one - other).max() / np.ptp(other)) for one, other in zip(outputs[1:], outputs[:-1], strict=True)
    ]
    ms = {path: [row[at] for row in times] for at, path in enumerate(paths)}
    print(json.dumps({"ms": ms, "differences": [0.0, *differences]}))


if __name__ == "__main__":
    main()
