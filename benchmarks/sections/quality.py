"""How good the files of EfficientNet-Lite0 are, ours and the peers', on pictures that calibrated neither."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bars import Figures, Findings
from runtimes import File, interleaved_ms, load, median_ratio
from workshop import PEERS, Workshop, photos

from toolchain.validation.metrics import Comparison
from toolchain.zoo.resolve import load_model

MORE_DB, MOST_LATENCY = 1.5, 1.05
PICTURES, QUICK_PICTURES = 300, 100
LATENCY_ROUNDS, LATENCY_RUNS = 15, 20
_RUNTIMES = {".onnx": "onnxruntime", ".tflite": "LiteRT"}
_RIVALS = {".onnx": ("ort", "ort-u8"), ".tflite": ("litert",)}
_INTEGER_KERNELS = ", int8 kernels asked for"


@dataclass(frozen=True)
class Candidate:
    """A file by someone; `peer` is its name in PEERS, or None where it is ours."""

    label: str
    path: Path
    peer: str | None

    @property
    def runtime(self) -> str:
        return _RUNTIMES[self.path.suffix]

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size


def measure_section(shop: Workshop, quick: bool) -> Findings:
    count = QUICK_PICTURES if quick else PICTURES
    found = Findings("quality", f"the files of EfficientNet-Lite0 on {count} crops of photographs kept apart")
    candidates = [Candidate("ours", path, None) for path in shop.ours().files.values()]
    if shop.peer_python:
        for name, peer in PEERS.items():
            candidates += [Candidate(peer.label, path, name) for path in shop.peer(name).files.values()]
    shop.say(f"judging {len(candidates)} files on {count} crops ...")
    compared = _compare(candidates, count)
    found.figures.append(_quality_figures(compared))
    found.facts["quality"] = [
        {
            "who": c.label,
            "runtime": c.runtime,
            "sqnr_db": r.sqnr_db,
            "same_class": r.same_class,
            "bytes": c.bytes,
        }
        for c, r in compared.items()
    ]
    _judge_quality(found, compared)
    _judge_size(found, candidates)
    shop.say("latency, in turn ...")
    for suffix in _RUNTIMES:
        _judge_latency(found, [c for c in candidates if c.path.suffix == suffix], suffix, quick)
    return found


def _compare(candidates: list[Candidate], count: int) -> dict[Candidate, Comparison]:
    import torch

    module = load_model("efficientnet_lite0").module
    files = {candidate: load(candidate.path, integer_kernels=False) for candidate in candidates}
    compared = {candidate: Comparison() for candidate in candidates}
    for batch in photos(None, count).judging():
        with torch.inference_mode():
            targets = module(torch.from_numpy(batch.inputs[0])).numpy()  # type: ignore[operator]
        for candidate, file in files.items():
            logits = [file.logits(image[None]) for image in batch.inputs[0]]
            compared[candidate].add([np.concatenate(logits)], [targets])
    return compared


def _quality_figures(compared: Mapping[Candidate, Comparison]) -> Figures:
    rows = tuple(
        (c.label, c.runtime, f"{r.sqnr_db:.2f}", f"{r.same_class or 0:.1%}", f"{c.bytes / 1e6:.2f}")
        for c, r in compared.items()
    )
    return Figures("against the float network", ("who", "runtime", "SQNR dB", "same class", "MB"), rows)


def _judge_quality(found: Findings, compared: Mapping[Candidate, Comparison]) -> None:
    ours = min(r.sqnr_db for c, r in compared.items() if c.peer is None)
    what = "SQNR dB, ours (the worse file) over the best peer as shipped"
    peers = {c.peer: r.sqnr_db for c, r in compared.items() if c.peer is not None}
    if not peers:
        found.told(what, f"ours {ours:.2f} dB, no peers", f">= +{MORE_DB}")
        return
    shipped = max(db for name, db in peers.items() if PEERS[name].shipped)
    others = {name: db for name, db in peers.items() if not PEERS[name].shipped}
    found.at_least(what, ours - shipped, MORE_DB, "{:+.2f}")
    for name, db in others.items():
        found.told(f"the same over {PEERS[name].label}", f"{ours - db:+.2f}")


def _judge_size(found: Findings, candidates: list[Candidate]) -> None:
    sizes = {c.peer: c.bytes for c in candidates if c.path.suffix == ".tflite"}
    if "litert" in sizes:
        found.at_most(
            "TFLite file, MB against the peer's", sizes[None] / 1e6, sizes["litert"] / 1e6, "{:.3f}"
        )
    else:
        found.told("TFLite file, MB", f"{sizes[None] / 1e6:.3f}", "no peers")


def _judge_latency(found: Findings, candidates: list[Candidate], suffix: str, quick: bool) -> None:
    """Each file as its runtime takes it, and those of onnxruntime with int8 kernels asked for as well.

    Our file as it comes is compared with the faster of a rival's two.
    """
    rivals = [c for c in candidates if c.peer in _RIVALS[suffix]]
    ours = next(c for c in candidates if c.peer is None)
    files: dict[str, File] = {c.label: load(c.path) for c in (ours, *rivals)}
    if suffix == ".onnx":
        files |= {c.label + _INTEGER_KERNELS: load(c.path, integer_kernels=True) for c in (ours, *rivals)}
    image = next(iter(photos(None, 1).judging())).inputs[0][:1]
    given = {name: file.given(image) for name, file in files.items()}
    calls = {name: (lambda file=file, name=name: file.invoke(given[name])) for name, file in files.items()}
    times = interleaved_ms(calls, LATENCY_ROUNDS // 3 if quick else LATENCY_ROUNDS, LATENCY_RUNS)
    runtime = _RUNTIMES[suffix]
    rows = tuple(
        (name, f"{statistics.median(ms):.2f}", f"{median_ratio(times[ours.label], ms):.2f}")
        for name, ms in times.items()
    )
    found.figures.append(Figures(f"{runtime}, one thread", ("file", "ms", "ours / it"), rows))
    found.facts[f"latency {runtime}"] = times
    if not rivals:
        found.told(f"latency in {runtime}", f"{rows[0][1]} ms, no peers", f"<= {MOST_LATENCY:.2f} x the peer")
    for rival in rivals:
        ways = [name for name in files if name in (rival.label, rival.label + _INTEGER_KERNELS)]
        ratio = max(median_ratio(times[ours.label], times[name]) for name in ways)
        found.at_most(f"latency in {runtime}, ours / {rival.label}", ratio, MOST_LATENCY)
