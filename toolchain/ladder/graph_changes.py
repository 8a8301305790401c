"""Changes to the float graph that make it easier to round and leave what it computes: `CHANGES`, one a rung.

Each takes the settings and the samples, and gives the settings for the changed graph, activations measured anew, or
None where it finds nothing to do; and what it has to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from toolchain.compress.equalisation.absorb import absorb_high_biases
from toolchain.compress.equalisation.equalise import Ceilings, equalise
from toolchain.compress.equalisation.migrate import migrate
from toolchain.compress.equalisation.split import split_channels
from toolchain.compress.fisher import measure_sensitivity
from toolchain.engine.observe import observe
from toolchain.graph import Graph, Structure
from toolchain.ladder.settings import Settings, with_measured_ranges

Batches: TypeAlias = Callable[[], Iterable[Sequence[np.ndarray]]]
"""The samples' inputs, from the start at every call."""

GraphChange: TypeAlias = Callable[[Settings, Batches], tuple[Settings | None, Mapping[str, Any]]]

_FEW = 32
"""Samples that gradients and errors are measured on."""


def migrated(settings: Settings, batches: Batches) -> tuple[Settings | None, Mapping[str, Any]]:
    """Move the outliers of activations into the weights that read them (SmoothQuant)."""
    graph, plan = migrate(
        settings.graph,
        _channel_ranges(settings),
        structure=settings.structure,
        scheme=settings.scheme,
        samples=_few(batches),
    )
    notes = {"tensors": plan.moved}
    if not plan.moved:
        return None, notes
    return _measured(settings, graph, plan.structure(settings.structure), batches), notes


def equalised(settings: Settings, batches: Batches) -> tuple[Settings | None, Mapping[str, Any]]:
    """Bring channels near to each other across layers; a layer gets ceilings of its own where that pays."""
    means = {name: found.means for name, found in settings.statistics.items() if found.means is not None}
    graph, plan = equalise(
        settings.graph,
        _channel_ranges(settings),
        structure=settings.structure,
        scheme=settings.scheme,
        sensitivity=measure_sensitivity(
            settings.graph, _few(batches), channel_means=means if settings.correct_bias else None
        ),
        ceilings=Ceilings.MINIMUM,
    )
    notes = {"channels": plan.moved, "ceilings": list(plan.ceilings)}
    if not plan.moved:
        return None, notes
    return _measured(settings, graph, plan.structure(settings.structure), batches), notes


def absorbed(settings: Settings, batches: Batches) -> tuple[Settings | None, Mapping[str, Any]]:
    """Move what is always positive in an activation into the bias of the layer that reads it."""
    graph, plan = absorb_high_biases(settings.graph, _channel_ranges(settings), structure=settings.structure)
    notes = {"tensors": len(plan.tensors)}
    return (_measured(settings, graph, settings.structure, batches) if plan.tensors else None), notes


def split(settings: Settings, batches: Batches) -> tuple[Settings | None, Mapping[str, Any]]:
    """Halve and double the few channels that spoil the range of a tensor."""
    graph, plan = split_channels(
        settings.graph, _channel_ranges(settings), structure=settings.structure, scheme=settings.scheme
    )
    notes = {"channels": plan.added}
    if not plan.added:
        return None, notes
    return _measured(settings, graph, plan.structure(settings.structure), batches), notes


CHANGES: Mapping[str, GraphChange] = {
    "migration": migrated,
    "equalisation": equalised,
    "bias absorption": absorbed,
    "channel splitting": split,
}
"""By the name of the rung, in the order they are tried."""


def _measured(settings: Settings, graph: Graph, structure: Structure, batches: Batches) -> Settings:
    statistics = observe(graph, batches(), histograms=True)
    ranges = {name: found.minmax() for name, found in statistics.items()}
    changed = replace(settings, graph=graph, structure=structure, statistics=statistics, ranges=ranges)
    return with_measured_ranges(changed, batches())[0] if settings.has_measured_ranges else changed


def _channel_ranges(settings: Settings) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        name: (found.channel_min, found.channel_max)
        for name, found in settings.statistics.items()
        if found.channel_min is not None and found.channel_max is not None
    }


def _few(batches: Batches) -> Iterator[Sequence[np.ndarray]]:
    left = _FEW
    for batch in batches():
        yield tuple(array[:left] for array in batch)
        left -= len(batch[0])
        if left <= 0:
            return
