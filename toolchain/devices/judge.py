"""The judge: a device's outputs against what the bundle expects.

    same runtime, version and kernels, on the same CPU, or integers alone (XNNPACK, tflite-micro)     to the bit
    any other, integers          |device - expected| <= steps on at least `share` of the values
    any other, floats            max |device - expected| <= relative * (max - min of expected)

A step is 1 of an integer output, the quantization step of a float one, 1/255 of the range where that has none.
Where outputs differ by more, a second pass looks for the first tensor on the way that does: the device is asked for all
of them, and this machine's runtime too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from packaging.version import InvalidVersion, Version

from toolchain.devices.op_by_op import OpSteps, Tensors
from toolchain.devices.reading import Artifact, Bundle, Port, Results, Run
from toolchain.errors import DisagreementError

_NUMBERED_AS_TENSORFLOW = ("tensorflow", "tflite-runtime")


@dataclass(frozen=True)
class Divergence:
    """The first tensor, in the order they are computed, that differs by more than allowed; `op` made it."""

    tensor: str
    op: str
    max_steps: float
    share: float
    """Of its values that differ by more than allowed."""


@dataclass(frozen=True)
class Judgement:
    """One file in one runtime of the device. `exact` says what was asked.
    `max_steps` is None of float files; `relative_error` and `sqnr_db` (against the float model) are of the worst
    output, an infinite one null."""

    file: str
    runtime: str
    version: str
    exact: bool
    passed: bool
    identical: bool = False
    max_steps: float | None = None
    share_within: float | None = None
    relative_error: float | None = None
    sqnr_db: float | None = None
    latency_ms: Mapping[str, float] | None = None
    peak_bytes: int | None = None
    before_model_bytes: int | None = None
    error: str | None = None
    """What the runtime said where it gave nothing."""
    why: str | None = None
    first_divergence: Divergence | None = None
    op_steps: OpSteps | None = None
    """The op that differs most from this machine's on the same inputs; None where none was compared."""
    is_too_old: bool = False
    """The runtime is older than what the file needs, which it says of itself, and gave nothing."""

    @property
    def model_bytes(self) -> int | None:
        """What the loaded and run model added to the process's memory."""
        if self.peak_bytes is None or self.before_model_bytes is None:
            return None
        return self.peak_bytes - self.before_model_bytes


@dataclass(frozen=True)
class Verdict:
    """All files in all runtimes of a device; `unjudged` names files that no runtime there takes."""

    bundle: str
    samples: int
    device: Mapping[str, Any]
    judgements: tuple[Judgement, ...]
    unjudged: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return bool(self.judgements) and not any(self.failed)

    @property
    def failed(self) -> Iterator[Judgement]:
        """What speaks against the bundle. A runtime that is too old for a file does where no other confirms that."""
        confirmed = {judgement.file for judgement in self.judgements if judgement.passed}
        for judgement in self.judgements:
            if not judgement.passed and not (judgement.is_too_old and judgement.file in confirmed):
                yield judgement

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"passed": self.passed, **asdict(self)}


def judge(
    bundle: Bundle,
    results: Results,
    host_tensors: Callable[[str], Tensors] | None = None,
    host_ops: Callable[[str, Tensors], OpSteps | None] | None = None,
) -> Verdict:
    """Judge what a device gave. `host_tensors` gives a file's tensors as this machine's runtime computes them, for the
    first that diverges; it is asked only where outputs differ and the device has recorded its own. So is `host_ops`,
    with the device's tensors, of integer files."""
    known = {artifact.file: artifact for artifact in bundle.artifacts}
    judged = []
    for run in results.runs:
        found = _judge_run(known[run.file], run, results.cpu)
        if not found.passed and run.tensors and host_tensors is not None:
            divergence = first_divergence(known[run.file], run.tensors, host_tensors(run.file))
            found = replace(found, first_divergence=divergence)
        if may_round_otherwise(found) and run.tensors and host_ops is not None:
            found = replace(found, op_steps=host_ops(run.file, run.tensors))
        judged.append(found)
    run_files = {run.file for run in results.runs}
    missing = tuple(name for name in known if name not in run_files)
    return Verdict(bundle.id, bundle.samples, results.device, tuple(judged), missing)


def may_round_otherwise(found: Judgement) -> bool:
    """Whether integers were given, and others than here: a look at single ops then tells by how much."""
    return found.error is None and found.max_steps is not None and not found.identical


def raise_failed(verdict: Verdict) -> None:
    """Raises DisagreementError that lists what does not hold."""
    lines = [f"{j.file} in {j.runtime} {j.version}: {j.why}{_origin(j)}" for j in verdict.failed]
    if not verdict.judgements:
        lines = ["the device ran none of the files"]
    if lines:
        without = all(judgement.first_divergence is None for judgement in verdict.judgements)
        hint = "run_bundle.py --tensors on the device records what is computed on the way" if without else None
        text = "\n".join(["the device does not confirm the bundle:", *(f"  - {line}" for line in lines)])
        raise DisagreementError(text, hint=hint)


def _origin(judgement: Judgement) -> str:
    found = judgement.first_divergence
    if found is None:
        return ""
    return f"; it begins at {found.tensor} ({found.op}), up to {found.max_steps:g} steps in {found.share:.1%} of it"


def must_be_exact(artifact: Artifact, run: Run, cpu: str) -> bool:
    """Whether the device's runtime is the one that gave the expected outputs, on kernels that give the same bits."""
    same = (run.runtime, run.version, run.kernels) == (artifact.runtime, artifact.version, artifact.kernels)
    anywhere = artifact.integer and artifact.kernels in ("xnnpack", "reference")
    return same and (cpu == artifact.cpu or anywhere)


def _judge_run(artifact: Artifact, run: Run, cpu: str) -> Judgement:
    exact = must_be_exact(artifact, run, cpu)
    base = Judgement(
        run.file,
        run.runtime,
        run.version,
        exact,
        passed=False,
        latency_ms=run.latency_ms,
        peak_bytes=run.peak_bytes,
        before_model_bytes=run.before_model_bytes,
    )
    if run.error is not None:
        if (needed := _needed_release(artifact, run)) is not None:
            why = f"too old, the file needs {needed}: install ai-edge-litert, or deploy with RECIPE=static"
            return replace(base, error=run.error, why=why, is_too_old=True)
        return replace(base, error=run.error, why=f"it does not run: {run.error}")
    pairs = [(port, run.outputs[port.name]) for port in artifact.outputs]
    identical = all(np.array_equal(port.expected, given, equal_nan=given.dtype.kind == "f") for port, given in pairs)
    measured = replace(
        base,
        identical=identical,
        relative_error=_finite(max(relative_error(port.expected, given) for port, given in pairs)),
        sqnr_db=_finite(min(_sqnr(port, given) for port, given in pairs)),
    )
    if artifact.relative is None:
        steps = [_steps(artifact, port.expected, given, port.step, real=port.real) for port, given in pairs]
        joined = np.concatenate([s.ravel() for s in steps])
        within = float((joined <= _limit(artifact)).mean()) if joined.size else 1.0
        measured = replace(measured, max_steps=float(joined.max(initial=0)), share_within=within)
    return _decide(artifact, measured)


def _needed_release(artifact: Artifact, run: Run) -> str | None:
    """The release that the file needs, where the runtime counts releases as TensorFlow does and is older."""
    needed = artifact.oldest_runtime
    if needed is None or run.runtime not in _NUMBERED_AS_TENSORFLOW:
        return None
    try:
        return needed if Version(run.version) < Version(needed) else None
    except InvalidVersion:
        return None


def _decide(artifact: Artifact, found: Judgement) -> Judgement:
    if found.exact:
        passed, why = found.identical, "the same runtime must give the same bits, and does not"
    elif artifact.relative is not None:
        error = found.relative_error
        passed = error is not None and error <= artifact.relative
        amount = "any amount" if error is None else f"{error:.1e}"
        why = f"outputs differ by {amount} of their range, {artifact.relative:g} is allowed"
    else:
        passed = found.share_within is not None and found.share_within >= artifact.share
        why = (
            f"{found.share_within:.1%} of the values lie within {artifact.steps} steps, "
            f"{artifact.share:.0%} must (up to {found.max_steps:g} steps)"
        )
    return replace(found, passed=bool(passed), why=None if passed else why)


def _limit(artifact: Artifact) -> float:
    # float outputs carry the rounding of their own last bits
    return float(artifact.steps or 0) + 1e-3


def _steps(
    artifact: Artifact, expected: np.ndarray, given: np.ndarray, step: float | None, *, real: bool
) -> np.ndarray:
    """How many steps each value is off; what is no real number is right or out of reach, and so is a NaN."""
    difference = _differences(expected, given)
    if not real:
        return np.where(difference > 0, _limit(artifact) + 1, 0.0)
    return difference / (step or max(_range(expected) / artifact.float_steps, 1e-30))


def _differences(expected: np.ndarray, given: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        difference = np.abs(given.astype(np.float64) - expected.astype(np.float64))
    same = (given == expected) | (np.isnan(given.astype(np.float64)) & np.isnan(expected.astype(np.float64)))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


def _range(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return float(np.ptp(finite.astype(np.float64))) if finite.size else 0.0


def relative_error(expected: np.ndarray, given: np.ndarray) -> float:
    """The largest difference as a share of the range of what was expected."""
    difference = float(_differences(expected, given).max(initial=0))
    return difference / max(_range(expected), 1e-30) if difference else 0.0


def _sqnr(port: Port, given: np.ndarray) -> float:
    """10 log10(sum r^2 / sum (r - y)^2) against the float model."""
    values = given.astype(np.float64)
    real = values if port.scale is None else (values - port.zero_point) * port.scale
    reference = port.reference.astype(np.float64)
    noise, signal = float(((reference - real) ** 2).sum()), float((reference**2).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-30) / noise))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def first_divergence(artifact: Artifact, device: Tensors, host: Tensors) -> Divergence | None:
    """The first tensor that both recorded and that differs by more than the file's tolerance; None where none does."""
    for entry in _shown(artifact, device, host):
        ours, theirs = host[entry["name"]], device[entry["name"]]
        step = 1.0 if ours.dtype.kind in "iu" else None
        steps = _steps(artifact, ours, theirs, step, real=True)
        allowed = _limit(artifact) if artifact.relative is None else artifact.relative * artifact.float_steps
        off = float((steps > allowed).mean())
        if off > 1 - artifact.share:
            return Divergence(entry["name"], entry["op"], float(steps.max(initial=0)), off)
    return None


def _shown(artifact: Artifact, device: Tensors, host: Tensors) -> Iterable[Mapping[str, Any]]:
    for entry in artifact.tensors:
        name = entry["name"]
        if name in device and name in host and device[name].shape == host[name].shape:
            yield entry
