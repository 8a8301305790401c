"""The summary at the end: fits, says the verdict, survives any terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from deployments import GATES, make_small_facts
from rich.console import Console

from toolchain.report import print_summary
from toolchain.targets import Gates


def shown(facts: dict[str, Any], width: int = 80, **options: Any) -> str:
    paths = options.pop("paths", ())
    encoding = options.pop("encoding", "utf-8")
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    print_summary(facts, Console(file=stream, width=width, **options), paths)
    stream.flush()
    return raw.getvalue().decode(encoding)


def cells(text: str, label: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.strip().startswith(label)]
    return line.strip().removeprefix(label).split("  ")


def row(text: str, label: str) -> list[str]:
    return [cell.strip() for cell in cells(text, label) if cell.strip()]


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits_and_every_measure_has_its_row(facts: dict[str, Any], width: int) -> None:
    text = shown(facts, width)
    assert max(map(len, text.splitlines())) <= width
    assert row(text, "model.onnx  ") == ["3.91 KiB", "1000 B", "4.00x smaller"]
    assert row(text, "accuracy (top-1)") == ["93.5 %", "93 %", "-0.50 points"]
    assert row(text, "same class as float") == ["-", "98 %"]
    assert row(text, "SQNR of the outputs") == ["-", "30.2 dB"]
    assert row(text, "latency, onnxruntime") == ["0.5 ms", "0.25 ms", "2.00x faster"]
    assert row(text, "latency, litert-xnnpack") == ["0.3 ms", "0.6 ms", "2.00x slower"]
    assert row(text, "multiply-adds") == ["7.19 k", "7.19 k", "the same"]
    assert row(text, "peak activation memory") == ["1.75 KiB", "448 B", "4.00x smaller"]
    assert "litert-reference" not in text


def test_verdict_stages_and_reasons() -> None:
    text = shown(make_small_facts())
    assert "✓ 6 gates held on 100 samples kept apart from calibration" in text
    assert "export 0.25 s" in text
    assert "prune costs accuracy" in text
    assert "export (resumed)" in shown(make_small_facts(resumed=True))


def test_missed_gates_are_listed() -> None:
    facts = make_small_facts(gates=Gates(**{**GATES.model_dump(), "accuracy_drop": 0.1}))
    text = shown(facts, 200)
    assert "2 gates missed" in text
    for line in facts["missed"]:
        assert f"✗ {line}" in text


def test_a_path_is_never_broken(facts: dict[str, Any]) -> None:
    path = Path("build") / ("long" * 30) / "model.onnx"
    assert f"  {path}\n" in shown(facts, paths=[path])


def test_without_colour_there_are_no_control_characters(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shown(facts)
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown(facts, force_terminal=True)


def test_no_color_is_honoured(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = shown(facts, force_terminal=True, color_system="standard")
    assert "\x1b[32m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in shown(facts, force_terminal=True, color_system="standard")


def test_an_ascii_terminal_gets_ascii() -> None:
    text = shown(make_small_facts(name="modèle"), encoding="ascii")
    assert text.isascii()
    assert "mod?le" in text
    assert "ok 6 gates held" in text


def test_names_are_not_markup() -> None:
    assert "[bold red]x[/] for arm64" in shown(make_small_facts(name="[bold red]x[/]"))


def test_what_packs_well_has_a_line():
    from toolchain.report.headline import measures

    facts = make_small_facts()
    rows = [{"name": "model.tflite", "bytes": 1000, "float_bytes": 4000, "packed_bytes": 500}]
    shown = {row.label: row for row in measures({**facts, "prices": {"files": rows}})}
    assert shown["model.tflite, packed"].change == "8.00x smaller"
    rows[0]["packed_bytes"] = 900
    assert "model.tflite, packed" not in {row.label for row in measures({**facts, "prices": {"files": rows}})}
