"""Executed instructions per inference on the device's CPU, under qemu-user: `toolchain.devices.emulator.counting`.

They repeat where times do not, so that a gate can hold them to a part in a thousand. They are no time. With
TOOLCHAIN_COUNT=0 in the environment nothing is counted, which saves a deployment a few seconds a file.
"""

from __future__ import annotations

import os
from typing import Final

from toolchain.backends.backend import Backend, Figure, Measured, Written
from toolchain.profiles import DeviceProfile

SWITCH: Final = "TOOLCHAIN_COUNT"
RUNTIMES: Final = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}

LABELS: Final = {
    "dot": "dot products",
    "matrix_multiply": "matrix multiplies",
    "multiply_add": "other multiply-adds",
    "load_store": "loads and stores",
    "load_store_simd": "loads and stores of SIMD registers",
    "branch": "branches",
    "integer": "other integer instructions",
    "simd": "other SIMD and float instructions",
}
"""Classes of instructions, to a reader."""


def missing() -> str | None:
    """What must be set up."""
    from toolchain.devices.emulator import find_emulator, missing_tools
    from toolchain.errors import DeviceError

    if os.environ.get(SWITCH) == "0":
        return f"executed instructions are not counted: {SWITCH}=0"
    without = "without it executed instructions are not counted"
    tools = missing_tools()
    if tools is not None:
        return f"the emulator misses {tools}; then make emulator ({without})"
    try:
        emulator = find_emulator()
    except DeviceError as error:
        return f"{error.what} ({without})"
    if emulator is None:
        return f"the emulator is not set up: make emulator ({without})"
    return None if emulator.uncounted is None else f"{emulator.uncounted} ({without})"


def measure(written: Written, profile: DeviceProfile) -> Measured:
    """Count one inference of the first sample. Raises DeviceError where the emulated device does not run it."""
    from toolchain.devices.emulator import find_emulator
    from toolchain.devices.emulator.counting import count_inference
    from toolchain.devices.golden import describe_file
    from toolchain.errors import DeviceError
    from toolchain.formats.onnx.external import SUFFIX

    emulator = find_emulator()
    if emulator is None or profile.emulator is None:
        raise DeviceError("the emulator is not set up", hint="make emulator")
    cpu, runtime = profile.emulator.cpu, RUNTIMES[_format(written.name)]
    files = {written.name: written.content} | ({} if written.data is None else {written.name + SUFFIX: written.data})
    artifact = describe_file(written.name, written.content, written.data)
    counts = count_inference(emulator, cpu, artifact, files, written.inputs[0], runtime)
    figures = [Figure("instructions", counts.total, "instructions per inference", exact=False)]
    figures += [
        Figure(f"instructions_{name}", count, LABELS[name], exact=False, detail=True)
        for name, count in counts.by_class.items()
    ]
    version = f"qemu {emulator.version}, {runtime} {emulator.facts['versions'][runtime]}"
    note = f"executed by an emulated {cpu} in one thread: kernel choice and work, not time"
    return Measured(written.name, "emulator", version, tuple(figures), notes=(note,))


def _format(file: str) -> str:
    return file.rpartition(".")[2]


EMULATOR = Backend(
    "emulator",
    "executed instructions per inference, on an emulated 64-bit Arm CPU",
    tuple(RUNTIMES),
    missing,
    measure,
    takes_float=True,
)
