"""Pruning, clustering and recovery measured on real bytes: what is saved, what it costs, what a device pays for.

    make bench-compress MNIST=mnist.npz SPEECH=spoken_digits.npz     everything; sets up the peers' venv
    make bench-compress ARGS="--only compress_lenet --quick"         one section, shorter training

Prints a table per section and writes build/bench/compress.json. It reports and does not gate: it ends with 0. A section
is a module sections/compress_*.py; those that train need `--mnist` or `--speech` and say so where it is not given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import WIDTH, chosen, machine, report_sections, section_parser, warn_of_load
from rich.console import Console

SECTIONS = tuple(sorted(path.stem for path in (Path(__file__).parent / "sections").glob("compress_*.py")))


def arguments_of() -> argparse.Namespace:
    parser = section_parser(__doc__, SECTIONS, "epochs, rounds and networks")
    parser.add_argument("--mnist", type=Path, help="npz of MNIST: train_images, train_labels, test_images, test_labels")
    parser.add_argument(
        "--speech", type=Path, help="npz of spoken digits: pcm16 (N, 8000), digit, speaker, index, length"
    )
    arguments = parser.parse_args()
    arguments.only = chosen(parser, arguments.only, SECTIONS)
    return arguments


def main() -> None:
    arguments = arguments_of()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    found_on = machine()
    warn_of_load(found_on, console)
    from compress_shop import CompressShop

    folder = arguments.out.absolute()
    (folder / "compress").mkdir(parents=True, exist_ok=True)
    shop = CompressShop(
        folder / "compress",
        arguments.mnist,
        arguments.speech,
        arguments.peers.absolute(),
        lambda text: console.print(f"  {text}", style="dim", highlight=False),
    )
    report_sections(arguments.only, shop, arguments.quick, folder / "compress.json", found_on, console)


if __name__ == "__main__":
    main()
