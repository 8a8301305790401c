"""A model and its golden samples as two C headers, for firmware: C99 and C++11, nothing but <stdint.h> (<math.h> where
a float output is no number).

    STEM.h          the file as `alignas(16) const unsigned char STEM_tflite[]`, arena, operators for tflite-micro
    STEM_golden.h   in- and outputs of some samples as the file stores them, and how many steps outputs may be off

Both define `static const` arrays: they are included by the one source file that uses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, isnan
from typing import Any, Final

import numpy as np

from toolchain.formats.tflite.micro import KERNELS

ALIGNMENT: Final = 16
"""Of the model in flash and of the arena, as tflite-micro asks for."""

GOLDEN_BYTES: Final = 2**16
"""Of golden arrays in a header, at least one sample: they share the flash with the model."""

_TYPES: Final = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "float32": "float",
    "bool": "uint8_t",
}
_COLUMNS: Final = 16
_HEX: Final = [f"0x{value:02x}" for value in range(256)]


@dataclass(frozen=True)
class HeaderSource:
    """What the headers of one file are made of. `inputs` and `outputs` are (N, *shape) of each port, `ports` its entry
    in the manifest; `operators` the file's, by the names of the schema; `runtime` gave the outputs."""

    stem: str
    content: bytes
    operators: Sequence[str]
    inputs: Sequence[np.ndarray]
    outputs: Sequence[np.ndarray]
    input_ports: Sequence[Mapping[str, Any]]
    output_ports: Sequence[Mapping[str, Any]]
    steps: int
    runtime: str
    arena_bytes: int | None = None


def c_headers(source: HeaderSource) -> dict[str, bytes]:
    """The two headers by their names."""
    stem = identifier(source.stem)
    return {
        f"{stem}.h": _text(f"{stem}_h", _model(stem, source)),
        f"{stem}_golden.h": _text(f"{stem}_golden_h", _golden(stem, source)),
    }


def identifier(name: str) -> str:
    """A name as C takes it."""
    found = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"model_{found}" if not found[:1].isalpha() else found


def _text(guard: str, lines: Iterator[str]) -> bytes:
    guard = guard.upper()
    return "\n".join([f"#ifndef {guard}", f"#define {guard}", "", *lines, "", f"#endif /* {guard} */", ""]).encode()


def _model(stem: str, source: HeaderSource) -> Iterator[str]:
    upper = stem.upper()
    yield "/* A TFLite model. Include from one source file. */"
    yield ""
    yield f"#define {upper}_BYTES {len(source.content)}u"
    if source.arena_bytes is not None:
        yield "/* of tflite-micro on a 64-bit host; a 32-bit device takes a little less */"
        yield f"#define {upper}_ARENA_BYTES {source.arena_bytes}u"
    yield from _resolver(upper, sorted(set(source.operators)))
    yield from ("", "#if defined(__cplusplus)", f"#define {upper}_ALIGNED alignas({ALIGNMENT})")
    yield "#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L"
    yield f"#define {upper}_ALIGNED _Alignas({ALIGNMENT})"
    yield from ("#else", f"#define {upper}_ALIGNED __attribute__((aligned({ALIGNMENT})))", "#endif")
    yield from ("", f"{upper}_ALIGNED static const unsigned char {stem}_tflite[{upper}_BYTES] = {{")
    yield from _rows([_HEX[value] for value in source.content])
    yield "};"


def _resolver(upper: str, operators: Sequence[str]) -> Iterator[str]:
    """A macro that adds the model's kernels, and no others, to a MicroMutableOpResolver<STEM_OPERATORS>."""
    yield from ("", f"/* operators: {', '.join(operators)} */", f"#define {upper}_OPERATORS {len(operators)}")
    if all(name in KERNELS for name in operators):
        yield f"#define {upper}_ADD_OPERATORS(resolver) \\\n  do {{ \\"
        yield from (f"    (resolver).{KERNELS[name]}(); \\" for name in operators)
        yield "  } while (0)"


def _golden(stem: str, source: HeaderSource) -> Iterator[str]:
    upper = stem.upper()
    arrays = [*source.inputs, *source.outputs]
    each = sum(array[0].nbytes for array in arrays)
    samples = max(1, min(len(arrays[0]), GOLDEN_BYTES // max(each, 1)))
    finite = all(np.isfinite(array[:samples]).all() for array in arrays if array.dtype.kind == "f")
    yield f"/* Golden samples of {stem}.h; outputs by {source.runtime}. Include from one source file. */"
    yield "\n#include <stdint.h>" + ("" if finite else "\n#include <math.h>")
    yield f"\n#define {upper}_GOLDEN_SAMPLES {samples}"
    yield f"/* the most by which a value of an output may differ: {_unit(source)} */"
    yield f"#define {upper}_GOLDEN_STEPS {source.steps}"
    kinds = ("input", source.input_ports, source.inputs), ("output", source.output_ports, source.outputs)
    for kind, ports, given in kinds:
        for at, (port, array) in enumerate(zip(ports, given, strict=True)):
            yield from _port(f"{stem}_{kind}_{at}", port, array[:samples])


def _unit(source: HeaderSource) -> str:
    floats = any(array.dtype.kind == "f" for array in source.outputs)
    return "quantization steps" if floats else "in integers"


def _port(name: str, port: Mapping[str, Any], array: np.ndarray) -> Iterator[str]:
    size = int(np.prod(array.shape[1:], dtype=np.int64))
    scale = port.get("scale")
    real = "" if scale is None else f", real = {scale:.9g} * (q - {port['zero_point']})".replace("- -", "+ ")
    shape = ",".join(map(str, array.shape[1:]))
    title = str(port["name"]).replace("*/", "* /").encode("ascii", "backslashreplace").decode()
    yield f"\n/* {title}: {array.dtype}[{shape}]{real} */"
    yield f"#define {name.upper()}_SIZE {size}"
    # C has no arrays of nothing
    yield f"static const {_TYPES[str(array.dtype)]} {name}[{len(array)}][{max(size, 1)}] = {{"
    for row in array.reshape(len(array), -1):
        yield "  {"
        yield from _rows([_literal(value) for value in row.tolist()] or ["0"])
        yield "  },"
    yield "};"


def _literal(value: float | int) -> str:
    if isinstance(value, float):
        if not isfinite(value):
            return "NAN" if isnan(value) else "-INFINITY" if value < 0 else "INFINITY"
        text = f"{value:.9g}"
        return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
    # a minus is an operator in C, so that the lowest numbers have no literal of their own
    return f"({value + 1} - 1)" if value in (-(2**31), -(2**63)) else str(int(value))


def _rows(values: Sequence[str]) -> Iterator[str]:
    for at in range(ceil(len(values) / _COLUMNS)):
        yield "  " + ", ".join(values[at * _COLUMNS : (at + 1) * _COLUMNS]) + ","
