"""Hard networks: what float reaches, what the peers' files lose, what ours lose with `auto`, where and why not int8."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bars import Figures, Findings
from hard import NETWORKS, HardNetwork, MissingSource, load_hard
from hard.files import float_ops, predictor
from hard.peers import PeerFile
from ours_quantized import OurFiles
from quantize_shop import QuantizeShop

MOST_LOST, MOST_APART_DB = 1.0, 0.3
QUICK = ("ds_cnn", "residual", "voice", "detector")
TRANSFORMERS = ("sentence", "docstrings")


def measure_section(shop: QuantizeShop, quick: bool) -> Findings:
    found = Findings(
        "quantize_hard", "networks that static int8 does not take easily, on samples that calibrate nothing"
    )
    rows, reasons = [], []
    for name in QUICK if quick else NETWORKS:
        try:
            network = load_hard(name, shop.sources)
        except MissingSource as error:
            found.told(name, str(error), f"within {MOST_LOST} point")
            continue
        shop.say(f"{name} ...")
        score = network.score(network.predict_float)
        ours = _ours(found, shop, name, network, score)
        peers = _peers(found, shop, name, network, score)
        rows.append((NETWORKS[name], network.measure, f"{score:.2f}", *peers, *ours[:3]))
        reasons.append((name, *ours[3:]))
    losses = ("peers' static int8, best", "worst", "peers' dynamic, best", "ours onnx", "ours tflite", "rung")
    found.figures.append(Figures("points lost to float", ("network", "judged by", "float", *losses), tuple(rows)))
    where = ("network", "nodes in integers", "not int8", "why")
    found.figures.append(Figures("how ours were rounded", where, tuple(reasons)))
    found.notes.append("a peer that leaves a layer in float loses nothing by it: see `float ops` in the JSON file")
    return found


def _ours(found: Findings, shop: QuantizeShop, name: str, network: HardNetwork, score: float) -> tuple[str, ...]:
    """Points lost in both files, the rung, nodes in integers, what is not int8, and why; bars on the way."""
    try:
        made = shop.ours(name, network.module, network.samples, metric=network.metric)
    except Exception as error:  # whatever stops a deployment is this network's result
        found.at_most(f"{name}: points lost", float("inf"), MOST_LOST)
        found.notes.append(f"{name}: {type(error).__name__}: {error}")
        return ("failed", "failed", "-", "-", "-", str(error)[:60])
    lost = {}
    for suffix, path in made.files.items():
        lost[suffix] = score - network.score(predictor(path, shop.shapes(network)))
        found.at_most(f"{name}: points lost, {suffix}", lost[suffix], MOST_LOST)
    if (apart := furthest_apart_db(made)) is not None:
        found.at_most(f"{name}: simulation and files, dB apart on any rung that was kept", apart, MOST_APART_DB)
    found.facts.setdefault(name, {})["ours"] = {
        "score": score,
        "lost": lost,
        "ladder": made.ladder,
        "seconds": made.seconds,
        "bytes": {suffix: path.stat().st_size for suffix, path in made.files.items()},
        "float_ops": {suffix: float_ops(path) for suffix, path in made.files.items()},
    }
    integers, others, why = where_not_int8(made)
    return (*(f"{value:.2f}" for value in lost.values()), made.last_rung, integers, others, why)


def furthest_apart_db(made: OurFiles) -> float | None:
    """By how much a simulation that was believed and a file of it differ at most on the same samples."""
    judged = [rung["judged"] for rung in made.ladder if rung["kept"] and rung["judged"]]
    simulated = [found for found in judged if found["simulated_db"] is not None]
    return max(
        (abs(found["simulated_db"] - db) for found in simulated for db in found["same_samples_db"].values()),
        default=None,
    )


def where_not_int8(made: OurFiles) -> tuple[str, str, str]:
    """Nodes that compute in integers of all, what the others are, and what the ladder says of them."""
    quantized = made.model.quantized
    floats = [node for node in quantized.graph.nodes if node.name in quantized.float_nodes]
    count = len(quantized.graph.nodes)
    ops = Counter(node.op.value for node in floats)
    wide = Counter(str(params.dtype) for params in quantized.params.values() if params.axis is None)
    types = [f"{number} {kind}" for kind, number in wide.items() if kind not in ("int8", "int32")]
    told = [f"{number} {op}" for op, number in ops.most_common(4)]
    why = next((str(rung["notes"]) for rung in reversed(made.ladder) if rung["kept"] and rung["notes"]), "")
    return f"{count - len(floats)} of {count}", ", ".join([*told, *types]) or "-", why[:70] or "-"


def _peers(found: Findings, shop: QuantizeShop, name: str, network: HardNetwork, score: float) -> tuple[str, ...]:
    """Points lost by the best and the worst static file, and by the best dynamic one."""
    files = shop.peers.make(name, network.module, network.calibration, transformer=name in TRANSFORMERS)
    facts: dict[str, Any] = found.facts.setdefault(name, {}).setdefault("peers", {})
    lost: dict[bool, list[float]] = {True: [], False: []}
    for file in files:
        value, told = _peer_loss(file, shop, network, score)
        facts[file.label] = told
        if value is not None:
            lost[file.is_static].append(value)
    static, dynamic = lost[True], lost[False]
    best = f"{min(static):.2f}" if static else "-"
    return best, f"{max(static):.2f}" if static else "-", f"{min(dynamic):.2f}" if dynamic else "-"


def _peer_loss(
    file: PeerFile, shop: QuantizeShop, network: HardNetwork, score: float
) -> tuple[float | None, dict[str, Any]]:
    if file.path is None:
        return None, {"error": file.error}
    try:
        lost = score - network.score(predictor(file.path, shop.shapes(network)))
    except Exception as error:  # a file that its runtime refuses is the peer's result
        return None, {"error": f"{type(error).__name__}: {error}"[:300]}
    return lost, {"lost": lost, "float_ops": float_ops(file.path), "seconds": file.seconds}
