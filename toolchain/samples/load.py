"""`CALIBRATION=` to a sample set: a shipped name, a TOML, an .npz, a folder of pictures, your function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from toolchain.errors import OptionError
from toolchain.imports import call_user_function, import_callable, is_import_spec
from toolchain.knowledge import find_shipped, load_toml
from toolchain.samples.digits import as_inputs, load_digits
from toolchain.samples.npz import NpzRows
from toolchain.samples.packaged import packaged_file
from toolchain.samples.pictures import CropRows, PictureRows, find_pictures
from toolchain.samples.sample_set import (
    CALIBRATION_COUNT,
    JUDGING_COUNT,
    Rows,
    SampleSet,
    Selection,
    counts,
    split,
)
from toolchain.samples.spec import (
    CalibrationSpec,
    DigitsSource,
    FunctionSource,
    ImagesSource,
    NpzSource,
    PhotographsSource,
    Preprocess,
)
from toolchain.samples.values import ColumnRows, samples_from


def load_samples(
    source: Any,
    *,
    calibration_count: int | None = None,
    judging_count: int | None = None,
    batch_size: int = 32,
    seed: int | None = None,
) -> SampleSet:
    """Make a sample set of what CALIBRATION= may say, or of Python values (see `samples_from`).

    A shipped name wins over a file or folder of that name in the current directory (write `./photos` for the
    folder). Counts and seed given here win over those of a TOML. A bare folder of pictures is preprocessed as
    `Preprocess` does by default; a bare folder or .npz is split by a seeded shuffle.
    Raises OptionError (no such thing), ProfileError (the TOML), SampleError (too few, damaged, ...).
    """
    if not isinstance(source, (str, Path)):
        return samples_from(
            source,
            calibration_count=calibration_count,
            judging_count=judging_count,
            batch_size=batch_size,
            seed=seed or 0,
        )
    _check_counts(calibration_count, judging_count)
    name, folder, spec = _read_source(source)
    given = {"calibration_count": calibration_count, "judging_count": judging_count, "seed": seed}
    spec = spec.model_copy(update={key: value for key, value in given.items() if value is not None})
    return replace(_make_set(name, folder, spec), batch_size=batch_size)


def _check_counts(calibration: int | None, judging: int | None) -> None:
    for option, value, least in (("calibration_count", calibration, 1), ("judging_count", judging, 0)):
        if value is not None and value < least:
            raise OptionError(f"{option} is {value}", hint=f"give at least {least}")


def _read_source(source: str | Path) -> tuple[str, Path, CalibrationSpec]:
    """Return a name, the folder that paths are taken from, and what a TOML would say."""
    path, text = Path(source), str(source)
    if isinstance(source, str) and is_import_spec(text):
        return text, Path(), CalibrationSpec(source=FunctionSource(kind="function", function=text))
    is_path = isinstance(source, Path) or "/" in text or "\\" in text
    if path.suffix == ".npz":
        return path.stem, Path(), CalibrationSpec(source=NpzSource(kind="npz", file=text))
    if is_path and path.is_dir():
        return path.resolve().name, Path(), CalibrationSpec(source=ImagesSource(kind="images", folder=text))
    try:
        toml = find_shipped("calibration", source)
    except OptionError as error:
        if path.is_dir():
            return _read_source(path)
        forms = "or give a TOML, an .npz, a folder of pictures or package.module:function"
        raise OptionError(error.what, where=error.where, hint=f"{error.hint}; {forms}") from None
    return toml.stem, toml.parent, load_toml(toml, CalibrationSpec)


def _make_set(name: str, folder: Path, spec: CalibrationSpec) -> SampleSet:
    match spec.source:
        case DigitsSource() as source:
            return _digits_set(name, source, spec)
        case PhotographsSource() as source:
            return _photographs_set(name, folder, source, spec)
        case ImagesSource() as source:
            return _rows_set(name, *_image_rows(name, folder, source, spec), spec)
        case NpzSource() as source:
            judging = NpzRows(folder / source.judging_file) if source.judging_file else None
            return _rows_set(name, NpzRows(folder / source.file), judging, spec)
        case FunctionSource() as source:
            return _function_set(name, source, spec)
        case _:
            assert_never(spec.source)


def _rows_set(name: str, rows: Rows, judging: Rows | None, spec: CalibrationSpec) -> SampleSet:
    """Take both parts from the same rows, or each from its own."""
    if judging is None:
        parts = split(
            rows,
            name,
            calibration_count=spec.calibration_count,
            judging_count=spec.judging_count,
            seed=spec.seed,
        )
    else:
        wanted = (spec.calibration_count or min(len(rows), CALIBRATION_COUNT), 0)
        first, _ = split(rows, name, calibration_count=wanted[0], judging_count=wanted[1], seed=spec.seed)
        judged = spec.judging_count or min(len(judging), JUDGING_COUNT)
        second, _ = split(judging, f"{name} (judging)", calibration_count=judged, judging_count=0, seed=spec.seed)
        parts = (first, second)
    return SampleSet(name=name, for_calibration=parts[0], for_judging=parts[1])


def _digits_set(name: str, source: DigitsSource, spec: CalibrationSpec) -> SampleSet:
    digits = load_digits()
    rows = ColumnRows((as_inputs(digits.images, source.mean, source.std),), digits.labels)
    calibration, _ = counts(len(digits.training), spec.calibration_count, 0, name, what="training digits")
    judging, _ = counts(len(digits.judging), spec.judging_count or JUDGING_COUNT, 0, name, what="digits to judge with")
    chosen = np.random.default_rng(spec.seed).permutation(digits.training)[:calibration]
    return SampleSet(
        name=name,
        for_calibration=Selection(rows, tuple(int(number) for number in chosen)),
        for_judging=Selection(rows, tuple(int(number) for number in digits.judging[:judging])),
    )


def _photographs_set(name: str, folder: Path, source: PhotographsSource, spec: CalibrationSpec) -> SampleSet:
    preprocess = spec.preprocess or Preprocess()

    def selection(files: tuple[str, ...], count: int, seed: int) -> Selection:
        paths = [folder / file if (folder / file).is_file() else packaged_file(file) for file in files]
        return Selection(CropRows(paths, count, seed, source, preprocess), tuple(range(count)))

    calibration = spec.calibration_count or CALIBRATION_COUNT
    judging = CALIBRATION_COUNT if spec.judging_count is None else spec.judging_count
    return SampleSet(
        name=name,
        for_calibration=selection(source.calibration_files, calibration, 2 * spec.seed),
        for_judging=selection(source.judging_files, judging, 2 * spec.seed + 1),
    )


def _image_rows(name: str, folder: Path, source: ImagesSource, spec: CalibrationSpec) -> tuple[Rows, Rows | None]:
    preprocess = spec.preprocess or Preprocess()

    def rows(inside: str) -> Rows:
        by_folder = source.labels == "folders"
        return PictureRows(find_pictures(folder / inside, label_by_folder=by_folder, set_name=name), preprocess)

    return rows(source.folder), rows(source.judging_folder) if source.judging_folder else None


def _function_set(name: str, source: FunctionSource, spec: CalibrationSpec) -> SampleSet:
    function = import_callable(source.function, what="sample set")
    values = call_user_function(function, what="sample set", spec=source.function)
    return samples_from(
        values,
        name=name,
        calibration_count=spec.calibration_count,
        judging_count=spec.judging_count,
        seed=spec.seed,
    )
