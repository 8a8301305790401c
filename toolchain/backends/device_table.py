"""What `toolchain devices` and `toolchain targets` print: targets, devices, what leads there, what is missing here."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass

import typer
from rich.console import Console
from rich.table import Table

from toolchain.backends import BACKENDS, serving
from toolchain.devices.ways import WAYS
from toolchain.knowledge import shipped_names
from toolchain.profiles import DeviceProfile, load_profile
from toolchain.targets import Target, load_target


@dataclass(frozen=True)
class TargetRow:
    """One target as the table shows it. Memory in KiB, None where it does not bind."""

    device: str
    kind: str
    description: str
    formats: tuple[str, ...]
    numbers: tuple[str, ...]
    ram_kib: int | None
    flash_kib: int | None
    ways: tuple[str, ...]
    backends: tuple[str, ...]


def print_devices(as_json: bool) -> None:
    """Targets with their devices, the ways to a device, the back ends, and what each misses here."""
    rows = {name: target_row(*load_target(name)) for name in shipped_names("targets")}
    tools = {
        kind: {name: {"description": tool.description, "missing": tool.missing()} for name, tool in table.items()}
        for kind, table in (("ways", WAYS), ("backends", BACKENDS))
    }
    if as_json:
        typer.echo(json.dumps({"targets": {name: asdict(row) for name, row in rows.items()}, **tools}, indent=2))
        return
    console = Console()
    console.print(
        _targets_table(rows, *({n for n, tool in table.items() if tool["missing"]} for table in tools.values()))
    )
    for title, kind in (("way", "ways"), ("back end", "backends")):
        console.print("", _tools_table(title, tools[kind]))
    if any(tool["missing"] for table in tools.values() for tool in table.values()):
        console.print("\nin brackets: what misses something here", style="dim")


def print_targets(as_json: bool) -> None:
    """Targets with their recipes, and devices."""
    found = {name: load_target(name)[0] for name in shipped_names("targets")}
    devices = {name: load_profile(name) for name in shipped_names("device_profiles")}
    if as_json:
        plain: dict[str, dict[str, Target | DeviceProfile]] = {"targets": {**found}, "devices": {**devices}}
        shown = {
            kind: {name: one.model_dump(mode="json") for name, one in all_.items()} for kind, all_ in plain.items()
        }
        typer.echo(json.dumps(shown, indent=2))
        return
    table = Table("target", "device", "files", "recipes", "what it is", box=None, pad_edge=False)
    for name, target in found.items():
        table.add_row(name, target.device, " ".join(target.formats), ", ".join(target.recipes), target.description)
    listed = Table("device", "kind", "what it is", box=None, pad_edge=False)
    for name, device in devices.items():
        listed.add_row(name, device.kind, device.description)
    Console().print(table, "", listed)


def target_row(target: Target, profile: DeviceProfile) -> TargetRow:
    """What the table shows of a target."""
    backends = dict.fromkeys(found.name for kind in target.formats for found in serving(profile, f"model.{kind}"))
    memory, numbers = profile.memory, profile.quantization.formats
    return TargetRow(
        target.device,
        profile.kind,
        target.description,
        target.formats,
        tuple(str(one) for one in numbers),
        memory.ram_kib,
        memory.flash_kib,
        target.ways,
        tuple(backends),
    )


def _targets_table(rows: dict[str, TargetRow], ways: Collection[str], backends: Collection[str]) -> Table:
    """`ways` and `backends` are those that miss something here."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("target", "kind", "RAM", "flash", "files", "ways", "back ends"):
        table.add_column(title, no_wrap=title not in ("files", "ways"))
    for name, row in rows.items():
        device = "" if row.device == name else f"\n  [dim]{row.device}[/]"
        fixed = (row.kind, _size(row.ram_kib), _size(row.flash_kib), " ".join(row.formats))
        table.add_row(f"{name}{device}", *fixed, _marked(row.ways, ways), _marked(row.backends, backends))
    return table


def _marked(names: Iterable[str], missing: Collection[str]) -> str:
    return " ".join(f"({name})" if name in missing else name for name in names) or "-"


def _tools_table(title: str, tools: dict[str, dict[str, str | None]]) -> Table:
    table = Table(title, "what it is", "here", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, tool in tools.items():
        table.add_row(name, tool["description"], "ready" if tool["missing"] is None else f"no: {tool['missing']}")
    return table


def _size(kib: int | None) -> str:
    if kib is None:
        return "-"
    for unit, size in (("GiB", 2**20), ("MiB", 2**10)):
        if kib >= size:
            return f"{kib / size:.4g} {unit}"
    return f"{kib} KiB"
