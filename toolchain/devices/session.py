"""One validation on a device: put the bundle, run it, fetch the results, judge them, leave nothing behind."""

from __future__ import annotations

import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolchain.devices import run_bundle
from toolchain.devices.judge import Verdict, judge, may_round_otherwise
from toolchain.devices.op_by_op import host_runtime, op_steps
from toolchain.devices.reading import RESULTS, RUNNER, Bundle, Results, read_bundle, read_results
from toolchain.devices.ways import Options, Way, WayKind
from toolchain.errors import DeviceError, OptionError
from toolchain.formats.tflite.native_log import without_notices

RUNS = 50
"""Inferences timed of each file in each runtime."""

_MEANINGS = {
    run_bundle.DAMAGED: "the bundle arrived damaged",
    run_bundle.NO_RUNTIME: "the device has no runtime for it",
    run_bundle.CANNOT_WRITE: "the device cannot write the results",
    run_bundle.ABANDONED: "the device lost this machine",
}


def validate_on(
    bundle: Bundle,
    kind: WayKind,
    options: Options,
    *,
    runtimes: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Run `bundle` on the device that `options` name, and judge what comes back; where that does not hold, run it again
    for the first tensor that diverges, and where integers are others than here, for the op that differs most. Raises
    DeviceError where the device is not reached or is lost."""
    missing = kind.missing()
    if missing is not None:
        raise OptionError(f"way {kind.name!r} misses {missing}")
    with opened(kind, options) as way:
        tell(f"sending {len(bundle.files)} files by {kind.name} ...")
        way.put(bundle.folder, bundle.files)
        tell("running ...")
        runs = RUNS if kind.timed else 0
        found = judge(bundle, run_there(way, bundle, options, runtimes=runtimes, runs=runs))
        if not kind.timed:
            found = _without_memory(found)
        asked = {row.runtime: None for row in (*found.failed, *filter(may_round_otherwise, found.judgements))}
        if not asked:
            return found
        tell("looking at single ops ..." if found.passed else "looking for the first tensor that diverges ...")
        seen = run_there(way, bundle, options, runtimes=tuple(asked), runs=0, tensors=True)
        return _with_origins(found, judge_fully(bundle, seen))


def _with_origins(found: Verdict, again: Verdict) -> Verdict:
    """The first verdict, with what the second pass found."""
    origins = {(row.file, row.runtime): row for row in again.judgements}
    judged = []
    for row in found.judgements:
        seen = origins.get((row.file, row.runtime), row)
        judged.append(replace(row, first_divergence=seen.first_divergence, op_steps=seen.op_steps))
    return replace(found, judgements=tuple(judged))


def _without_memory(found: Verdict) -> Verdict:
    """Without the memory of a process that is not the device's own."""
    judged = (replace(row, peak_bytes=None, before_model_bytes=None) for row in found.judgements)
    return replace(found, judgements=tuple(judged))


@contextmanager
def opened(kind: WayKind, options: Options) -> Iterator[Way]:
    """A way that is cleaned at the end, however that comes."""
    way = kind.open(options)
    try:
        yield way
    finally:
        way.clean()


def run_there(
    way: Way,
    bundle: Bundle,
    options: Options,
    *,
    runtimes: Sequence[str] = (),
    runs: int = RUNS,
    tensors: bool = False,
) -> Results:
    """Run the bundle that was put, once; results that carry this run's number. Raises DeviceError, or OptionError where
    results are not what was written."""
    nonce = secrets.token_hex(16)
    limit = options.limits.run
    arguments = [RUNNER, "--watch", "--nonce", nonce, "--runs", str(runs), "--seconds", f"{limit / 2:g}"]
    arguments += [word for runtime in runtimes for word in ("--runtime", runtime)] + ["--tensors"] * tensors
    ran = way.run(arguments, seconds=limit)
    if ran.code:
        raise DeviceError(_why(ran.code, ran.last_line), hint="run_bundle.py runs by hand too: see manifest.json")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, RESULTS)
        way.get(RESULTS, path)
        return read_results(path, bundle, nonce=nonce)


def _why(code: int, line: str) -> str:
    said = line.removeprefix("error: ")
    killed = -code if code < 0 else code - 128 if code > 128 else 0
    if killed:
        return f"the bundle's process was ended by signal {killed}{' (too little memory?)' if killed == 9 else ''}"
    return f"{_MEANINGS.get(code, f'the bundle ended with {code}')}: {said}"


def host_tensors(bundle: Bundle, file: str) -> Mapping[str, np.ndarray]:
    """What this machine's runtime computes on the way of the first sample, by the file's names of tensors."""
    manifest, _ = run_bundle.read_manifest(bundle.folder)
    artifact = next(entry for entry in manifest["artifacts"] if entry["file"] == file)
    inputs = [np.load(bundle.folder / port["golden"], allow_pickle=False)[0] for port in artifact["inputs"]]
    ports = artifact["tensors"]
    if artifact["expected"]["runtime"] not in run_bundle.installed_runtimes():
        return {}
    with without_notices(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that keeping tensors is for debugging
        run = run_bundle.load(artifact, bundle.folder, host_runtime(artifact), ports)
        found = run(inputs)[len(artifact["outputs"]) :]
    return {port["name"]: np.array(value) for port, value in zip(ports, found, strict=True) if value is not None}


def judge_file(given: Bundle | str | Path, results: str | Path) -> Verdict:
    """Judge results that were carried here by hand. Raises OptionError where either is not what was written."""
    bundle = given if isinstance(given, Bundle) else read_bundle(given)
    return judge_fully(bundle, read_results(results, bundle))


def judge_fully(bundle: Bundle, results: Results) -> Verdict:
    """Judge results, with what tensors they record."""
    return judge(
        bundle, results, lambda file: host_tensors(bundle, file), lambda file, seen: op_steps(bundle, file, seen)
    )
