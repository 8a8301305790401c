"""Validation curves of stages that train."""

from __future__ import annotations

from typing import Any

from toolchain.report.curves import find_curves
from toolchain.report.html import render_html


def stage(**changed: Any) -> dict[str, Any]:
    points = [{"epoch": epoch, "sqnr_db": 20.0 + epoch, "accuracy": None, "score": None} for epoch in range(4)]
    facts = {"validation": points, "kept_epoch": 3, "validated_on": "20 samples held back", **changed}
    return {"name": "recover", "facts": facts}


def test_every_epoch_has_a_mark_with_its_figure_and_the_text_says_what_was_won() -> None:
    (curve,) = find_curves([stage(), {"name": "export", "facts": {}}])
    assert curve.text == "SQNR of the outputs on 20 samples held back, from 20.0 dB to 23.0 dB after epoch 3"
    assert [f"epoch {epoch}: {20 + epoch}.0 dB" in curve.picture for epoch in range(4)] == [True] * 4
    assert find_curves([stage()])[0].picture == curve.picture
    assert "#" not in curve.picture.replace("&#", "")


def test_right_classes_come_before_nearness() -> None:
    points = [{"epoch": epoch, "sqnr_db": None, "accuracy": 0.5 + epoch / 10, "score": None} for epoch in range(2)]
    (curve,) = find_curves([stage(validation=points, kept_epoch=1)])
    assert curve.text.startswith("right classes on 20 samples held back, from 50")
    points[0]["accuracy"] = None
    assert find_curves([stage(validation=points, kept_epoch=1)]) == []


def test_the_page_shows_it_in_place_of_the_numbers(facts: dict[str, Any]) -> None:
    page = render_html(facts)
    assert "Training of" not in page
    facts["stages"].append({**facts["stages"][-1], **stage()})
    page = render_html(facts)
    assert "Training of recover" in page
    assert "validation:" not in page
