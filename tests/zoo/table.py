"""Deploys every architecture of the zoo and prints a line for each.

    python -m tests.zoo.table [names...] [--json]

Columns, over 8 samples that calibration (16 samples) has not seen:

* float: largest error of the float files against eager torch, relative to the output's largest value, worst output
* SQNR: of the int8 files against eager torch in dB, worst output; outputs that are no real numbers are left out
* steps: largest difference between onnxruntime and LiteRT in quantization steps, and the share within 2 steps
* index: share of equal values of outputs that are indices
* transposes: TRANSPOSE in the float and the int8 TFLite file, and the permutes that the model itself has
* islands: connected groups of nodes that the int8 files compute in float

An architecture fails where a stage or a runtime raises, or a float file is further than 1e-4 from torch. One that fails
does not keep the others from being tried; the exit code is 1 if any did.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils import _pytree as pytree

from tests.zoo.architectures import ARCHITECTURES, build_architecture
from toolchain import Calibrate, Export, Quantize, Trace, samples_from
from toolchain.engine.tracing.tracer import export
from toolchain.fidelity import Comparison
from toolchain.formats.artifact import Runner
from toolchain.formats.onnx import OnnxRunner
from toolchain.formats.tflite import TfliteRunner, read_tflite
from toolchain.graph import Graph, Op
from toolchain.quantization import QuantizedGraph, dequantize, quantize_inputs
from toolchain.stages.inputs import input_types

CALIBRATION_COUNT, JUDGING_COUNT = 16, 8
FLOAT_TOLERANCE = 1e-4
WITHIN = 2
PERMUTING = {"permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "numpy_T", "matrix_H", "mT"}

Outputs = list[list[np.ndarray]]
"""For each sample, the outputs in order."""


@dataclass
class Row:
    """What one architecture came to; `error` says why where that is nothing."""

    name: str
    float_error: dict[str, float] = field(default_factory=dict)
    sqnr_db: dict[str, float] = field(default_factory=dict)
    steps: int | None = None
    steps_close: float | None = None
    equal_indices: float | None = None
    transposes: dict[str, int] = field(default_factory=dict)
    islands: int | None = None
    seconds: float = 0.0
    error: str = ""


def measure(name: str) -> Row:
    """Deploy the architecture in float and int8 and run all four files. Raises what stages and runners raise."""
    row = Row(name)
    module, arrays = build_architecture(name, CALIBRATION_COUNT + JUDGING_COUNT)
    rows = [tuple(array[index] for array in arrays) for index in range(len(arrays[0]))]
    samples = samples_from(
        rows, calibration_count=CALIBRATION_COUNT, judging_count=JUDGING_COUNT, batch_size=8, labelled=False
    )
    program = export(module, samples.first_inputs())
    traced = Trace()(program)
    judging = [batch.inputs for batch in samples.with_batch_size(1).judging()]
    given = [batch.inputs for batch in samples.with_batch_size(1).checked(input_types(traced.graph)).judging()]
    expected = [_eager(module, inputs) for inputs in judging]

    exported = Export()(traced)
    row.transposes["own"] = min(_own_permutes(program), sum(node.op is Op.PERMUTE for node in traced.graph.nodes))
    row.transposes["float"] = read_tflite(exported.files["model.tflite"]).ops.get("TRANSPOSE", 0)
    for runner in _runners(exported.files, exported.graph):
        row.float_error[runner.name] = _float_error(_run(runner, given), expected)
    if (worst := max(row.float_error.values())) > FLOAT_TOLERANCE:
        row.error = f"a float file is {worst:.1e} from torch"

    quantized = Quantize()(Calibrate(samples=samples)(traced))
    files = Export()(quantized).files
    row.transposes["int8"] = read_tflite(files["model.tflite"]).ops.get("TRANSPOSE", 0)
    row.islands = count_islands(quantized.quantized)
    integers = [quantize_inputs(quantized.quantized, inputs) for inputs in given]
    found = {runner.name: _run(runner, integers) for runner in _runners(files, quantized.quantized)}
    for runner_name, outputs in found.items():
        row.sqnr_db[runner_name] = _sqnr_db(quantized.quantized, outputs, expected)
    _compare(row, quantized.quantized, *found.values(), expected)
    return row


def _runners(files: dict[str, bytes], model: Graph | QuantizedGraph) -> tuple[Runner, Runner]:
    return OnnxRunner(files["model.onnx"], model), TfliteRunner(files["model.tflite"])


def _run(runner: Runner, samples: Sequence[Sequence[np.ndarray]]) -> Outputs:
    return [[np.array(output) for output in runner.run(inputs)] for inputs in samples]


def _eager(module: torch.nn.Module, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(array.copy()) for array in inputs))
    return [output.numpy() for output in pytree.tree_leaves(outputs)]


def _own_permutes(program: torch.export.ExportedProgram) -> int:
    names = (getattr(node.target, "_opname", "") for node in program.graph.nodes if node.op == "call_function")
    return sum(name in PERMUTING for name in names)


def _float_error(outputs: Outputs, expected: Outputs) -> float:
    """Largest relative error over real outputs; share of unequal values of others."""
    worst = 0.0
    for ours, theirs in zip(_columns(outputs), _columns(expected), strict=True):
        if theirs.dtype.kind == "f":
            comparison = Comparison()
            comparison.add([ours], [theirs])
            worst = max(worst, comparison.relative_error)
        else:
            worst = max(worst, float((ours != theirs).mean()))
    return worst


def _sqnr_db(model: QuantizedGraph, outputs: Outputs, expected: Outputs) -> float:
    found = []
    for name, ours, theirs in zip(model.graph.outputs, _columns(outputs), _columns(expected), strict=True):
        if theirs.dtype.kind == "f":
            is_integer = name in model.params and ours.dtype.kind != "f"
            comparison = Comparison()
            comparison.add([dequantize(ours, model.params[name]) if is_integer else ours], [theirs])
            found.append(comparison.sqnr_db)
    return min(found)


def _compare(row: Row, model: QuantizedGraph, first: Outputs, second: Outputs, expected: Outputs) -> None:
    """Fill in how far both runtimes are apart. An output that stays float has steps of 1/255 of its range."""
    steps, indices = [np.zeros(0)], [np.zeros(0, bool)]
    columns = zip(model.graph.outputs, _columns(first), _columns(second), _columns(expected), strict=True)
    for name, ours, theirs, real in columns:
        if real.dtype.kind != "f":
            indices.append((ours == theirs).ravel())
            continue
        difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).ravel()
        if ours.dtype.kind == "f":
            step = model.params[name].step if name in model.params else float(np.ptp(real)) / 255
            difference = difference / step
        steps.append(difference)
    apart, equal = np.concatenate(steps), np.concatenate(indices)
    if apart.size:
        row.steps, row.steps_close = round(float(apart.max())), float((apart <= WITHIN + 1e-3).mean())
    row.equal_indices = float(equal.mean()) if equal.size else None


def _columns(outputs: Outputs) -> list[np.ndarray]:
    return [np.concatenate(column) for column in zip(*outputs, strict=True)]


def count_islands(model: QuantizedGraph) -> int:
    """Groups of float nodes that hand each other tensors."""
    group = {name: name for name in model.float_nodes}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for node in model.graph.nodes:
        for name in node.inputs:
            # what is quantized in between ends an island
            if node.output in group and name in group and name not in model.params:
                group[root(node.output)] = root(name)
    return len({root(name) for name in group})


def measured_apart(name: str) -> Row:
    """`measure` in a process of its own, so that a runtime that crashes takes nothing else with it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure_into, args=(theirs, name))
    start = time.perf_counter()
    process.start()
    theirs.close()
    try:
        row = ours.recv()
    except EOFError:
        process.join()
        row = Row(name, error=f"the process died, exit code {process.exitcode}")
    process.join()
    row.seconds = time.perf_counter() - start
    return row


def _measure_into(pipe: Connection, name: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        row = measure(name)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        row = Row(name, error=" ".join([type(error).__name__ + ":", *lines[:2]]))
    pipe.send(row)


HEADER = (
    ("architecture", 20),
    ("float", 8),
    ("SQNR dB, onnx/tflite", 12),
    ("steps, within 2", 13),
    ("index", 6),
    ("transposes, float/int8 (own)", 14),
    ("islands", 7),
    ("s", 5),
)


def show(console: Console, cells: Sequence[str], *, style: str = "") -> None:
    """One line of the table, printed when it is known."""
    line = Table(box=None, show_header=False, pad_edge=False)
    for index, (_, width) in enumerate(HEADER):
        line.add_column(width=width, justify="right" if index else "left")
    line.add_row(*cells, style=style)
    console.print(line)


def show_row(console: Console, row: Row) -> None:
    """The row's figures, and below them why it failed."""
    sqnr = "/".join(f"{value:.1f}" for value in row.sqnr_db.values())
    steps = "" if row.steps is None else f"{row.steps}, {row.steps_close:.2%}"
    index = "" if row.equal_indices is None else f"{row.equal_indices:.0%}"
    counts = [str(row.transposes.get(kind, "?")) for kind in ("float", "int8")]
    transposes = f"{'/'.join(counts)} ({row.transposes['own']})" if row.transposes else ""
    float_error = f"{max(row.float_error.values()):.1e}" if row.float_error else ""
    islands = "" if row.islands is None else str(row.islands)
    over = any(row.transposes.get(kind, 0) > row.transposes.get("own", 0) for kind in ("float", "int8"))
    cells = (row.name, float_error, sqnr, steps, index, transposes, islands, f"{row.seconds:.1f}")
    show(console, cells, style="red" if row.error else "yellow" if over else "")
    if row.error:
        console.print(f"  {row.error}", style="red", markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Deploy the named architectures, all by default. The table goes to stderr where JSON goes to stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.table", description="Deploy architectures of the zoo.")
    parser.add_argument("names", nargs="*", metavar="name", help="architectures (default: all)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(ARCHITECTURES)):
        parser.error(f"no such architecture: {', '.join(unknown)}; choose from {', '.join(ARCHITECTURES)}")
    console = Console(stderr=options.json, highlight=False)
    if not console.is_terminal:
        console.width = 120
    show(console, [title for title, _ in HEADER], style="bold")
    rows = []
    for name in options.names or ARCHITECTURES:
        rows.append(measured_apart(name))
        show_row(console, rows[-1])
    failed = [row.name for row in rows if row.error]
    seconds = sum(row.seconds for row in rows)
    console.print(f"{len(rows) - len(failed)} of {len(rows)} architectures deployed in {seconds:.0f} s")
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
