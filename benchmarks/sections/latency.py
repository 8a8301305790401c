"""How fast the files of EfficientNet-Lite0 run, ours and the peers', on one thread of the same runtime."""

from __future__ import annotations

import statistics
from pathlib import Path

from bars import Figures, Findings
from runtimes import interleaved_ms, load, median_ratio
from workshop import FLOAT_ENDS, OURS, PEERS, RUNTIMES, Workshop, photos

MOST = 1.05
ROUNDS, QUICK_ROUNDS, RUNS = 21, 7, 20
RIVALS = {".onnx": ("ort", "ort-u8"), ".tflite": ("litert",)}


def measure_section(shop: Workshop, quick: bool) -> Findings:
    found = Findings("latency", "one picture through the files of EfficientNet-Lite0, one thread")
    for suffix, runtime in RUNTIMES.items():
        rivals = RIVALS[suffix] if shop.peer_python else ()
        paths = {OURS: shop.ours().files[suffix]}
        if suffix == ".onnx":  # the peers' have float in- and outputs
            paths[FLOAT_ENDS] = shop.ours(FLOAT_ENDS).files[suffix]
        paths |= {PEERS[name].label: shop.peer(name).files[suffix] for name in rivals}
        shop.say(f"latency in {runtime}, in turn ...")
        times = _times(paths, QUICK_ROUNDS if quick else ROUNDS)
        rows = tuple(
            (name, f"{statistics.median(ms):.2f}", f"{median_ratio(times[OURS], ms):.2f}") for name, ms in times.items()
        )
        found.figures.append(Figures(runtime, ("whose", "ms", "ours / it"), rows))
        found.facts[runtime] = times
        if not rivals:
            found.told(f"ours / peer in {runtime}", "no peers", f"<= {MOST:.2f}")
        for name in rivals:
            label = PEERS[name].label
            found.at_most(f"ours / {label} in {runtime}", median_ratio(times[OURS], times[label]), MOST)
    found.notes.append("medians of rounds that take the files in turn; a ratio is the median of the rounds' ratios")
    return found


def _times(paths: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    image = next(photos(None, 1).judging()).inputs[0]
    files = {name: load(path) for name, path in paths.items()}
    given = {name: file.given(image) for name, file in files.items()}
    calls = {name: (lambda name=name: files[name].invoke(given[name])) for name in paths}
    return interleaved_ms(calls, rounds, RUNS)
