"""Every deployed file through every back end of its device, and the target's bounds on what they found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from toolchain.backends import serving
from toolchain.backends.backend import Backend, Measured, Written
from toolchain.devices.bundle import golden_rows
from toolchain.devices.golden import Samples
from toolchain.errors import DeviceError
from toolchain.formats.onnx.external import SUFFIX as DATA_SUFFIX
from toolchain.profiles import DeviceProfile
from toolchain.progress import SILENT, Progress
from toolchain.quantization import QuantizedGraph
from toolchain.targets import FigureGate
from toolchain.validation.results import Bound, Validation, Verdict


@dataclass(frozen=True)
class DeviceFacts:
    """What back ends found; `notes` say in a line each which could not be asked, and why."""

    measured: tuple[Measured, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, bytes]:
        """What is published beside the deployed files."""
        return {name: content for found in self.measured for name, content in found.files.items()}


def measure_files(
    files: Mapping[str, bytes],
    model: QuantizedGraph,
    samples: Samples,
    profile: DeviceProfile,
    *,
    progress: Progress = SILENT,
) -> DeviceFacts:
    """What the back ends of a device find of deployed files; those that are not installed, or fail, are noted.

    Raises UnsupportedError or BudgetError where one says that the device does not take a file.
    """
    asked = [(name, backend) for name in files if not name.endswith(DATA_SUFFIX) for backend in serving(profile, name)]
    missing = {backend.name: backend.missing() for _, backend in asked}
    notes = [line for line in missing.values() if line is not None]
    ready = [(name, backend) for name, backend in asked if missing[backend.name] is None]
    found: list[Measured] = []
    for name, backend in progress.track(ready, description="back ends", total=len(ready)):
        try:
            found.append(_measure(name, backend, files, model, samples, profile))
        except DeviceError as error:
            notes.append(f"{backend.name} on {name}: {error.what}")
    return DeviceFacts(tuple(found), tuple(notes))


def _measure(
    name: str,
    backend: Backend,
    files: Mapping[str, bytes],
    model: QuantizedGraph,
    samples: Samples,
    profile: DeviceProfile,
) -> Measured:
    specification = QuantizedGraph(model.graph, {}) if ".float." in name else model
    beside = files.get(name + DATA_SUFFIX)
    inputs, expected = golden_rows(name, files[name], specification, samples, beside)
    return backend.measure(Written(name, files[name], specification, inputs, expected, beside), profile)


def judge_figures(found: Validation, facts: DeviceFacts, gates: Mapping[str, FigureGate]) -> Validation:
    """`found` with the verdicts on figures of back ends, and a line for each miss. A figure that no back end gives
    misses, except where one was not to be asked: then it is not judged."""
    verdicts, missed = [*found.verdicts], [*found.missed]
    for key, gate in gates.items():
        measured = [(row.by_key[key], row) for row in facts.measured if key in row.by_key]
        if not measured and not facts.notes:
            missed.append(f"gate {key}: no back end of the device measures it")
        for bound, wanted in _bounds(gate):
            verdict = _verdict(key, bound, wanted, measured)
            verdicts.append(verdict)
            if verdict.passed is False:
                missed.append(f"{verdict.where}: {key} is {verdict.measured:,.10g}, wanted {bound} {wanted:,.10g}")
    return replace(found, verdicts=tuple(verdicts), missed=tuple(missed))


def _bounds(gate: FigureGate) -> Iterator[tuple[Bound, float]]:
    if gate.at_least is not None:
        yield Bound.AT_LEAST, gate.at_least
    if gate.at_most is not None:
        yield Bound.AT_MOST, gate.at_most


def _verdict(key: str, bound: Bound, wanted: float, measured: Sequence[tuple[float, Measured]]) -> Verdict:
    if not measured:
        return Verdict(key, bound, wanted, None, None, None)
    worst, row = (max if bound is Bound.AT_MOST else min)(measured, key=lambda pair: pair[0])
    passed = worst <= wanted if bound is Bound.AT_MOST else worst >= wanted
    return Verdict(key, bound, wanted, worst, f"{row.file} by {row.backend}", passed)
