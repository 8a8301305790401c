"""Post-training quantization measured in one run, ours and the peers' side by side, on easy and on hard networks.

    make bench-quantize SPEECH=spoken_digits.npz MNIST=mnist.npz     everything; sets up the peers' venvs
    make bench-quantize ARGS="--only quantize_hard --quick"          one section, fewer samples and networks

Prints a table per section and writes build/bench/quantize.json. It reports and does not gate: it ends with 0. Trained
networks and the peers' files are kept in build/bench and made anew where anything that determines them changes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import WIDTH, chosen, machine, report_sections, section_parser, warn_of_load
from processes import ROOT
from rich.console import Console

SECTIONS = tuple(
    f"quantize_{name}" for name in ("efficientnet", "depthwise", "bits", "cost", "ladder", "text_speech", "hard")
)


def arguments_of() -> argparse.Namespace:
    parser = section_parser(__doc__, SECTIONS, "samples, rounds and networks")
    parser.add_argument(
        "--speech", type=Path, help="npz of spoken digits: pcm16 (N, 8000), digit, speaker, index, length"
    )
    parser.add_argument("--mnist", type=Path, help="npz of MNIST: test_images (N, 28, 28) uint8, test_labels")
    parser.add_argument("--weights", type=Path, default=ROOT / ".venv-weights", help="venv of packages with weights")
    arguments = parser.parse_args()
    arguments.only = chosen(parser, arguments.only, SECTIONS)
    return arguments


def main() -> None:
    arguments = arguments_of()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    found_on = machine()
    warn_of_load(found_on, console)
    from hard import Sources
    from hard.peers import TOOLS, PeerBench
    from quantize_shop import QuantizeShop

    folder = arguments.out.absolute()
    say = lambda text: console.print(f"  {text}", style="dim", highlight=False)  # noqa: E731
    sources = Sources(arguments.speech, arguments.weights.absolute(), folder / "networks")
    peers = PeerBench(arguments.peers.absolute(), folder / "peers", say=say)
    for tool in peers.missing():
        console.print(f"no {TOOLS[tool].venv}: measured without {TOOLS[tool].label}", style="yellow")
    (folder / "quantize").mkdir(parents=True, exist_ok=True)
    shop = QuantizeShop(folder / "quantize", sources, peers, arguments.mnist, say)
    report_sections(arguments.only, shop, arguments.quick, folder / "quantize.json", found_on, console)


if __name__ == "__main__":
    main()
