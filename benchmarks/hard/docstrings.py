"""A small BERT (Devlin et al., arXiv 1810.04805) that tells which part of Python a docstring comes from.

The text is real and everywhere: the docstrings of the standard library. Two modules are never split: a docstring that
judges comes from a file that trained nothing.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hard.network import Array, HardNetwork, Sources, share_right
from hard.training import seeded, train

PARTS = {
    "asynchronous": ("asyncio", "concurrent", "selectors", "threading", "multiprocessing", "queue"),
    "messages": ("email", "mailbox", "smtplib", "imaplib", "http", "urllib", "wsgiref", "xmlrpc"),
    "numbers": ("statistics", "fractions", "_pydecimal", "random", "datetime", "_pydatetime", "numbers", "calendar"),
    "files": ("tarfile", "zipfile", "shutil", "pathlib", "os", "tempfile", "gzip", "bz2", "lzma", "mailcap", "glob"),
    "code": ("ast", "inspect", "importlib", "dis", "doctest", "typing", "pkgutil", "tokenize", "runpy", "traceback"),
}
LENGTH, VOCABULARY, WIDTH, HEADS, DEPTH = 32, 1500, 64, 4, 2
MASKED = -10000.0
CALIBRATION_COUNT = 200


class Block(nn.Module):
    """(N, length, width) and what the mask adds (N, 1, 1, length) -> (N, length, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.attended = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def heads(projected: Tensor) -> Tensor:
            return projected.view(*projected.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)

        scores = heads(self.query(x)) @ heads(self.key(x)).transpose(2, 3) * (WIDTH // HEADS) ** -0.5 + mask
        context = (torch.softmax(scores, -1) @ heads(self.value(x))).transpose(1, 2).reshape(x.shape)
        x = self.first(self.attended(context) + x)
        return self.second(self.feed(x) + x)


class Docstrings(nn.Module):
    """Word numbers (N, length) int64, 0 where there is none -> scores (N, parts)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.drop = nn.Dropout(0.3)
        self.parts = nn.Linear(WIDTH, len(PARTS))

    def forward(self, words: Tensor) -> Tensor:
        there = (words > 0).to(torch.float32)
        x = self.drop(self.norm(self.words(words) + self.positions))
        for block in self.blocks:
            x = block(x, (1.0 - there[:, None, None, :]) * MASKED)
        weights = there.unsqueeze(-1)
        return self.parts(self.drop((x * weights).sum(1) / weights.sum(1)))


def load(sources: Sources) -> HardNetwork:
    words, parts, judges = encoded()
    training = np.flatnonzero(~judges)
    chosen = np.random.default_rng(0).permutation(training)[:CALIBRATION_COUNT]
    module = train(
        seeded(Docstrings), words[training], parts[training], cache=sources.cache, epochs=12, learning_rate=2e-3,
        augment=_with_unknown_words,
    )  # fmt: skip
    return HardNetwork(
        name="docstrings",
        module=module,
        calibration={"words": words[chosen]},
        calibration_labels=parts[chosen],
        judging={"words": words[judges]},
        labels=parts[judges],
        metric=share_right,
        measure="docstrings told, %",
    )


def _with_unknown_words(words: Tensor) -> Tensor:
    return torch.where((torch.rand(words.shape) < 0.15) & (words > 0), 1, words)


@cache
def encoded() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Words (N, length), part (N,), and which judge: all docstrings of every fourth file. 1 stands for rare words."""
    found = [(text, part, judge) for part, names in enumerate(PARTS.values()) for text, judge in _texts(names)]
    spoken = [re.findall(r"[a-z]+", text.lower()) for text, _, _ in found]
    counts = Counter(word for row, (_, _, judge) in zip(spoken, found, strict=True) if not judge for word in row)
    numbers = {word: index + 2 for index, (word, _) in enumerate(counts.most_common(VOCABULARY - 2))}
    words: Array = np.zeros((len(found), LENGTH), np.int64)
    for row, text in zip(words, spoken, strict=True):
        given = [numbers.get(word, 1) for word in text[:LENGTH]]
        row[: len(given)] = given
    return words, np.array([part for _, part, _ in found]), np.array([judge for _, _, judge in found])


def _texts(names: tuple[str, ...]) -> list[tuple[str, bool]]:
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for name in names for path in (*sorted((root / name).rglob("*.py")), root / f"{name}.py")]
    found = []
    for index, path in enumerate(path for path in files if path.is_file()):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                text = ast.get_docstring(node) or ""
                if len(text.split()) >= 8:
                    found.append((text, index % 4 == 3))
    return found
