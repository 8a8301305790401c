"""The judge: exact where it must be, within steps elsewhere, the first diverging tensor, nothing tampered with."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.devices.conftest import deployed
from toolchain.devices import run_bundle
from toolchain.devices.bundle import write_bundle
from toolchain.devices.commands import print_verdict
from toolchain.devices.judge import first_divergence, judge, must_be_exact, raise_failed
from toolchain.devices.reading import Results, Run, decode_array, read_bundle, read_results
from toolchain.devices.session import host_tensors, judge_file, judge_fully
from toolchain.errors import DisagreementError, OptionError, ToolchainError


@pytest.fixture(scope="module")
def bundle(made):
    return read_bundle(made)


@pytest.fixture
def ran(bundle, outcome) -> Results:
    return read_results(outcome, bundle)


def refusing(ran: Results, *, by: str, version: str) -> Results:
    """The same results with those of a runtime that gave nothing for the TFLite file."""
    first = next(run for run in ran.runs if run.file == "model.tflite")
    refused = replace(first, runtime=by, version=version, outputs={}, error="Registration failed.")
    return replace(ran, runs=(*ran.runs, refused))


def test_a_runtime_too_old_for_a_file_is_told_and_another_confirms_it(bundle, ran):
    needs = tuple(replace(artifact, oldest_runtime="2.17.0") for artifact in bundle.artifacts)
    newer = replace(bundle, artifacts=needs)
    found = judge(newer, refusing(ran, by="tflite-runtime", version="2.14.0"))
    assert found.passed and found.judgements[-1].is_too_old
    console = Console(record=True, width=200)
    print_verdict(found, console)
    assert "too old" in console.export_text()
    alone = replace(ran, runs=tuple(run for run in ran.runs if run.file != "model.tflite"))
    tflite = next(run for run in ran.runs if run.file == "model.tflite")
    without = refusing(replace(ran, runs=(tflite,)), by="tflite-runtime", version="2.14.0").runs[-1:]
    lonely = judge(newer, replace(ran, runs=(*alone.runs, *without)))
    assert not lonely.passed
    with pytest.raises(DisagreementError, match=r"too old, the file needs 2\.17\.0: install ai-edge-litert"):
        raise_failed(lonely)


@pytest.mark.parametrize(("runtime", "version"), [("tflite-runtime", "2.17.0"), ("ai-edge-litert", "1.0.1")])
def test_a_runtime_that_is_new_enough_must_run_it(bundle, ran, runtime, version):
    needs = tuple(replace(artifact, oldest_runtime="2.17.0") for artifact in bundle.artifacts)
    found = judge(replace(bundle, artifacts=needs), refusing(ran, by=runtime, version=version))
    assert not found.passed and not found.judgements[-1].is_too_old


def test_the_bundle_tells_which_runtime_its_files_need(bundle):
    needed = {artifact.file: artifact.oldest_runtime for artifact in bundle.artifacts}
    assert needed == {"model.onnx": None, "model.tflite": "1.14.0", "model.float.tflite": "1.5.0"}


def edited(outcome: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], *, signed: bool) -> Path:
    plain = json.loads(outcome.read_text())
    change(plain)
    if signed:
        plain["digest"] = run_bundle.digest_of(plain)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(plain))
    return path


def shifted(ran: Results, file: str, by: float, version: str, *, share: float = 1.0) -> Results:
    """The same results of another version of the runtime, outputs off by so much, in so many of the values."""

    def changed(run: Run) -> Run:
        if run.file != file:
            return run
        outputs = {}
        for name, values in run.outputs.items():
            wide = values.astype(np.float64)
            flat = wide.ravel()
            flat[: round(share * flat.size)] += by
            outputs[name] = flat.reshape(values.shape).astype(values.dtype)
        return replace(run, version=version or run.version, outputs=outputs)

    return replace(ran, runs=tuple(changed(run) for run in ran.runs))


def of(verdict, file):
    return next(judgement for judgement in verdict.judgements if judgement.file == file)


@pytest.mark.parametrize(
    ("file", "by", "version", "passed", "words"),
    [
        ("model.onnx", 1, "", False, "same bits"),
        ("model.onnx", 1, "0.1", True, None),
        ("model.onnx", 2, "0.1", True, None),
        ("model.onnx", 3, "0.1", False, "0.0% of the values lie within 2 steps"),
        ("model.tflite", -2, "0.1", True, None),
        ("model.tflite", -3, "0.1", False, "up to 3 steps"),
        ("model.float.tflite", 1e-5, "0.1", True, None),
        ("model.float.tflite", 0.1, "0.1", False, "0.0001 is allowed"),
        ("model.float.tflite", float("nan"), "0.1", False, "any amount"),
    ],
)
def test_exact_for_the_same_runtime_and_within_steps_elsewhere(bundle, ran, file, by, version, passed, words):
    verdict = judge(bundle, shifted(ran, file, by, version))
    found = of(verdict, file)
    assert (found.passed, verdict.passed, found.exact) == (passed, passed, not version)
    if words:
        with pytest.raises(DisagreementError, match=words):
            raise_failed(verdict)
    else:
        raise_failed(verdict)


def test_a_share_of_the_values_may_be_further_off(ran, tmp_path):
    """14 of 15 values within: 93 %."""
    given = deployed()
    loose = replace(given, tolerance=replace(given.tolerance, share=0.9))
    bundle = read_bundle(write_bundle(tmp_path / "bundle", loose))
    found = of(judge(bundle, shifted(ran, "model.tflite", 9, "0.1", share=1 / 15)), "model.tflite")
    assert found.passed and found.max_steps == 9 and found.share_within == pytest.approx(14 / 15)


def test_another_cpu_must_give_the_same_bits_where_only_integers_are_computed(bundle, ran):
    asked = {run.file: must_be_exact(a, run, "another") for run, a in zip(ran.runs, bundle.artifacts, strict=True)}
    assert asked == {"model.onnx": False, "model.tflite": True, "model.float.tflite": False}


def test_a_file_that_no_runtime_takes_is_named(bundle, ran):
    only = replace(ran, runs=tuple(run for run in ran.runs if run.file == "model.onnx"))
    assert judge(bundle, only).unjudged == ("model.tflite", "model.float.tflite")
    with pytest.raises(DisagreementError, match="ran none"):
        raise_failed(judge(bundle, replace(ran, runs=())))


@pytest.mark.parametrize("file", ["model.onnx", "model.tflite", "model.float.tflite"])
def test_the_device_shows_what_this_machine_computes_on_the_way(bundle, ran, file):
    seen = next(run for run in ran.runs if run.file == file).tensors
    host = host_tensors(bundle, file)
    assert len(seen) >= 2 and set(seen) == set(host)
    assert all(np.array_equal(seen[name], host[name]) for name in seen)


@pytest.mark.parametrize("file", ["model.onnx", "model.tflite", "model.float.tflite"])
def test_the_first_tensor_that_diverges_is_found(bundle, ran, file):
    artifact = next(a for a in bundle.artifacts if a.file == file)
    tensors = dict(next(run for run in ran.runs if run.file == file).tensors)
    assert first_divergence(artifact, tensors, host_tensors(bundle, file)) is None
    names = [entry["name"] for entry in artifact.tensors if entry["name"] in tensors]
    for at, name in enumerate(names):
        wrong = tensors | {later: np.zeros_like(tensors[later]) for later in names[at:]}
        found = first_divergence(artifact, wrong, host_tensors(bundle, file))
        assert found is not None and found.tensor == name


def test_a_failed_verdict_names_it(bundle, ran):
    def wrong(run: Run) -> Run:
        return replace(run, tensors={name: np.zeros_like(array) for name, array in run.tensors.items()})

    spoilt = shifted(ran, "model.tflite", 20, "")
    spoilt = replace(spoilt, runs=tuple(map(wrong, spoilt.runs)))
    verdict = judge(bundle, spoilt, lambda file: host_tensors(bundle, file))
    first = of(verdict, "model.tflite").first_divergence
    assert first is not None and first.op == "CONV_2D"
    with pytest.raises(DisagreementError, match=f"it begins at {first.tensor}"):
        raise_failed(verdict)


TAMPERING: dict[str, tuple[Callable[[dict[str, Any]], object], bool, str]] = {
    "latency edited": (lambda r: r["runs"][0]["latency_ms"].update(p50=0.001), False, "changed after"),
    "device edited": (lambda r: r["device"].update(machine="riscv"), False, "changed after"),
    "a run left out": (lambda r: r["runs"].pop(), False, "changed after"),
    "another bundle": (lambda r: r.update(bundle="0" * 64), True, "another bundle"),
    "a file it has not": (lambda r: r["runs"][0].update(file="other.onnx"), True, "does not have"),
    "an output left out": (lambda r: r["runs"][0]["outputs"].pop(), True, "missing"),
    "truncated": (lambda r: r["runs"][0]["outputs"][0].update(base64="AAAA"), True, "truncated"),
    "fewer samples": (
        lambda r: r["runs"][0]["outputs"].__setitem__(0, run_bundle.encode_array("y", np.zeros((1, 1, 5), np.uint8))),
        True,
        r"is uint8\[1, 1, 5\], not",
    ),
    "another schema": (lambda r: r.update(schema=99), True, "schema 99"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_results_that_were_tampered_with_are_refused(bundle, outcome, tmp_path, what):
    change, signed, words = TAMPERING[what]
    with pytest.raises(OptionError, match=words) as caught:
        read_results(edited(outcome, tmp_path, change, signed=signed), bundle)
    assert caught.value.exit_code == 2 and caught.value.where


def test_results_of_another_run_are_refused(bundle, outcome):
    with pytest.raises(OptionError, match="another run"):
        read_results(outcome, bundle, nonce="0" * 32)


def test_arrays_come_back():
    for array in (np.arange(6, dtype=np.int8).reshape(2, 3), np.float32(3.5).reshape(()), np.zeros((0, 2), np.int64)):
        back = decode_array(json.loads(json.dumps(run_bundle.encode_array("a", array))))
        assert back.dtype == array.dtype and np.array_equal(back, array)


def _damaged(content: bytes, random: np.random.Generator) -> bytes:
    """A byte changed, a piece cut out, the end cut off, or a piece put in."""
    at = int(random.integers(len(content)))
    length = int(random.integers(1, 30))
    piece = random.integers(0, 256, length, dtype=np.uint8).tobytes()
    kind = random.integers(4)
    if kind == 0:
        return content[:at] + bytes([content[at] ^ int(random.integers(1, 256))]) + content[at + 1 :]
    return (content[:at] + content[at + length :], content[:at], content[:at] + piece + content[at:])[kind - 1]


def test_a_hundred_damaged_bundles_give_one_error_each(made, outcome, tmp_path):
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    folder = tmp_path / "bundle"
    write_bundle(folder, deployed())
    random = np.random.default_rng(0)
    for number in range(100):
        path = folder / names[number % len(names)]
        content = path.read_bytes()
        path.write_bytes(_damaged(content, random))
        with pytest.raises(OptionError) as caught:
            judge_file(folder, outcome)
        assert caught.value.what and "\n" not in caught.value.what
        path.write_bytes(content)
    assert judge_file(folder, outcome).passed


def test_a_hundred_damaged_results_give_one_error_each(made, bundle, outcome, tmp_path):
    """Damaged bytes; and damage that is signed, as if the device itself had written it."""
    content, path = outcome.read_bytes().rstrip(), tmp_path / "results.json"
    random = np.random.default_rng(0)
    for _ in range(100):
        path.write_bytes(_damaged(content, random))
        with pytest.raises(OptionError) as caught:
            read_results(path, bundle)
        assert caught.value.what and "\n" not in caught.value.what


def test_signed_nonsense_never_ends_in_anything_but_one_error(bundle, outcome, tmp_path):
    random = np.random.default_rng(0)
    values = [None, -1, 0, 1e300, "", "x", [], {}, [[]], True, 2**70]
    for number in range(150):
        plain = json.loads(outcome.read_text())
        _replace_somewhere(plain, values[number % len(values)], random)
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            plain["digest"] = run_bundle.digest_of(plain)
        path = tmp_path / "results.json"
        path.write_text(json.dumps(plain))
        try:
            verdict = judge_fully(bundle, read_results(path, bundle))
            json.dumps(verdict.plain(), allow_nan=False)
            print_verdict(verdict, Console(file=io.StringIO()))
        except ToolchainError as error:
            assert error.what and "\n" not in error.what


def _replace_somewhere(plain: Any, value: Any, random: np.random.Generator) -> None:
    """Go down at random, and put `value` in the place of what is there."""
    keys = list(plain) if isinstance(plain, dict) else list(range(len(plain)))
    key = keys[int(random.integers(len(keys)))]
    inner = plain[key]
    if isinstance(inner, (dict, list)) and inner and random.random() < 0.85:
        _replace_somewhere(inner, value, random)
    else:
        plain[key] = value


def test_a_manifest_that_was_rewritten_is_checked_too(made, tmp_path):
    """Sums are right, entries are not: each is one error, or a bundle that reads."""
    folder = tmp_path / "bundle"
    write_bundle(folder, deployed())
    original = json.loads((folder / "manifest.json").read_text())
    random = np.random.default_rng(0)
    for number in range(60):
        plain = json.loads(json.dumps(original))
        _replace_somewhere(plain, [None, -1, "x", [], {}, 2**70][number % 6], random)
        text = json.dumps(plain)
        (folder / "manifest.json").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        with suppress(KeyError, TypeError, AttributeError):
            (folder / "SHA256SUMS").write_text(run_bundle.sums_of(plain["files"], digest))
        try:
            read_bundle(folder)
        except OptionError as error:
            assert error.what and "\n" not in error.what
