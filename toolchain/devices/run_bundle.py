"""Run a bundle on a device: `python3 run_bundle.py` writes results.json. Python >= 3.9 and numpy, nothing else.

It takes every runtime it finds: onnxruntime for .onnx; ai-edge-litert, tflite-runtime and tensorflow for .tflite, and
tflite-micro where that gave the expected outputs. Each file and runtime gets a process of its own, so that a crash
costs one line and peak memory is that of one model.
results.json is written whole or not at all, and ends in a digest over its content,

    digest = HMAC-SHA256(key = bundle id + nonce, content as canonical JSON),    bundle id = sha256(manifest.json)

which shows edits by hand, truncation and results of another bundle. It is no signature: the bundle is all it takes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import importlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from typing import Any, Callable, Dict, Sequence

import numpy as np

SCHEMA = 1
RUNTIMES = {
    "onnxruntime": ("onnx", "onnxruntime", "mlas"),
    "ai-edge-litert": ("tflite", "ai_edge_litert.interpreter", "xnnpack"),
    "tflite-runtime": ("tflite", "tflite_runtime.interpreter", "xnnpack"),
    "tensorflow": ("tflite", "tensorflow.lite.python.interpreter", "xnnpack"),
    "tflite-micro": ("tflite", "tflite_micro", "reference"),
}
"""A runtime, by its distribution: the format it takes, its module, the kernels it computes with by default."""

CPU_KEYS = ("model name", "Hardware", "CPU implementer", "CPU part", "Features", "flags")
DAMAGED, NO_RUNTIME, CANNOT_WRITE, ABANDONED = 3, 4, 5, 6
LATENCY_SECONDS = 5.0
ARENA_BYTES = 2**27  # of tflite-micro: what a model does not touch takes no memory
Arrays = Sequence[np.ndarray]
Ports = Dict[str, Any]


class BundleError(Exception):
    """One line for the user, and the exit code."""

    def __init__(self, message: str, code: int = DAMAGED) -> None:
        super().__init__(message)
        self.code = code


def digest_of(results: dict[str, Any]) -> str:
    """The digest that `results` must carry. Raises ValueError, KeyError or TypeError where they are no results."""
    content = {key: value for key, value in results.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    key = results["bundle"] + results["nonce"]
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def encode_array(name: str, array: np.ndarray) -> dict[str, Any]:
    """An array as JSON takes it."""
    content = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return {
        "name": name,
        "dtype": array.dtype.newbyteorder("<").str,
        "shape": list(array.shape),
        "sha256": hashlib.sha256(content).hexdigest(),
        "base64": base64.b64encode(content).decode(),
    }


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest of a bundle whose files are all as it says, and the bundle's id. Raises BundleError."""
    try:
        content = (folder / "manifest.json").read_bytes()
        manifest = json.loads(content)
        if manifest["schema"] != SCHEMA:
            raise BundleError(f"the bundle is of schema {manifest['schema']!r}, this file runs schema {SCHEMA}")
        for name, facts in manifest["files"].items():
            _check_file(folder, name, facts)
        bundle = hashlib.sha256(content).hexdigest()
        if (folder / "SHA256SUMS").read_bytes() != sums_of(manifest["files"], bundle).encode():
            raise BundleError("the bundle is damaged: manifest.json and SHA256SUMS do not go together")
    except OSError as error:
        raise BundleError(f"the bundle is incomplete: {error.filename}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"the manifest is damaged: {error}") from error
    return manifest, bundle


def sums_of(files: Ports, bundle: str) -> str:
    """What SHA256SUMS holds, as `sha256sum -c` reads it."""
    return "".join(f"{facts['sha256']}  {name}\n" for name, facts in files.items()) + f"{bundle}  manifest.json\n"


def _check_file(folder: Path, name: str, facts: dict[str, Any]) -> None:
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(f"the manifest is damaged: {name!r} leads out of the bundle")
    content = (folder / name).read_bytes()
    if len(content) != facts["bytes"] or hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise BundleError(f"the bundle is damaged: {name} is not the file that was put in")


def installed_version(runtime: str) -> str:
    """Version of a runtime's distribution, or an empty text."""
    return next((found.version for found in metadata.distributions(name=runtime)), "")


def installed_runtimes() -> list[str]:
    """Names of the runtimes that are here."""
    return [name for name, (_, module, _) in RUNTIMES.items() if util.find_spec(module.partition(".")[0]) is not None]


def load(artifact: Ports, folder: Path, runtime: str, tensors: Sequence[Ports]) -> Callable[[Arrays], list[Any]]:
    """A function from inputs to outputs and then `tensors`, None for what the runtime does not show."""
    path = folder / artifact["file"]
    if runtime == "onnxruntime":
        return _load_onnx(path, artifact, [port["name"] for port in tensors])
    if runtime == "tflite-micro":
        return _load_micro(path, len(artifact["outputs"]), [port["index"] for port in tensors])
    return _load_tflite(path, runtime, artifact, [port["index"] for port in tensors])


def _load_onnx(path: Path, artifact: Ports, tensors: Sequence[str]) -> Callable[[Arrays], list[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if artifact["unsigned"] and x86 and "vnni" not in _text("/proc/cpuinfo"):
        # x86-64 without VNNI sums products of uint8 and int8 in 16 bits; this option avoids it
        options.add_session_config_entry("session.x64quantprecision", "1")
    outputs = [port["name"] for port in artifact["outputs"]]
    seen = [name for name in tensors if name not in outputs]
    given: Any = path.read_bytes() + _more_outputs(seen) if seen else str(path)
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    names = [port["name"] for port in artifact["inputs"]]
    return lambda arrays: list(session.run([*outputs, *tensors], dict(zip(names, arrays))))


def _more_outputs(names: Sequence[str]) -> bytes:
    """Bytes that, put behind an ONNX file, add outputs to it: protobuf merges a field that comes twice, joins lists.
    Field 7 of the model is its graph, 12 of the graph an output, 1 of an output its name."""

    def field(number: int, content: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(content)) + content

    return field(7, b"".join(field(12, field(1, name.encode())) for name in names))


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _load_tflite(path: Path, runtime: str, artifact: Ports, tensors: Sequence[int]) -> Callable[[Arrays], list[Any]]:
    module = importlib.import_module(RUNTIMES[runtime][1])
    keep = {"experimental_preserve_all_tensors": True} if tensors else {}
    interpreter = module.Interpreter(model_path=str(path), num_threads=1, **keep)
    interpreter.allocate_tensors()
    inputs, outputs = ([port["index"] for port in artifact[kind]] for kind in ("inputs", "outputs"))

    def seen() -> list[Any]:
        """None for what an op that computes in place, as ADD in tflite-runtime, has overwritten with its result."""
        found, places = {}, set()
        for index in reversed(tensors):
            with suppress(ValueError):
                view = interpreter.tensor(index)()
                place = (view.ctypes.data, view.shape)
                found[index] = None if place in places else view.copy()
                places.add(place)
        return [found.get(index) for index in tensors]

    def run(arrays: Arrays) -> list[Any]:
        for index, array in zip(inputs, arrays):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return [*(interpreter.get_tensor(index) for index in outputs), *seen()]

    return run


def _load_micro(path: Path, outputs: int, tensors: Sequence[int]) -> Callable[[Arrays], list[Any]]:
    from tflite_micro import runtime

    kind = getattr(runtime.InterpreterConfig, "kPreserveAllTensors" if tensors else "kAllocationRecording")
    interpreter = runtime.Interpreter.from_file(str(path), arena_size=ARENA_BYTES, intrepreter_config=kind)

    def run(arrays: Arrays) -> list[Any]:
        for port, array in enumerate(arrays):
            interpreter.set_input(array, port)
        interpreter.invoke()
        seen = [interpreter.GetTensor(index, 0)["tensor_data"] for index in tensors]
        return [*(interpreter.get_output(port) for port in range(outputs)), *seen]

    return run


def run_artifact(artifact: dict[str, Any], folder: Path, runtime: str, *, runs: int = 0, tensors: bool = False) -> Any:
    """Outputs of all samples, latency of `runs` inferences, peak memory; `tensors` of the first sample."""
    inputs = [np.load(folder / port["golden"], allow_pickle=False) for port in artifact["inputs"]]
    importlib.import_module(RUNTIMES[runtime][1])
    base = memory("VmHWM")
    run = load(artifact, folder, runtime, ())
    outputs = [run([array[at] for array in inputs]) for at in range(len(inputs[0]))]
    found: dict[str, Any] = {
        "latency_ms": measure(lambda: run([array[0] for array in inputs]), runs),
        "memory": {"peak_bytes": memory("VmHWM"), "before_model_bytes": base},
        "outputs": [
            encode_array(port["name"], np.stack(column)) for port, column in zip(artifact["outputs"], zip(*outputs))
        ],
    }
    if tensors:
        ports = artifact["tensors"]
        seen = load(artifact, folder, runtime, ports)([array[0] for array in inputs])[len(artifact["outputs"]) :]
        found["tensors"] = [encode_array(p["name"], np.asarray(a)) for p, a in zip(ports, seen) if a is not None]
    return found


def measure(run: Callable[[], object], runs: int) -> dict[str, float] | None:
    """Percentiles of the time one inference takes, in ms; at least one is timed, and no new one after a few seconds."""
    if runs < 1:
        return None
    run()
    times: list[float] = []
    until = time.perf_counter() + LATENCY_SECONDS
    while len(times) < runs and (not times or time.perf_counter() < until):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    found = {f"p{share}": round(float(np.percentile(times, share)), 4) for share in (10, 50, 90, 99)}
    return {"count": len(times), "min": round(min(times), 4), **found}


def memory(key: str, path: str = "/proc/self/status") -> int | None:
    """Bytes that /proc tells under `key`, of this process or of what else `path` is of."""
    return next((1024 * int(row.split()[1]) for row in _text(path).splitlines() if row.startswith(key + ":")), None)


def device_facts() -> dict[str, Any]:
    """What the device is: CPU, memory, system."""
    cpu: dict[str, list[str]] = {}
    for line in _text("/proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        known = cpu.setdefault(key, []) if key in CPU_KEYS and value else [value]
        if value not in known:
            known.append(value)
    frequency = _text("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").strip()
    return {
        "machine": platform.machine(),
        "model": _text("/proc/device-tree/model").strip("\0\n") or None,
        "cpu": cpu,
        "cores": os.cpu_count(),
        "max_frequency_khz": int(frequency) if frequency.isdigit() else None,
        "memory_bytes": memory("MemTotal", "/proc/meminfo"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(errors="replace")
    return ""


class Watch:
    """Ends this process, and the one it started, when standard input does: whoever asked for the run has gone."""

    def __init__(self) -> None:
        self.running: subprocess.Popen[bytes] | None = None
        self.scratch: str | None = None
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        with suppress(OSError):
            while os.read(0, 1024):
                pass
        if self.running is not None:
            self.running.kill()
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
        os._exit(ABANDONED)


def run_all(folder: Path, manifest: dict[str, Any], options: argparse.Namespace, watch: Watch | None) -> list[Any]:
    """Every file in every runtime that takes it. Raises BundleError where none is here."""
    wanted = [name for name in installed_runtimes() if name in (options.runtime or RUNTIMES)]
    pairs = [(at, a, n) for at, a in enumerate(manifest["artifacts"]) for n in wanted if RUNTIMES[n][0] == a["format"]]
    if not options.runtime:  # a microcontroller's interpreter is slow and knows few ops: only where it is the device's
        pairs = [p for p in pairs if p[2] != "tflite-micro" or p[1]["expected"]["runtime"] == p[2]]
    if not pairs:
        asked = ", ".join(options.runtime or RUNTIMES)
        raise BundleError(f"none of these runtimes is installed for {sys.executable}: {asked}", NO_RUNTIME)
    found = []
    for at, artifact, runtime in pairs:
        print(f"{artifact['file']} in {runtime} ...", file=sys.stderr, flush=True)
        head = {"file": artifact["file"], "runtime": runtime, "version": installed_version(runtime)}
        found.append({**head, "kernels": RUNTIMES[runtime][2], **_in_child(folder, at, runtime, options, watch)})
    return found


def _in_child(folder: Path, at: int, runtime: str, options: argparse.Namespace, watch: Watch | None) -> dict[str, Any]:
    # beside the results, not among the system's temporary files: whoever removes the folder removes all
    with tempfile.TemporaryDirectory(prefix=".run-", dir=Path(options.out).parent) as scratch:
        out, log = Path(scratch, "run.json"), Path(scratch, "log")
        command = [sys.executable, str(Path(__file__).resolve()), "--child", str(at), runtime, "--out", str(out)]
        command += ["--bundle", str(folder), "--runs", str(options.runs)] + ["--tensors"] * options.tensors
        with log.open("wb") as stream:
            env = {**os.environ, "TMPDIR": scratch}  # onnxruntime leaves a file where temporary ones go
            # its standard input ends with this process, and it with that
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream, stderr=stream, env=env)
            if watch is not None:
                watch.running, watch.scratch = child, scratch
            try:
                code: int | str = child.wait(options.seconds)
            except subprocess.TimeoutExpired:
                code = f"no answer within {options.seconds:g} s"
            finally:
                child.kill()
                child.wait()
        if code == 0:
            return json.loads(out.read_text())  # type: ignore[no-any-return]
        words = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if isinstance(code, int):
            code = f"ended by signal {-code}" if code < 0 else f"ended with {code}"
        return {"error": ": ".join([code, *words[-1:]])[:500]}


def write_whole(path: Path, text: str) -> None:
    """Write a file, or leave none. Raises BundleError where there is no room."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror}", CANNOT_WRITE) from error
    finally:
        unfinished.unlink(missing_ok=True)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run this bundle with the runtimes of this device.")
    parser.add_argument("--runtime", action="append", choices=list(RUNTIMES), help="only this one; may be repeated")
    parser.add_argument("--out", default=None, help="[results.json beside this file]")
    parser.add_argument("--runs", type=int, default=50, help="inferences to time [50]")
    parser.add_argument("--seconds", type=float, default=600.0, help="longest that one file may take in one runtime")
    parser.add_argument("--tensors", action="store_true", help="also record what is computed on the way")
    parser.add_argument("--nonce", default=None, help="what the host knows this run by")
    parser.add_argument("--watch", action="store_true", help="end when standard input ends")
    parser.add_argument("--bundle", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bundle; the exit code."""
    options = parse_arguments(arguments)
    folder = Path(options.bundle or Path(__file__).resolve().parent)
    if options.child:
        Watch()
        artifact = json.loads((folder / "manifest.json").read_text())["artifacts"][int(options.child[0])]
        found = run_artifact(artifact, folder, options.child[1], runs=options.runs, tensors=options.tensors)
        Path(options.out).write_text(json.dumps(found))
        return 0
    watch = Watch() if options.watch else None
    try:
        manifest, bundle = read_manifest(folder)
        head = {"schema": SCHEMA, "bundle": bundle, "nonce": options.nonce or secrets.token_hex(16)}
        options.out = out = Path(options.out or folder / "results.json").resolve()
        write_whole(out, "")  # better now than after minutes
        out.unlink()
        results = {**head, "device": device_facts(), "runs": run_all(folder, manifest, options, watch)}
        results["digest"] = digest_of(results)
        write_whole(out, json.dumps(results, allow_nan=False) + "\n")
    except (BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "code", CANNOT_WRITE)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
