"""The commands `toolchain pack` and `toolchain unpack`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from toolchain.errors import OptionError
from toolchain.packing.container import SUFFIX

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the facts as JSON on standard output, and nothing else there.")
]


def pack(
    file: Annotated[Path, typer.Argument(help="A .tflite or .onnx file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The packed file [FILE.packed].")] = None,
    as_json: AsJson = False,
) -> None:
    """Pack a model for download: palettes and positions of weights, entropy-coded; `unpack` gives the same bytes."""
    from toolchain.packing.packer import pack_file

    target = out or file.with_name(file.name + SUFFIX)
    found = pack_file(file, target)
    if as_json:
        typer.echo(json.dumps({"file": str(target), **found.facts()}, indent=2))
    else:
        typer.echo(f"{target}: {found.packed_bytes:,} of {found.bytes:,} bytes, {found.ratio:.1f} times smaller")


def unpack(
    file: Annotated[Path, typer.Argument(help="What `pack` wrote.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The model file [FILE without .packed].")] = None,
    as_json: AsJson = False,
) -> None:
    """Unpack a model, checked to the byte."""
    from toolchain.packing.loader import unpack_file

    if out is None and file.suffix != SUFFIX:
        raise OptionError(f"{file.name} does not end in {SUFFIX}", hint="name the result: --out MODEL")
    target = out or file.with_suffix("")
    size = unpack_file(file, target)
    typer.echo(json.dumps({"file": str(target), "bytes": size}) if as_json else f"{target}: {size:,} bytes")
