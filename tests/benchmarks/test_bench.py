"""The benchmarks start, and report a section without the peers; their figures are `make bench`'s."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "benchmarks" / "bench.py"


def test_a_section_is_reported_without_peers(tmp_path):
    nowhere = tmp_path / "no-python"
    command = [sys.executable, BENCH, "--only", "classic", "--peers", nowhere, "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"no {nowhere}: ours are measured alone; `make bench` installs the peers" in done.stdout
    (section,) = json.loads((tmp_path / "bench.json").read_text())["sections"]
    assert section["bars"] and all(bar["met"] for bar in section["bars"])


def test_an_unknown_section_is_refused(tmp_path):
    done = subprocess.run([sys.executable, BENCH, "--only", "speed"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no section is called 'speed'" in done.stderr


@pytest.mark.parametrize("bench", ["bench", "quantize", "compress"])
def test_every_section_can_be_imported(bench):
    code = f"import {bench} as b, importlib; [importlib.import_module(f'sections.{{name}}') for name in b.SECTIONS]"
    subprocess.run([sys.executable, "-c", code], cwd=BENCH.parent, check=True)


def test_every_hard_network_has_a_module_and_says_what_it_needs():
    code = "\n".join([
        "import importlib, pathlib, hard",
        "nowhere = pathlib.Path('nowhere')",
        "for name in hard.NETWORKS: assert callable(importlib.import_module(f'hard.{name}').load)",
        "try: hard.load_hard('gru', hard.Sources(None, nowhere, nowhere))",
        "except hard.MissingSource as error: assert '--speech' in str(error)",
        "else: raise AssertionError",
    ])  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=BENCH.parent, check=True)


@pytest.mark.parametrize(("scores", "rate"), [([3, 2, 1, 0], 0.0), ([0, 1, 2, 3], 1.0), ([1, 1, 1, 1], 0.5)])
def test_equal_error_rate(scores, rate):
    code = "\n".join([
        "import numpy as np",
        "from hard.verification import equal_error_rate",
        f"print(equal_error_rate(np.array({scores}), np.array([True, True, False, False])))",
    ])  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCH.parent, check=True, capture_output=True, text=True)
    assert float(done.stdout) == pytest.approx(rate)
