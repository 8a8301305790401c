"""Deployment targets: a device, the formats wanted, the recipe and the gates, one TOML each in targets/."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from toolchain.errors import OptionError, ProfileError
from toolchain.knowledge import find_shipped, load_extended
from toolchain.profiles import DeviceProfile, Table, load_profile


class OnnxTable(Table):
    """How the ONNX file is written; `activations` is how it stores the specification's int8 activations."""

    opset: int = Field(17, ge=13, le=21)
    activations: Literal["int8", "uint8"] = "uint8"


class FigureGate(Table):
    """Bounds of one figure that a back end measures."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        return self


class Gates(Table):
    """What a deployment must hold, judged on samples kept apart from calibration. An absent gate is not judged.

    `op_steps`: most steps by which one op may differ from its exact integer meaning. `output_steps` and `output_share`:
    two runtimes' outputs lie within so many steps on at least this share of the values. Accuracy is in points. `device`
    bounds figures of back ends (`toolchain.backends`) by their keys.
    """

    op_steps: int = Field(1, ge=0)
    output_steps: int = Field(2, ge=0)
    output_share: float = Field(0.99, ge=0, le=1)
    runtime_same_class: float | None = Field(None, ge=0, le=1)
    sqnr_db: float | None = None
    cosine: float | None = Field(None, ge=-1, le=1)
    same_class: float | None = Field(None, ge=0, le=1)
    accuracy_drop: float | None = Field(None, ge=0)
    float_error: float = Field(1e-4, gt=0, description="of a float file, relative to the output's range")
    device: dict[str, FigureGate] = Field({}, description="npu_macs_share = { at_least = 1.0 }")


class Target(Table):
    """One target. `recipes` holds rows of stage tables by name, `default` among them; one without rows is left out,
    which is how a target drops what it takes over. `left_out` says in a line why the default recipe leaves a stage out.
    """

    description: str
    extends: str | None = Field(None, description="the target whose keys hold where this file has none")
    device: str
    ways: tuple[str, ...] = Field(("here",), description="to the device; the first that is ready is validate's own")
    formats: tuple[Literal["onnx", "tflite"], ...] = ("onnx", "tflite")
    in_out: Literal["integer", "float"] = "integer"
    dynamic_batch: bool = Field(False, description="files take any number of samples at a time")
    sparse: Literal["auto", "smaller", "never"] = Field(
        "auto",
        description="TFLite files store weights without zeros: where kernels skip them, where it saves bytes, never",
    )
    onnx: OnnxTable = OnnxTable()
    recipes: dict[str, tuple[dict[str, Any], ...]]
    left_out: dict[str, str] = Field({})
    gates: Gates = Gates()

    @field_validator("recipes")
    @classmethod
    def _without_empty(cls, recipes: dict[str, tuple[dict[str, Any], ...]]) -> dict[str, tuple[dict[str, Any], ...]]:
        return {name: rows for name, rows in recipes.items() if rows}


def load_target(name: str | Path) -> tuple[Target, DeviceProfile]:
    """A shipped target by name or a user's own file, and its device. A device given as a path is relative to the
    file."""
    path = find_shipped("targets", name)
    target = load_extended("targets", path, Target)
    beside = path.parent / target.device
    try:
        return target, load_profile(beside if beside.is_file() else target.device)
    except OptionError as error:
        raise ProfileError(f"{path}: device: {error.what}", hint=error.hint) from error
