"""How near the files of EfficientNet-Lite0 are to it, ours and the peers', on pictures that calibrated neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from bars import Figures, Findings
from runtimes import load
from workshop import PEERS, Candidate, Workshop, candidates, photos

from toolchain.fidelity import Comparison
from toolchain.zoo.resolve import load_model

MORE_DB = 1.5
PICTURES, QUICK_PICTURES = 300, 100


def measure_section(shop: Workshop, quick: bool) -> Findings:
    count = QUICK_PICTURES if quick else PICTURES
    found = Findings("quality", f"the files of EfficientNet-Lite0 on {count} crops of photographs kept apart")
    files = candidates(shop)
    shop.say(f"judging {len(files)} files on {count} crops ...")
    compared = _compare(files, count)
    rows = tuple(
        (c.label, c.runtime, f"{r.sqnr_db:.2f}", f"{r.same_class or 0:.1%}", f"{c.bytes / 1e6:.2f}")
        for c, r in compared.items()
    )
    found.figures.append(Figures("logits", ("whose", "runtime", "SQNR dB", "same class as float", "MB"), rows))
    found.facts["files"] = [
        {"whose": c.label, "runtime": c.runtime, "bytes": c.bytes, "sqnr_db": r.sqnr_db, "same_class": r.same_class}
        for c, r in compared.items()
    ]
    _judge_sqnr(found, compared)
    _judge_size(found, files)
    return found


def _compare(files: Sequence[Candidate], count: int) -> dict[Candidate, Comparison]:
    """Each file against the torch module, picture by picture."""
    import torch

    module = load_model("efficientnet_lite0").module
    loaded = {candidate: load(candidate.path) for candidate in files}
    compared = {candidate: Comparison() for candidate in files}
    for batch in photos(None, count).judging():
        with torch.inference_mode():
            targets = module(torch.from_numpy(batch.inputs[0])).numpy()
        for candidate, file in loaded.items():
            logits = [file.logits(image[None]) for image in batch.inputs[0]]
            compared[candidate].add([np.concatenate(logits)], [targets])
    return compared


def _judge_sqnr(found: Findings, compared: Mapping[Candidate, Comparison]) -> None:
    ours = min(r.sqnr_db for c, r in compared.items() if c.peer is None)
    peers = {c.peer: r.sqnr_db for c, r in compared.items() if c.peer is not None}
    what = "SQNR, our worse file over the best peer as shipped, dB"
    if not peers:
        found.told(what, f"ours has {ours:.2f}, no peers", f">= {MORE_DB:+.2f}")
        return
    shipped = max(db for name, db in peers.items() if PEERS[name].shipped)
    found.at_least(what, ours - shipped, MORE_DB, "{:+.2f}")
    for name, db in peers.items():
        if not PEERS[name].shipped:
            found.told(f"  over {PEERS[name].label}", f"{ours - db:+.2f}")


def _judge_size(found: Findings, files: Sequence[Candidate]) -> None:
    sizes = {c.peer: c.bytes / 1e6 for c in files if c.path.suffix == ".tflite"}
    what = "TFLite file and the peer's as shipped, MB"
    if "litert" in sizes:
        found.at_most(what, sizes[None], sizes["litert"], "{:.3f}")
    else:
        found.told(what, f"{sizes[None]:.3f}, no peers")
