"""A diagnosis as facts, plain JSON values, and what of these a page shows.

Measures are those of `toolchain.diagnosis.causes.Measures`; `number` is a layer's place among the graph's activations,
as in the report's table of layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from toolchain.diagnosis.causes import WEIGHT_SPREAD, Cause
from toolchain.graph import Graph
from toolchain.report.figures import Bar, Strip
from toolchain.report.plain import finite, to_plain
from toolchain.report.units import format_share

if TYPE_CHECKING:
    from toolchain.diagnosis.layers import Diagnosis, LayerDiagnosis

Facts: TypeAlias = Mapping[str, Any]

ROWS = 12
"""Layers in a table; report.json holds all."""

_NO_CAUSE = "muted"


def diagnosis_facts(diagnosis: Diagnosis, graph: Graph) -> dict[str, Any]:
    """What report.json holds under `diagnosis`."""
    numbers = {name: number for number, name in enumerate(graph.activations)}
    layers = [_layer(layer, numbers[layer.tensor]) for layer in diagnosis.layers]
    return {
        "samples": diagnosis.samples,
        "sqnr_db": finite(diagnosis.sqnr_db),
        "explained": finite(diagnosis.explained),
        "activations": len(graph.activations),
        "causes": [{"cause": cause, "share": share} for cause, share in _shares(layers)],
        "layers": layers,
    }


def worst_layers(facts: Facts, count: int = ROWS) -> list[Facts]:
    """The layers with the largest shares, the largest first, but not those whose share would read 0 %."""
    ranked = sorted(facts["layers"], key=lambda layer: -float(layer["share"]))
    return [layer for layer in ranked[:count] if layer["share"] >= 0.0005]


def colour_of(cause: str | None) -> str:
    """Style class of a cause."""
    return _NO_CAUSE if cause is None else Cause(cause).name.lower()


def evidence(layer: Facts) -> str:
    """What was measured of a layer that names its cause, in words."""
    cause, found = layer["cause"], layer["measures"]
    if cause is None:
        return ""
    total = found["weight_error"] + found["result_error"]
    of_weights = found["weight_error"] >= found["result_error"]
    levels, what = ("weight_levels", "weights") if of_weights else ("result_levels", "values")
    texts = {
        Cause.CHANNELS: lambda: _apart(found, of_weights),
        Cause.OUTLIERS: lambda: f"99.9 % of its {what} lie in {format_share(round(found[levels], 3))} of the grid",
        Cause.BIAS: lambda: f"{_percent(found['bias_share'])} of its error is a shift of channel means",
        Cause.SATURATION: lambda: f"{_percent(found['clipped'])} of its values lie outside the grid",
        Cause.SHARED: lambda: f"a tensor of the same scale has {_times(found['shared_ratio'])} its range",
        Cause.WEIGHTS: lambda: f"{_percent(found['weight_error'] / total)} of its error comes from the weights",
        Cause.RESULT: lambda: f"{_percent(found['result_error'] / total)} of its error comes from its result",
    }
    return texts[Cause(cause)]()


def page_rows(facts: Facts) -> list[dict[str, Any]]:
    """The worst layers with what the page's table shows of each."""
    worst = worst_layers(facts)
    most = worst[0]["share"] if worst else 1.0
    return [
        {
            "layer": layer,
            "colour": colour_of(layer["cause"]),
            "evidence": evidence(layer),
            "strip": Strip((Bar(0, round(100 * layer["share"] / most, 2), colour_of(layer["cause"])),)),
        }
        for layer in worst
    ]


def _layer(layer: LayerDiagnosis, number: int) -> dict[str, Any]:
    source = layer.source
    return {
        "number": number,
        "name": layer.name,
        "tensor": layer.tensor,
        "op": layer.op,
        "source": {"module": source.module, "file": source.file, "line": source.line or None},
        **{key: finite(getattr(layer, key)) for key in ("sqnr_in_db", "sqnr_out_db", "added_db", "inherited_db")},
        "output_sqnr_db": finite(layer.sensitivity.sqnr_db),
        "share": finite(layer.share),
        "cause": to_plain(layer.cause),
        "also": to_plain(layer.also),
        "advice": list(layer.advice),
        "measures": {key: to_plain(value) for key, value in asdict(layer.measures).items()},
        "histogram": None if layer.histogram is None else to_plain(asdict(layer.histogram)),
    }


def _shares(layers: Sequence[Facts]) -> list[tuple[str | None, float]]:
    """Share of the outputs' error by cause, the largest first."""
    found: dict[str | None, float] = {}
    for layer in layers:
        found[layer["cause"]] = found.get(layer["cause"], 0.0) + layer["share"]
    return sorted(((cause, share) for cause, share in found.items() if share), key=lambda pair: -pair[1])


def _apart(found: Facts, of_weights: bool) -> str:
    if not of_weights:
        return f"the largest channel of its result is {_times(found['result_spread'])} the median one"
    output, given = (found[key] or 0.0 for key in ("weight_spread", "input_spread"))
    side, ratio = ("output", output) if output >= WEIGHT_SPREAD else ("input", given)
    return f"the largest {side} channel of its weights is {_times(ratio)} the median one"


def _percent(share: float) -> str:
    return format_share(round(share, 4 if share < 0.01 else 2))


def _times(ratio: float) -> str:
    return f"{ratio:.3g} times"
