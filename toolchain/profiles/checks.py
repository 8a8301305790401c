"""What of a model a device cannot take: memory, number formats, shapes, and ops by dtype and attribute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from toolchain.errors import BudgetError, UnsupportedError, raise_collected
from toolchain.graph import Finding, Graph, Node
from toolchain.graph.cost import activations_at_peak
from toolchain.profiles.profile import DeviceProfile
from toolchain.profiles.tables import Limit
from toolchain.quantization import NumberFormat, find_float_nodes

NAMED_TENSORS = 5
"""How many of the largest tensors an error names."""


def check_ram(graph: Graph, profile: DeviceProfile, device: str) -> None:
    """Raises BudgetError, naming the largest, where the int8 activations alive at once, and nothing else, are more than
    the device's RAM."""
    alive, offered = activations_at_peak(graph, 1), profile.memory.ram_kib
    needed = sum(alive.values())
    if offered is not None and needed > offered * 1024:
        raise BudgetError(
            f"the model needs {needed:,} bytes of activations at once, {device} has {offered * 1024:,} bytes of RAM; "
            f"{largest_tensors(alive)}",
            hint="use a smaller input or fewer channels in the first layers",
        )


def largest_tensors(sizes: Mapping[str, int]) -> str:
    """The largest by name, in words: `the largest are a (1,024 bytes), ... and 3 more`."""
    ranked = sorted(sizes.items(), key=lambda pair: -pair[1])
    named = ", ".join(f"{name} ({size:,} bytes)" for name, size in ranked[:NAMED_TENSORS])
    rest = len(ranked) - NAMED_TENSORS
    return f"the largest are {named}{f' and {rest} more' if rest > 0 else ''}"


def check_numbers(wanted: NumberFormat, profile: DeviceProfile, device: str) -> None:
    """Raises UnsupportedError where the device has no kernels for the number format."""
    known = profile.quantization.formats
    if wanted not in known:
        raise UnsupportedError(
            f"{device} has no kernels for {wanted}",
            hint=f"numbers = {' or '.join(known)} in the quantize stage, or choose another target",
        )


def check_shapes(dynamic_batch: bool, profile: DeviceProfile, device: str) -> None:
    """Raises UnsupportedError where files are to take any batch and the device takes fixed shapes only."""
    if dynamic_batch and profile.execution.static_shapes:
        raise UnsupportedError(
            f"{device} cannot take a dynamic batch: every shape must be known when its file is compiled",
            hint="leave out dynamic_batch, or choose another target",
        )


def check_flash(
    file: str, size: int, profile: DeviceProfile, device: str, weights: Mapping[str, int] | None = None
) -> None:
    """Raises BudgetError, naming the largest of `weights` (bytes by name), where a file is larger than the device's
    flash."""
    offered = profile.memory.flash_kib
    if offered is not None and size > offered * 1024:
        raise BudgetError(
            f"{file} has {size:,} bytes, {device} has {offered * 1024:,} bytes of flash"
            f"{f'; {largest_tensors(weights)}' if weights else ''}",
            hint="prune the model, or choose a smaller one",
        )


def check_ops(graph: Graph, profile: DeviceProfile, device: str, known: Iterable[Finding] = ()) -> None:
    """Raises UnsupportedError that lists everything that `device_findings` says keeps the folded `graph` off the
    device, and what else is `known` to."""
    found = dict.fromkeys((*device_findings(graph, profile), *known))
    findings = [str(finding) for finding in found if finding.blocks]
    title = f"{device} cannot run {len(findings)} op(s) of the model:"
    raise_collected(UnsupportedError, title, findings, hint="change these ops in the model, or choose another target")


def device_findings(graph: Graph, profile: DeviceProfile) -> tuple[Finding, ...]:
    """Every op x dtype x attribute of the folded `graph` that the device lacks, and every op that it computes in
    float."""
    float_nodes = find_float_nodes(graph)
    found = (_node_findings(graph, node, profile, float_nodes.get(node.output)) for node in graph.nodes)
    return tuple(finding for findings in found for finding in findings)


def _node_findings(graph: Graph, node: Node, profile: DeviceProfile, why_float: str | None) -> Iterator[Finding]:
    execution = profile.execution
    dtype, instead = graph.types[node.output].dtype.value, execution.instead.get(node.op, "")
    label = f"{node.op} {node.name}"
    if execution.ops is not None and node.op not in execution.ops:
        yield Finding(label, "the device has no such op", node.source, dtype, instead)
        return
    if why_float is not None:
        why = f"computes in float inside an int8 file: {why_float}"
        yield Finding(label, why, node.source, dtype, instead, blocks=not execution.float_ops)
    told: set[str] = set()  # the first of several limits that an attribute breaks
    for limit in execution.limits:
        if limit.op in (None, node.op) and limit.attribute not in told and not _is_excused(graph, node, limit):
            refused = [value for value in _values(graph, node, limit.attribute) if limit.refuses(value)]
            if refused:
                told.add(limit.attribute)
                why = f"{limit.attribute} is {refused[0]}, the device takes {limit}"
                yield Finding(label, why, node.source, dtype, limit.instead)


def _is_excused(graph: Graph, node: Node, limit: Limit) -> bool:
    given = {name: _values(graph, node, name) for name in limit.unless}
    return any(found and all(value in limit.unless[name] for value in found) for name, found in given.items())


def _values(graph: Graph, node: Node, attribute: str) -> tuple[Any, ...]:
    read = [graph.types[name].shape for name in node.inputs if not graph.is_constant(name)]
    shapes = [*read, graph.types[node.output].shape]
    if attribute == "rank":
        return tuple(len(shape) for shape in shapes)
    if attribute == "batch":
        return tuple(shape[0] for shape in shapes if shape)
    if attribute == "channels":
        return tuple(shape[1] for shape in shapes if len(shape) > 1)
    if attribute == "kernel":
        return graph.types[node.inputs[1]].shape[2:]
    if attribute == "upscale":
        return _upscale(shapes[0][2:], shapes[-1][2:], node)
    value = node.attributes.get(attribute)
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _upscale(before: Sequence[int], after: Sequence[int], node: Node) -> tuple[float, ...]:
    """How much larger a resize makes an image; nothing of one pixel, which is repeated whatever the size."""
    if set(before) == {1}:
        return ()
    less = int(bool(node["align_corners"]))
    pairs = zip(before, after, strict=True)
    return tuple((new - less) / (old - less) if old > less else float(new) for old, new in pairs)
