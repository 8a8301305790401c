"""The benchmarks start, and report a section without the peers; their figures are `make bench`'s."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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


def test_every_section_can_be_imported():
    code = "import bench, importlib; [importlib.import_module(f'sections.{name}') for name in bench.SECTIONS]"
    subprocess.run([sys.executable, "-c", code], cwd=BENCH.parent, check=True)
