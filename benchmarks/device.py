"""Deployed files on their devices, or on what stands for them: emulated CPUs, compilers and interpreters, beside peers.

    make bench-device                                     everything that is installed; sets up the peers' venvs
    make bench-device ARGS="--only emulated_arm64"        one section

Prints a table per section and writes build/bench/device.json. It reports and does not gate: it ends with 0. Peers'
files are kept in build/bench and made anew where anything that determines them changes.
"""

from __future__ import annotations

import argparse
import sys

from bench import WIDTH, chosen, machine, report_sections, section_parser, warn_of_load
from rich.console import Console

SECTIONS = ("emulated_arm64", "device_npu", "device_mcu", "device_htp")


def arguments_of() -> argparse.Namespace:
    parser = section_parser(__doc__, SECTIONS, "networks")
    arguments = parser.parse_args()
    arguments.only = chosen(parser, arguments.only, SECTIONS)
    return arguments


def main() -> None:
    arguments = arguments_of()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    found_on = machine()
    warn_of_load(found_on, console)
    from device_shop import DeviceShop
    from hard.peers import PeerBench

    folder = arguments.out.absolute()
    (folder / "device").mkdir(parents=True, exist_ok=True)
    say = lambda text: console.print(f"  {text}", style="dim", highlight=False)  # noqa: E731
    peers = PeerBench(arguments.peers.absolute(), folder / "peers", say=say)
    if not peers.has("litert"):
        console.print("no .venv-peers: measured without litert-torch", style="yellow")
    shop = DeviceShop(folder / "device", peers, say)
    report_sections(arguments.only, shop, arguments.quick, folder / "device.json", found_on, console)


if __name__ == "__main__":
    main()
