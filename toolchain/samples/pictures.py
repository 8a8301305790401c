"""Pictures as samples: a folder of them, or random crops of a few photographs. Pillow decodes and resizes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import OptionError, SampleError
from toolchain.samples.checks import Sample
from toolchain.samples.packaged import missing_extra
from toolchain.samples.spec import PhotographsSource, Preprocess

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Picture:
    """A file, the class it shows if known, and its name in digests, free of the machine's folders."""

    path: Path
    name: str
    label: int | None = None


class PictureRows:
    """Whole pictures, resized and centre-cropped: (C, H, W) float32."""

    input_names: tuple[str, ...] = ()

    def __init__(self, pictures: Sequence[Picture], preprocess: Preprocess) -> None:
        self._pictures = pictures
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, numbers: Sequence[int]) -> Iterator[Sample]:
        """Yield samples by number; see `Rows`."""
        for number in numbers:
            picture = self._pictures[number]
            pixels = _centre_crop(open_picture(picture.path, self._preprocess), self._preprocess)
            yield Sample((normalised(pixels, self._preprocess),), picture.label, str(picture.path))

    def fingerprints(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Yield what determines the samples; see `Rows`."""
        yield self._preprocess.model_dump_json().encode()
        for number in numbers:
            picture = self._pictures[number]
            yield _file_hash(picture.path) + repr((picture.name, picture.label)).encode()


class CropRows:
    """Random resized crops of photographs, taken in turn: (C, H, W) float32. Crop k is the same whenever it
    is read.

    A crop covers a random part of the area (`scale`) at a random width/height (`aspect`), and is resized to
    the size that preprocessing asks for. The photographs are decoded anew for each pass and held as long as
    it lasts.
    """

    input_names: tuple[str, ...] = ()

    def __init__(
        self, paths: Sequence[Path], count: int, seed: int, source: PhotographsSource, preprocess: Preprocess
    ) -> None:
        self._paths = paths
        self._count = count
        self._seed = seed
        self._source = source
        self._preprocess = preprocess

    def __len__(self) -> int:
        return self._count

    def read(self, numbers: Sequence[int]) -> Iterator[Sample]:
        """Yield samples by number; see `Rows`."""
        height, width = self._preprocess.size
        resample = _resampling(self._preprocess)
        decoded: dict[Path, Image] = {}
        for number in numbers:
            path = self._paths[number % len(self._paths)]
            if path not in decoded:
                decoded[path] = open_picture(path, self._preprocess)
            box, mirrored = self._crop(number, decoded[path].size)
            pixels = np.asarray(decoded[path].resize((width, height), resample, box=box))
            pixels = pixels[:, ::-1] if mirrored else pixels
            yield Sample((normalised(pixels, self._preprocess),), None, f"crop {number}, {path}")

    def _crop(self, number: int, size: tuple[int, int]) -> tuple[Box, bool]:
        """Return (left, top, right, bottom) and whether to mirror, drawn from seed and number alone."""
        random = np.random.default_rng((self._seed, number))
        width, height = size
        area = width * height * random.uniform(*self._source.scale)
        aspect = np.exp(random.uniform(*np.log(self._source.aspect)))
        # A crop longer than the photograph is cut to it: its aspect gives way, its place stays random.
        across = max(1, min(width, round(np.sqrt(area * aspect))))
        down = max(1, min(height, round(np.sqrt(area / aspect))))
        left, top = int(random.integers(width - across + 1)), int(random.integers(height - down + 1))
        mirrored = self._source.mirror and random.random() < 0.5
        return (left, top, left + across, top + down), mirrored

    def fingerprints(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Yield what determines the samples; see `Rows`."""
        exclude = {
            "calibration_files",
            "judging_files",
        }  # their content counts, and their order, as hashed here
        yield (self._preprocess.model_dump_json().encode() + self._source.model_dump_json(exclude=exclude).encode())
        yield repr((self._seed, tuple(numbers))).encode()
        for path in self._paths:
            yield _file_hash(path)


def find_pictures(folder: Path, *, label_by_folder: bool, set_name: str) -> list[Picture]:
    """Return the pictures of a folder and its sub-folders by name. Raises OptionError, SampleError."""
    if not folder.is_dir():
        raise OptionError(f"{folder} is no folder of pictures", hint="check the path")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
    visible = [p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not visible:
        raise SampleError(
            "there are no pictures",
            where=f"{folder}, sample set {set_name!r}",
            hint=f"put files there that end in {', '.join(sorted(PICTURE_SUFFIXES))}",
        )
    names = [path.relative_to(folder).as_posix() for path in visible]
    labels = _folder_labels(names, folder) if label_by_folder else {}
    return [Picture(path, name, labels.get(name.partition("/")[0])) for path, name in zip(visible, names, strict=True)]


def _folder_labels(names: Sequence[str], folder: Path) -> dict[str, int]:
    loose = [name for name in names if "/" not in name]
    if loose:
        raise SampleError(
            f"labels come from sub-folders, but {len(loose)} pictures lie in none, the first is {loose[0]}",
            where=str(folder),
            hint='give every class a sub-folder, or set labels = "none"',
        )
    classes = sorted({name.partition("/")[0] for name in names})
    if all(name.isdecimal() for name in classes):
        return {name: int(name) for name in classes}
    return {name: number for number, name in enumerate(classes)}


def open_picture(path: Path, preprocess: Preprocess) -> Image:
    """Decode a picture in the wanted channels. Raises SampleError where it is damaged."""
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("pillow", wanted_for="reading pictures") from None
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB" if preprocess.channels == "rgb" else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SampleError(
            f"a picture cannot be read: {error}", where=str(path), hint="remove or replace that file"
        ) from error


def _centre_crop(picture: Image, preprocess: Preprocess) -> NDArray[Any]:
    height, width = preprocess.size
    if preprocess.resize is None:
        picture = picture.resize((width, height), _resampling(preprocess))
    else:
        factor = preprocess.resize / min(picture.size)
        across, down = (max(preprocess.resize, round(side * factor)) for side in picture.size)
        picture = picture.resize((across, down), _resampling(preprocess))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return np.asarray(picture.crop((left, top, left + width, top + height)))


def normalised(pixels: NDArray[Any], preprocess: Preprocess) -> NDArray[np.float32]:
    """Return (x - mean) / std as (C, H, W) float32, of pixels (H, W, C) or (H, W) in uint8."""
    channels_last = pixels if pixels.ndim == 3 else pixels[:, :, None]
    values = channels_last.transpose(2, 0, 1).astype(np.float32)
    values -= np.asarray(preprocess.mean, np.float32).reshape(-1, 1, 1)
    values /= np.asarray(preprocess.std, np.float32).reshape(-1, 1, 1)
    return values


def _resampling(preprocess: Preprocess) -> Any:
    from PIL import Image

    return Image.Resampling[preprocess.interpolation.upper()]


def _file_hash(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise SampleError(f"a picture cannot be read: {error}", where=str(path)) from error
