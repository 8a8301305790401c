"""The commands `toolchain validate` and `toolchain devices`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from toolchain.errors import DisagreementError, OptionError

if TYPE_CHECKING:
    from toolchain.devices.judge import Verdict

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the facts as JSON on standard output, and nothing else there.")
]


def validate(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder that deploy wrote.")],
    results: Annotated[Path | None, typer.Argument(help="results.json of the device; left out: run it now.")] = None,
    way: Annotated[str, typer.Option("--way", "-w", help="How to reach the device: see `toolchain devices`.")] = "here",
    host: Annotated[str | None, typer.Option(help="[user@]board[:port], for ssh.")] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="Only this runtime; may be repeated.")] = None,
    python: Annotated[str | None, typer.Option(help="The interpreter there [python3, or a fresh venv here].")] = None,
    ssh: Annotated[str, typer.Option(help="Further options of ssh and scp, as one text.")] = "",
    seconds: Annotated[float, typer.Option(help="Longest that the bundle may run.", min=1)] = 1800.0,
    as_json: AsJson = False,
) -> None:
    """Judge what a device gives of a bundle: run it there, or take the results.json it wrote."""
    from toolchain.devices.judge import raise_failed
    from toolchain.devices.reading import read_bundle
    from toolchain.devices.session import judge_file, validate_on
    from toolchain.devices.ways import WAYS, Limits, Options

    if results is not None:
        found = judge_file(bundle, results)
    else:
        if way not in WAYS:
            raise OptionError(f"there is no way {way!r} to a device", hint=f"choose {' or '.join(WAYS)}")
        limits = Limits(run=seconds)
        options = Options(host=host, python=python, ssh=tuple(shlex.split(ssh)), limits=limits)
        err = Console(stderr=True)
        found = validate_on(
            read_bundle(bundle),
            WAYS[way],
            options,
            runtimes=tuple(runtime or ()),
            tell=lambda text: err.print(text, style="dim", highlight=False),
        )
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2, allow_nan=False))
        if not found.passed:
            raise typer.Exit(DisagreementError.exit_code)
        return
    print_verdict(found, Console())
    raise_failed(found)


def devices(as_json: AsJson = False) -> None:
    """List the ways to a device, and what each misses here."""
    from rich.table import Table

    from toolchain.devices.ways import WAYS

    if as_json:
        plain = {name: {"description": kind.description, "missing": kind.missing()} for name, kind in WAYS.items()}
        typer.echo(json.dumps(plain, indent=2))
        return
    table = Table("way", "what it is", "ready", box=None, pad_edge=False)
    for name, kind in WAYS.items():
        missing = kind.missing()
        table.add_row(name, kind.description, "yes" if missing is None else f"needs {missing}")
    Console().print(table)


def print_verdict(verdict: Verdict, console: Console) -> None:
    """One line a file and runtime."""
    from rich.markup import escape
    from rich.table import Table

    columns = ("file", "runtime", "outputs", "steps", "dB", "ms", "MB")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in verdict.judgements:
        found = "same bits" if row.identical else "close" if row.passed else "[red]differ[/]"
        table.add_row(
            row.file,
            escape(f"{row.runtime} {row.version}"),
            found if row.error is None else "[red]none[/]",
            _figure(row.max_steps, ".3g"),
            _figure(row.sqnr_db, ".1f"),
            _figure((row.latency_ms or {}).get("p50"), ".2f"),
            _figure(row.model_bytes and row.model_bytes / 2**20, ".1f"),
        )
    console.print(table)
    for file in verdict.unjudged:
        console.print(f"{file}: not judged, the device has no runtime that takes it", highlight=False)
    device = verdict.device
    where = device.get("model") or device.get("machine")
    text = f"{verdict.samples} samples on {where}, bundle {verdict.bundle[:12]}"
    console.print(text, style="dim", highlight=False, markup=False)


def _figure(value: float | None, digits: str) -> str:
    return "-" if value is None else f"{value:{digits}}"
