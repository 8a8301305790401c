"""The figures this project promises, measured in one run: ours and the peers' side by side.

    make bench                            everything; sets up the peers' venv
    make bench ARGS="--only quality"      one section (may be repeated, or separated by commas)
    make bench ARGS="--quick"             fewer rounds and pictures

Prints a table per section and writes build/bench/bench.json. It reports and does not gate: it ends with 0.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bars import Findings, missed, show
from processes import ROOT, CommandFailed
from rich.console import Console

from toolchain.errors import ToolchainError

SECTIONS = ("efficientnet", "quality", "latency", "networks", "memory", "conversion", "large", "classic")
WIDTH = 110  # where there is no terminal to ask
PACKAGES = ("torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy")


def arguments_of() -> argparse.Namespace:
    parser = section_parser(__doc__, SECTIONS, "rounds and pictures")
    parser.set_defaults(peers=ROOT / ".venv-peers" / "bin" / "python")
    arguments = parser.parse_args()
    arguments.only = chosen(parser, arguments.only, SECTIONS)
    return arguments


def section_parser(description: str | None, sections: Sequence[str], quick: str) -> argparse.ArgumentParser:
    """What every benchmark of named sections takes; `quick` says what --quick saves."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="SECTION", help=f"of {', '.join(sections)}")
    parser.add_argument("--quick", action="store_true", help=f"fewer {quick}")
    parser.add_argument("--peers", type=Path, default=ROOT, help="where the peers' venvs are")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder [build/bench]")
    return parser


def chosen(parser: argparse.ArgumentParser, given: list[str] | None, sections: tuple[str, ...]) -> list[str]:
    """The sections that `--only` names, in their order; all where it is not given."""
    wanted = [name for names in given or sections for name in names.split(",")]
    if unknown := sorted(set(wanted) - set(sections)):
        parser.error(f"no section is called {unknown[0]!r}: choose of {', '.join(sections)}")
    return [name for name in sections if name in wanted]


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures by."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load": load,
        "versions": {name: version(name) for name in PACKAGES},
    }


def run_section(name: str, shop: Any, quick: bool) -> Findings:
    """The section's findings; a process, an import or a deployment that fails becomes a line in them."""
    try:
        found: Findings = importlib.import_module(f"sections.{name}").measure_section(shop, quick)
    except (CommandFailed, ImportError, ToolchainError) as error:
        found = Findings(name, "could not be measured")
        found.notes += str(error).splitlines()
    return found


def find_peers(python: Path, console: Console) -> Path | None:
    """The peers' interpreter, or None after a line that says what is missing."""
    from workshop import missing_packages

    if not python.is_file():
        missing = f"no {python}"
    elif packages := missing_packages(python):
        missing = f"{python} lacks {', '.join(packages)}"
    else:
        return python
    console.print(
        f"{missing}: ours are measured alone; `make bench` installs the peers", style="yellow", soft_wrap=True
    )
    return None


def main() -> None:
    arguments = arguments_of()
    from workshop import Workshop

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    found_on = machine()
    warn_of_load(found_on, console)
    peers = find_peers(arguments.peers.absolute(), console)
    folder = arguments.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    shop = Workshop(folder, peers, say=lambda text: console.print(f"  {text}", style="dim", highlight=False))
    report_sections(arguments.only, shop, arguments.quick, folder / "bench.json", found_on, console)


def warn_of_load(found_on: dict[str, Any], console: Console) -> None:
    line = "{cpus} CPUs, {machine}, Python {python}, load {load}".format(**found_on)
    console.print(line, highlight=False)
    if found_on["load"] and found_on["load"] > 1:
        console.print("other work is running: trust ratios, not seconds", style="yellow")


def report_sections(
    names: list[str], shop: Any, quick: bool, path: Path, found_on: dict[str, Any], console: Console
) -> None:
    """Measure and show one section after the other, keep them in the JSON file `path`, and say what was missed."""
    sections: list[Findings] = []
    for name in names:
        sections.append(run_section(name, shop, quick))
        show(sections[-1], console)
        plain = {"machine": found_on, "quick": quick, "sections": [found.to_plain() for found in sections]}
        path.write_text(json.dumps(plain, indent=2, default=str) + "\n")
    lines = missed(sections)
    console.rule("missed" if lines else "every bar that was measured is met", align="left")
    for line in lines:
        console.print(line, highlight=False)


if __name__ == "__main__":
    main()
