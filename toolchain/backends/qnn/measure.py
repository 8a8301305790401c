"""What QNN makes of a deployed ONNX file on every SoC of a device: where each op runs, and how far the HTP's results
lie from those of onnxruntime's CPU, in steps of the tensors' scales.

    htp_op_steps        most steps at the result of any op, each fed what the CPU fed it
    htp_output_steps    most steps at an output of the whole network, where deviations add up
    htp_output_share    share of output values within a step

A step of a 16-bit tensor is one of 8 bits, 257 of its integers: the HTP does not sum 16-bit products exactly. The
emulator's cycles are no performance figure and are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolchain.backends.backend import Figure, Measured, Written
from toolchain.backends.qnn.compiler import Compiled, compile_file, version
from toolchain.backends.qnn.cut import cut_file
from toolchain.backends.qnn.placement import Placed, place
from toolchain.errors import DeviceError, UnsupportedError
from toolchain.formats.onnx.reader import parse_onnx
from toolchain.formats.onnx.session import load_session, run_session, takes_unsigned
from toolchain.graph.cost import total_macs
from toolchain.profiles import DeviceProfile

EMULATED_MACS = 1_000_000_000
"""What the emulator may multiply for the outputs of one SoC: some seconds. A sample is run in any case."""

_INTEGERS_A_STEP = 257  # 65535 / 255

Arrays = Mapping[str, Sequence[np.ndarray]]


@dataclass(frozen=True)
class Steps:
    """Deviations of the HTP's integers from the CPU's: the most, where, and the share of values within one."""

    most: int
    where: str
    within: float


def measure(written: Written, profile: DeviceProfile) -> Measured:
    """Compile for every SoC of the profile; the figures are the worst of all. Raises UnsupportedError where QNN refuses
    the file for one, DeviceError where QNN itself fails."""
    assert profile.qnn is not None
    names = [value.name for value in parse_onnx(written.content).graph.input]
    count = max(1, min(len(written.inputs), EMULATED_MACS // max(1, total_macs(written.model.graph))))
    inputs = {name: [row[at] for row in written.inputs[:count]] for at, name in enumerate(names)}
    found = [_compiled(written, soc, inputs, profile.qnn.contexts) for soc in profile.qnn.socs]
    placed = [place(written, one.trace, profile) for one in found]
    worst = min(range(len(found)), key=lambda at: (placed[at].macs_share, placed[at].nodes_share))
    figures = [
        Figure("npu_nodes_share", min(one.nodes_share for one in placed), "ops on the NPU"),
        Figure("npu_macs_share", min(one.macs_share for one in placed), "multiply-adds on the NPU"),
    ]
    figures += _output_figures(written, found, count)
    notes = [*_placement_notes(profile.qnn.socs, placed)]
    operators, note = _op_steps(written, {name: arrays[:1] for name, arrays in inputs.items()}, profile.qnn.socs)
    figures += operators
    notes += [note] if note else []
    files = {name: content for one in found for name, content in one.files.items()}
    sizes = [len(content) for name, content in files.items() if name.endswith(".bin")]
    if sizes:
        figures.append(Figure("context_bytes", max(sizes), "largest context binary"))
    said = f"{version()} for {', '.join(profile.qnn.socs)}"
    return Measured(written.name, "qnn", said, tuple(figures), placed[worst].placements, files, tuple(notes))


def _compiled(written: Written, soc: str, inputs: Arrays, contexts: bool) -> Compiled:
    context = f"{written.name.removesuffix('.onnx')}.{soc.lower()}.ctx.onnx" if contexts else None
    return compile_file(written.content, soc, inputs, data=written.data, context=context)


def _placement_notes(socs: Sequence[str], placed: Sequence[Placed]) -> list[str]:
    shares = {soc: one.nodes_share for soc, one in zip(socs, placed, strict=True)}
    if len(set(shares.values())) == 1:
        return []
    return ["ops on the NPU differ: " + ", ".join(f"{soc} {share:.1%}" for soc, share in shares.items())]


def _output_figures(written: Written, found: Sequence[Compiled], count: int) -> list[Figure]:
    """Outputs of the whole network; nothing where none is in steps."""
    params = written.model.params
    steps = []
    for at, name in enumerate(written.model.graph.outputs):
        if name not in params:
            continue
        expected = np.stack([row[at] for row in written.expected[:count]])
        steps += [_steps(name, one.outputs[name], expected, float(params[name].scale)) for one in found]
    if not steps:
        return []
    worst = max(steps, key=lambda one: one.most)
    return [
        Figure("htp_output_steps", worst.most, f"most steps from onnxruntime's CPU at an output, {worst.where}"),
        Figure("htp_output_share", min(one.within for one in steps), "outputs within a step of onnxruntime's CPU"),
    ]


def _steps(where: str, found: np.ndarray, expected: np.ndarray, scale: float = 1.0) -> Steps:
    """`scale` is what an integer stands for where the arrays are real."""
    apart = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    if expected.dtype.kind == "f":
        apart = np.rint(apart / scale)
    if expected.dtype in (np.int16, np.uint16):
        apart = np.ceil(apart / _INTEGERS_A_STEP)
    return Steps(int(apart.max(initial=0)), where, float((apart <= 1).mean()) if apart.size else 1.0)


def _op_steps(written: Written, inputs: Arrays, socs: Sequence[str]) -> tuple[list[Figure], str]:
    """Op by op, on one sample; or a line that says why not."""
    if written.data is not None:
        return [], "steps op by op are not measured of a file whose constants lie beside it"
    cut = cut_file(written.content)
    if not cut.tensors:
        return [], ""
    seen = _seen_on_cpu(cut.whole, cut.tensors, inputs)
    given = dict(inputs) | {port: [seen[name]] for port, name in cut.given.items()}
    steps: list[Steps] = []
    try:
        for soc in socs:
            outputs = compile_file(cut.parts, soc, given).outputs
            steps += [_steps(name, outputs[name][0], seen[name]) for name in cut.tensors]
    except (DeviceError, UnsupportedError) as error:
        return [], f"steps op by op are not measured: {error.what}"
    worst = max(steps, key=lambda one: one.most)
    exact = sum(one.most <= 1 for one in steps) / len(steps)
    return [
        Figure("htp_op_steps", worst.most, f"most steps from onnxruntime's CPU at one op, {worst.where}"),
        Figure("htp_op_share", exact, "ops within a step of onnxruntime's CPU"),
    ], ""


def _seen_on_cpu(whole: bytes, tensors: Sequence[str], inputs: Arrays) -> dict[str, np.ndarray]:
    """What onnxruntime's CPU makes of one sample, tensor by tensor."""
    session = load_session(whole, 1, unsigned=takes_unsigned(parse_onnx(whole)))
    names = list(dict.fromkeys(tensors))
    feeds = {name: arrays[0] for name, arrays in inputs.items()}
    return dict(zip(names, run_session(session, names, feeds), strict=True))
