"""Text and speech at the formats recommended for them: a small BERT, a sentence encoder, LSTM networks."""

from __future__ import annotations

from bars import Figures, Findings
from hard import NETWORKS, MissingSource, load_hard
from hard.files import predictor
from quantize_shop import QuantizeShop

MOST_LOST = 0.5
RECOMMENDED = {"docstrings": ("dynamic", "default"), "lstm": ("dynamic", "default"), "sentence": ("dynamic",)}
"""Recipes of arm64: dynamic-range for what is bound by its weights, and what `auto` finds."""

BARRED = ("docstrings", "lstm")


def measure_section(shop: QuantizeShop, quick: bool) -> Findings:
    found = Findings("quantize_text_speech", "text and speech at recommended formats, arm64")
    rows = []
    for name, recipes in RECOMMENDED.items():
        try:
            network = load_hard(name, shop.sources)
        except MissingSource as error:
            found.told(name, str(error), f"<= {MOST_LOST}")
            continue
        score = network.score(network.predict_float)
        for recipe in recipes:
            shop.say(f"{name}, {recipe} ...")
            made = shop.ours(name, network.module, network.samples, recipe=recipe, metric=network.metric)
            lost = {s: score - network.score(predictor(p, shop.shapes(network))) for s, p in made.files.items()}
            size = max(path.stat().st_size for path in made.files.values())
            rows.append(
                (NETWORKS[name], recipe, f"{score:.2f}", *(f"{v:.2f}" for v in lost.values()), f"{size / 1e6:.2f}")
            )
            if name in BARRED:
                found.at_most(f"{name}, {recipe}: points lost", max(lost.values()), MOST_LOST)
            else:
                found.told(f"{name}, {recipe}: points lost", f"{max(lost.values()):.2f}")
            found.facts[f"{name}, {recipe}"] = {"score": score, "lost": lost, "bytes": size}
    columns = ("network", "recipe", "float", "lost, onnx", "lost, tflite", "larger file, MB")
    found.figures.append(Figures("points", columns, tuple(rows)))
    return found
