"""report.html: one file that needs no network and no script, made from the facts of report.json alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from toolchain.errors import OptionError
from toolchain.report import diagnosis, figures, units
from toolchain.report.backends import backend_tables, figure_text
from toolchain.report.facts import SCHEMA
from toolchain.report.headline import Facts, deployed, is_reference, measures
from toolchain.report.ladder import find_ladder

_GATES = {
    "op_steps": "one op against its exact integer meaning",
    "output_share": "outputs of two runtimes within {output_steps} steps",
    "runtime_same_class": "two runtimes pick the same class",
    "sqnr_db": "SQNR of the outputs",
    "cosine": "cosine with the float outputs",
    "same_class": "same class as float",
    "accuracy_drop": "fall in {score_name}",
    "float_error": "error of a float file, of the output's range",
}
_SAVINGS = {
    "int8": "int8 arithmetic",
    "structured": "fewer channels",
    "unstructured": "zeros among the weights",
    "codebook": "codebooks of weights",
}

_SHOWN_APART = ("ladder", "validation")
"""What a stage found that has a table or a picture of its own."""


def render_html(facts: Facts) -> str:
    """The whole page; the same facts give the same bytes. Raises OptionError for facts of another schema."""
    if facts.get("schema") != SCHEMA:
        raise OptionError(
            f"facts of schema {facts.get('schema')!r} cannot be rendered, only of {SCHEMA}",
            hint="deploy again, or render with the version that wrote them (see its versions.toolchain)",
        )
    layers = facts["layers"]
    return _template("report.html.j2").render(
        facts=facts,
        measures=measures(facts),
        files=deployed(facts["files"]),
        gates=[_gate(row, facts) for row in facts["gates"]],
        savings=[_saving(row) for row in facts["device"]["savings"]],
        price_savings=[_saving(row) for row in (facts.get("prices") or {}).get("savings", ())],
        charts=_charts(layers),
        curves=_curves(facts["stages"]),
        worst=figures.worst_layer(layers),
        rows=_rows(facts),
        ladder=find_ladder(facts),
        backends=list(backend_tables(facts)),
        **_diagnosis(facts.get("diagnosis")),
    )


def render_diagnosis(facts: Facts) -> str:
    """The page of a diagnosis alone; the same facts give the same bytes."""
    return _template("diagnosis.html.j2").render(facts=facts, **_diagnosis(facts["diagnosis"]))


def _diagnosis(found: Facts | None) -> dict[str, Any]:
    """What the template shows of a diagnosis; nothing where none was made, or nothing is quantized."""
    if not found or not found["layers"]:
        return {"diagnosis": None}
    from toolchain.report.charts import CAUSES
    from toolchain.report.diagnosis_charts import draw_diagnosis

    return {
        "diagnosis": found,
        "diagnosis_causes": [{**row, "colour": diagnosis.colour_of(row["cause"])} for row in found["causes"]],
        "diagnosis_charts": draw_diagnosis(found),
        "diagnosis_rows": diagnosis.page_rows(found),
        "cause_colours": CAUSES,
    }


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("toolchain.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = ("bytes", "count", "ms", "seconds", "share", "db", "real", "score", "amount")
    environment.filters |= {name: getattr(units, f"format_{name}") for name in formats}
    environment.filters |= {"change": units.format_change, "options": format_options}
    environment.filters |= {"place": format_place, "breakable": breakable}
    environment.tests["reference"] = is_reference
    return environment.get_template(name)


def _charts(layers: list[Mapping[str, Any]]) -> dict[str, Markup]:
    from toolchain.report.charts import draw_charts  # matplotlib takes a while to import

    return draw_charts(layers)


def _curves(stages: list[Mapping[str, Any]]) -> list[Any]:
    if not any(stage["facts"].get("validation") for stage in stages):
        return []
    from toolchain.report.curves import find_curves  # matplotlib takes a while to import

    return find_curves(stages)


def _rows(facts: Facts) -> list[dict[str, Any]]:
    """Each layer with its strips of the aligned table."""
    layers = facts["layers"]
    worst, scale, top = figures.worst_layer(layers), figures.range_scale(layers), figures.top_db(layers)
    most_macs, most_bytes = figures.largest(layers, "macs"), figures.largest(layers, "weight_bytes")
    allowed = next((gate["wanted"] for gate in facts["gates"] if gate["gate"] == "op_steps"), None)
    return [
        {
            "layer": layer,
            "is_worst": layer is worst,
            "leaves_range": figures.leaves_range(layer),
            "steps": max(layer["op_steps"].values(), default=None),
            "is_off": allowed is not None and max(layer["op_steps"].values(), default=0) > allowed,
            "error": figures.error_strip(layer, worst, top),
            "macs": figures.amount_strip(layer, "macs", most_macs, "main"),
            "weights": figures.amount_strip(layer, "weight_bytes", most_bytes, "second"),
            "range": figures.range_strip(layer, scale),
        }
        for layer in layers
    ]


def _saving(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "label": _SAVINGS.get(row["saving"], row["saving"])}


def _gate(row: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    label = _GATES.get(row["gate"]) or _figure_label(row["gate"], facts)
    label = label.format(output_steps=facts["output_steps"], score_name=facts["score_name"] or "accuracy")
    text = _gate_text(row["gate"])
    return {**row, "label": label, "wanted_text": text(row["wanted"]), "measured_text": text(row["measured"])}


def _figure_label(key: str, facts: Facts) -> str:
    """What a back end calls a figure that a gate bounds."""
    found = (figure for row in facts["backends"].get("measured", ()) for figure in row["figures"])
    return next((figure["label"] for figure in found if figure["key"] == key), key)


def _gate_text(gate: str) -> Any:
    """How a gate's numbers are written."""
    if gate in ("output_share", "runtime_same_class", "same_class"):
        return units.format_share
    if gate == "sqnr_db":
        return units.format_db
    if gate not in _GATES:
        return lambda value: figure_text({"key": gate, "value": value})
    unit = {"op_steps": "step", "accuracy_drop": "point"}.get(gate)
    return lambda value: units.format_amount(value, unit)


def format_options(options: Mapping[str, Any]) -> list[str]:
    """`name = value` a line; a digest is cut to what tells it from another."""
    lines = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            lines += [f"{name}.{line}" for line in format_options(value)]
        elif name not in _SHOWN_APART and value not in (None, []):
            lines.append(f"{name} = {_value_text(value)}")
    return lines


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and value and all(isinstance(item, float) for item in value):
        return ", ".join(f"{item:.4g}" for item in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) == 64 and not set(text) - set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= 200 else f"{text[:200]} ..."


def breakable(name: object) -> Markup:
    """A module path that breaks after its dots where it does not fit."""
    return escape(name).replace(".", Markup(".<wbr>"))


def format_place(source: Mapping[str, Any]) -> str:
    """`model.py:49`: file and line of the user's code, as traced."""
    if not source["file"]:
        return ""
    return f"{source['file']}:{source['line']}" if source["line"] else str(source["file"])
