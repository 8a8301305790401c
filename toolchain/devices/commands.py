"""The commands `toolchain validate` and `toolchain emulator`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from toolchain.errors import DisagreementError, OptionError

if TYPE_CHECKING:
    from toolchain.devices.judge import Verdict
    from toolchain.devices.reading import Bundle
    from toolchain.devices.ways import Options

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the facts as JSON on standard output, and nothing else there.")
]


def validate(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder that deploy wrote.")],
    results: Annotated[Path | None, typer.Argument(help="results.json of the device; left out: run it now.")] = None,
    way: Annotated[
        str | None, typer.Option("--way", "-w", help="See `toolchain devices` [the target's first that is ready].")
    ] = None,
    host: Annotated[str | None, typer.Option(help="[user@]board[:port] for ssh, a serial number for adb.")] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="Only this runtime; may be repeated.")] = None,
    python: Annotated[str | None, typer.Option(help="The interpreter there [python3, or a fresh venv here].")] = None,
    ssh: Annotated[str, typer.Option(help="Further options of ssh, as one text.")] = "",
    cpu: Annotated[str | None, typer.Option(help="What is emulated [the bundle's device, else cortex-a76].")] = None,
    seconds: Annotated[float, typer.Option(help="Longest that the bundle may run.", min=1)] = 1800.0,
    as_json: AsJson = False,
) -> None:
    """Judge what a device gives of a bundle: run it there, or take the results.json it wrote."""
    from toolchain.devices.bundled_device import bundled_device
    from toolchain.devices.judge import raise_failed
    from toolchain.devices.reading import read_bundle
    from toolchain.devices.session import judge_file
    from toolchain.devices.ways import Limits, Options

    read = read_bundle(bundle)
    if results is not None:
        found = judge_file(read, results)
    else:
        given = Options(host=host, python=python, ssh=_words(ssh), cpu=cpu, limits=Limits(run=seconds))
        found = _validated(read, way, given, tuple(runtime or ()))
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2, allow_nan=False))
        if not found.passed:
            raise typer.Exit(DisagreementError.exit_code)
        return
    print_verdict(found, Console(), bundled_device(read.provenance).note)
    raise_failed(found)


def _validated(bundle: Bundle, way: str | None, given: Options, runtimes: tuple[str, ...]) -> Verdict:
    from toolchain.devices.bundled_device import bundled_device, choose_way, runtimes_of
    from toolchain.devices.session import validate_on
    from toolchain.devices.ways.emulator import with_recorded_cpu
    from toolchain.devices.ways.here import host_requirements

    options = replace(given, tell=_telling(), requirements=host_requirements(runtimes_of(bundle)))
    kind = choose_way(way, options, bundled_device(bundle.provenance))
    options = with_recorded_cpu(options, bundle.provenance)
    return validate_on(bundle, kind, options, runtimes=runtimes, tell=options.tell)


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise OptionError(f"--ssh takes options as a shell does: {error}", hint="close the quotes") from error


def emulator(
    cpu: Annotated[str | None, typer.Option(help="Start Python on this CPU too, and say what it takes it for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set up the emulated 64-bit Arm device, or find it set up, and say what is there."""
    from toolchain.devices.emulator import CPUS, set_up
    from toolchain.devices.emulator.emulator import facts_of_cpu

    if cpu is not None and cpu not in CPUS:
        raise OptionError(f"no CPU {cpu!r} is emulated", hint=f"choose {' or '.join(CPUS)}")
    found = set_up(tell=_telling())
    facts = found.plain() | ({} if cpu is None else {"cpu": facts_of_cpu(found, cpu)})
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    rows = {
        "folder": facts["folder"],
        "qemu": facts["qemu"],
        "packages": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "instructions": f"not counted: {facts['uncounted']}" if facts["uncounted"] else "counted",
        "CPUs": ", ".join(facts["cpus"]),
    }
    if cpu is not None:
        rows |= {cpu: " ".join(facts["cpu"]["cpu"]["Features"]), "Python on it": str(found.python(cpu))}
    for name, value in rows.items():
        typer.echo(f"{name:<14}{value}")


def _telling() -> Callable[[str], None]:
    err = Console(stderr=True)
    return lambda text: err.print(text, style="dim", highlight=False, markup=False)


def print_verdict(verdict: Verdict, console: Console, note: str = "") -> None:
    """One line a file and runtime; `note` is what only the device itself runs."""
    from rich.markup import escape
    from rich.table import Table

    columns = ("file", "runtime", "outputs", "steps", "an op", "dB", "ms", "MB")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in verdict.judgements:
        found = "same bits" if row.identical else "close" if row.passed else "[red]differ[/]"
        table.add_row(
            row.file,
            escape(f"{row.runtime} {row.version}"),
            found if row.error is None else "too old" if row.is_too_old else "[red]none[/]",
            _figure(row.max_steps, ".3g"),
            _figure(None if row.op_steps is None else row.op_steps.max_steps, ".3g"),
            _figure(row.sqnr_db, ".1f"),
            _figure((row.latency_ms or {}).get("p50"), ".2f"),
            _figure(row.model_bytes and row.model_bytes / 2**20, ".1f"),
        )
    console.print(table)
    for file in verdict.unjudged:
        console.print(f"{file}: not judged, the device has no runtime that takes it", highlight=False)
    if note:
        console.print(note, highlight=False, markup=False)
    device = verdict.device
    where = device.get("model") or device.get("machine")
    text = f"{verdict.samples} samples on {where}, bundle {verdict.bundle[:12]}"
    console.print(text, style="dim", highlight=False, markup=False)


def _figure(value: float | None, digits: str) -> str:
    return "-" if value is None else f"{value:{digits}}"
