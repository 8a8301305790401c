"""The target's gates, each turned into a line where it is missed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from toolchain.targets import Gates
from toolchain.validation.results import RuntimeResult, Validation


def missed_gates(found: Validation, gates: Gates) -> Validation:
    """`found` with a line for each gate it misses."""
    lines = [*_outputs(found, gates), *_agreements(found, gates), *_ops(found, gates)]
    return replace(found, missed=tuple(lines))


def first_diverging(found: Validation, gates: Gates) -> str | None:
    """The first tensor, in evaluation order, whose op is further from its exact meaning than the gate allows."""
    for tensor in found.tensors:
        for runtime, steps in tensor.op_steps.items():
            if steps > gates.op_steps:
                return f"{tensor.name} ({tensor.op}, {tensor.source}) is off by {steps} steps in {runtime}"
    return None


def _outputs(found: Validation, gates: Gates) -> Iterator[str]:
    for result in found.runtimes:
        where = f"{result.file} in {result.runtime}"
        if result.max_error_steps is None:
            if result.relative_error > gates.float_error:
                yield f"{where}: error {result.relative_error:.2e} of the output's range, allowed {gates.float_error:.0e}"
            continue
        if gates.sqnr_db is not None and result.sqnr_db < gates.sqnr_db:
            yield f"{where}: SQNR {result.sqnr_db:.1f} dB, wanted {gates.sqnr_db:.1f}"
        if gates.cosine is not None and result.cosine < gates.cosine:
            yield f"{where}: cosine {result.cosine:.5f}, wanted {gates.cosine}"
        yield from _classes(found, result, gates, where)


def _classes(found: Validation, result: RuntimeResult, gates: Gates, where: str) -> Iterator[str]:
    # a handful of samples says nothing about a share
    enough = result.samples == found.samples
    if enough and gates.same_class is not None and result.same_class is not None and result.same_class < gates.same_class:
        yield f"{where}: same class as float on {result.same_class:.1%}, wanted {gates.same_class:.1%}"
    if enough and gates.accuracy_drop is not None and result.score is not None and found.reference_score is not None:
        drop = 100 * (found.reference_score - result.score)
        if drop > gates.accuracy_drop:
            yield f"{where}: {found.score_name} falls by {drop:.2f} points, allowed {gates.accuracy_drop}"


def _agreements(found: Validation, gates: Gates) -> Iterator[str]:
    for pair in found.agreements:
        where = f"{pair.first} and {pair.second}"
        if pair.share_within < gates.output_share:
            yield (
                f"{where}: {pair.share_within:.2%} of the outputs within {gates.output_steps} steps of each other, "
                f"wanted {gates.output_share:.0%}"
            )
        wanted = gates.runtime_same_class
        if wanted is not None and pair.same_class is not None and pair.same_class < wanted and pair.samples == found.samples:
            yield f"{where}: same class on {pair.same_class:.2%}, wanted {wanted:.1%}"


def _ops(found: Validation, gates: Gates) -> Iterator[str]:
    first = first_diverging(found, gates)
    if first is not None:
        yield f"first diverging tensor: {first}"
