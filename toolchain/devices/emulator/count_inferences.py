"""What runs on the emulated device to be counted: `count_inferences.py RUNTIME`, in a folder with spec.json.

The runtime's own call lies between two markers, which the plugin sees as writes to a file that is not open. The first
inference lays out weights and makes buffers; those behind it count. Prints, as JSON, the nanoseconds that this thread
and all others ran meanwhile.
"""

import contextlib
import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import run_bundle  # type: ignore[import-not-found]  # lies beside this file where it runs

MARK = 0x7EC00000
COUNTED, LEAST_SECONDS = 3, 0.05
"""The kernel writes down what threads ran at its ticks alone: in less time others would go unseen."""
CALLS = {"onnx": ("InferenceSession", "run"), "tflite": ("Interpreter", "invoke")}
"""Class and method that run one inference, in a runtime of each format."""


def mark(number: int) -> None:
    """Have the counts so far written down under `number`."""
    with contextlib.suppress(OSError):
        os.write(MARK | number, b"")


def mark_calls(runtime: str) -> None:
    """Put markers around every inference of `runtime`."""
    kind, name, _ = run_bundle.RUNTIMES[runtime]
    owner, method = CALLS[kind]
    runner = getattr(importlib.import_module(name), owner)
    call = getattr(runner, method)

    def marked(*given: object) -> object:
        mark(0)
        found = call(*given)
        mark(1)
        return found

    setattr(runner, method, marked)


def running_ns() -> dict[str, int]:
    """Time on a processor of every thread so far; nothing where the kernel does not tell."""
    found = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):
            found[path.parent.name] = int(path.read_text().split()[0])
    return found


def main(runtime: str) -> None:
    """Run the inferences of spec.json in `runtime`."""
    spec = json.loads(Path("spec.json").read_text())
    inputs = [np.load(name, allow_pickle=False) for name in spec["inputs"]]
    mark_calls(runtime)
    run = run_bundle.load(spec["artifact"], Path(), runtime, ())
    gc.disable()  # it would come whenever so many objects were made
    run(inputs)
    before = running_ns()
    until = time.monotonic() + LEAST_SECONDS
    counted = 0
    while counted < COUNTED or time.monotonic() < until:
        run(inputs)
        counted += 1
    ran = {thread: spent - before.get(thread, 0) for thread, spent in running_ns().items()}
    own = ran.pop(str(os.getpid()), 0)
    print(json.dumps({"own_ns": own, "others_ns": sum(ran.values())}))


if __name__ == "__main__":
    main(sys.argv[1])
