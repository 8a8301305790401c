"""What one file costs a microcontroller, as tflite-micro itself runs it."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.backends.backend import Figure, Measured, Rows, Written
from toolchain.backends.tflite_micro.arena import Arena
from toolchain.backends.tflite_micro.interpreter import Ran, compress, run, smallest_arena
from toolchain.backends.tflite_micro.kernels import refusals
from toolchain.backends.tflite_micro.plan import Buffer, activations, alive_at_peak
from toolchain.backends.tflite_micro.reference import agreement, compare, output_scales
from toolchain.backends.tflite_micro.tables import choose_tables
from toolchain.backends.tflite_micro.tosa import run_tosa, tosa_python
from toolchain.errors import BudgetError, DisagreementError, ToolchainError, UnsupportedError, raise_collected
from toolchain.formats.tflite.parse import ParsedModel, parse
from toolchain.profiles import DeviceProfile
from toolchain.profiles.checks import check_flash, largest_tensors

_OPERATOR_BYTES, _LEAST_BYTES = 4096, 2**20


def measure_file(written: Written, profile: DeviceProfile, version: str) -> Measured:
    """Arena, flash and outputs of one file, and its variant with tables where that pays.

    Raises UnsupportedError where tflite-micro does not take the file, BudgetError where the device has too little
    memory, DisagreementError where it computes something else than LiteRT's reference kernels."""
    model = parse(written.content)
    refused = [str(found) for found in refusals(model)]
    raise_collected(UnsupportedError, f"{written.name} does not run in tflite-micro:", refused)
    weights = {model.tensors[index].name: value.nbytes for index, value in model.values.items()}
    check_flash(written.name, len(written.content), profile, profile.description, weights)
    buffers = activations(model)
    peak = alive_at_peak(buffers)
    ran = _run(written.content, written.inputs, model, buffers)
    assert ran.arena is not None
    smallest = _smallest(written, model, ran, ran.arena)
    check_arena(written.name, smallest, ran.arena, peak, profile)
    notes = [f"{written.name}: alive at once at the peak: {_listed(peak)}", _HOST]
    figures = [*_memory(written, ran.arena, smallest, peak), *_outputs(written, model, ran, ran.arena, notes)]
    files: dict[str, bytes] = {}
    if profile.tflite_micro is not None and profile.tflite_micro.weight_compression:
        figures += _with_tables(written, model, ran, ran.arena, profile, files, notes)
    return Measured(
        written.name, "tflite_micro", version, tuple(figures), files=files, notes=tuple(dict.fromkeys(notes))
    )


_HOST = "the arena is this host's: pointers in its tail take 8 bytes, 4 on the device, which needs a little less"


def check_arena(name: str, needed: int, arena: Arena, peak: Sequence[Buffer], profile: DeviceProfile) -> None:
    """Raises BudgetError where the smallest arena that works is larger than the device's RAM."""
    offered = profile.memory.ram_kib
    if offered is not None and needed > offered * 1024:
        raise BudgetError(
            f"{name} needs an arena of {needed:,} bytes ({arena.head:,} of activations, {arena.tail:,} of structures), "
            f"{profile.description} has {offered * 1024:,} bytes of RAM; {_listed(peak)}",
            hint="use a smaller input or fewer channels where the largest tensors are",
        )


def _listed(peak: Sequence[Buffer]) -> str:
    return largest_tensors({buffer.name: buffer.size_bytes for buffer in peak})


def _run(content: bytes, inputs: Rows, model: ParsedModel, buffers: Sequence[Buffer], more: int = 0) -> Ran:
    """In an arena that is large enough for anything the kernels may ask for beside the activations."""
    room = sum(buffer.aligned_bytes for buffer in buffers) + _OPERATOR_BYTES * len(model.operators) + _LEAST_BYTES
    weights = sum(value.nbytes for value in model.values.values())  # int4 weights are unpacked
    return run(content, inputs, room + weights + more, outputs=len(model.outputs))


def _smallest(written: Written, model: ParsedModel, ran: Ran, arena: Arena) -> int:
    """The smallest arena that works, in which the file was run and gave the same. Raises DisagreementError."""
    smallest = smallest_arena(written.content, arena.total)
    again = run(written.content, written.inputs[:1], smallest, outputs=len(model.outputs))
    if compare(again.outputs, ran.outputs[:1]).steps:
        raise DisagreementError(f"{written.name} gives other outputs in the smallest arena, {smallest:,} bytes")
    return smallest


def _memory(written: Written, arena: Arena, smallest: int, peak: Sequence[Buffer]) -> list[Figure]:
    alive = sum(buffer.size_bytes for buffer in peak)
    return [
        Figure("arena_bytes", arena.total, "arena in use"),
        Figure("smallest_arena_bytes", smallest, "smallest arena that works: loading takes some for a while"),
        Figure("arena_head_bytes", arena.head, "of it activations and scratch", detail=True),
        Figure("arena_tail_bytes", arena.tail, "of it structures that stay", detail=True),
        Figure("peak_activation_bytes", alive, "activations alive at once", detail=True),
        Figure("flash_bytes", len(written.content), "model in flash"),
    ]


def _outputs(written: Written, model: ParsedModel, ran: Ran, arena: Arena, notes: list[str]) -> list[Figure]:
    kept = sum(buffer.aligned_bytes for buffer in activations(model)) + 4 * arena.total + _LEAST_BYTES
    found = agreement(written.name, written.content, model, written.inputs, ran.outputs, kept)
    golden = compare(ran.outputs, written.expected, output_scales(model))
    figures = [
        Figure("golden_steps", golden.steps, "most steps from this host's outputs"),
        Figure("golden_share", golden.share, "share of outputs that differ from this host's"),
    ]
    figures += _independent(written, model, ran, notes)
    if isinstance(found, str):
        notes.append(f"{written.name}: not compared with LiteRT's reference kernels: {found}")
        return figures
    if found.steps:
        notes.append(
            f"{written.name}: {found.share:.1%} of the outputs differ from LiteRT's reference kernels, by at most "
            f"{found.steps:g} in their integers: FULLY_CONNECTED rounds once in one and twice in the other"
        )
    return [Figure("reference_steps", found.steps, "most steps from LiteRT's reference kernels"), *figures]


def _independent(written: Written, model: ParsedModel, ran: Ran, notes: list[str]) -> list[Figure]:
    """How far the TOSA reference model is, where there is one."""
    python = tosa_python()
    if python is None:
        return []
    shapes = tuple(model.tensors[index].shape for _, index in model.outputs)
    theirs = run_tosa(python, written.content, written.inputs, shapes)
    if isinstance(theirs, str):
        notes.append(f"{written.name}: {theirs}")
        return []
    steps = compare(ran.outputs, theirs, output_scales(model)).steps
    return [Figure("tosa_steps", steps, "most steps from the TOSA reference model")]


def _with_tables(
    written: Written,
    model: ParsedModel,
    ran: Ran,
    arena: Arena,
    profile: DeviceProfile,
    files: dict[str, bytes],
    notes: list[str],
) -> list[Figure]:
    tables = choose_tables(model)
    name = f"{written.name.removesuffix('.tflite')}_lut.tflite"
    if not tables:
        notes.append(f"{name} is not made: no weights as lookup tables save more flash than decoding them takes RAM")
        return []
    try:
        content = compress(written.content, [table.plain() for table in tables])
        decoded = sum(table.size_bytes for table in tables)
        again = _run(content, written.inputs, model, activations(model), more=decoded)
    except ToolchainError as error:
        notes.append(f"{name} is not made: {error.what}")
        return []
    assert again.arena is not None
    gained, lost = len(written.content) - len(content), again.arena.total - arena.total
    if compare(again.outputs, ran.outputs).steps:
        notes.append(f"{name} is not made: its tables decode to other weights, outputs differ")
    elif gained <= lost:
        notes.append(f"{name} is not made: it would save {gained:,} bytes of flash and take {lost:,} more of RAM")
    elif profile.memory.ram_kib is not None and again.arena.total > 1024 * profile.memory.ram_kib:
        notes.append(f"{name} is not made: its arena of {again.arena.total:,} bytes is more than the device's RAM")
    else:
        files[name] = content
        label = f"{len(tables)} weight{'s' * (len(tables) > 1)} as lookup tables"
        return [
            Figure("lut_flash_bytes", len(content), f"in flash with {label}"),
            Figure("lut_arena_bytes", again.arena.total, f"arena with {label}"),
        ]
    return []
