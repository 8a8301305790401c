"""edge-toolchain: from a trained PyTorch model to ONNX and TFLite files tuned to a device, checked against the float model.

    from toolchain import deploy
    deploy(my_module, target="arm64", calibration=my_data_loader)

or stage by stage: `Quantize()(Calibrate(samples=samples)(Trace(example_inputs=(x,))(my_module)))`. Everything public is
named here; importing the package costs nothing until a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolchain.deployment import Deployment, deploy
    from toolchain.errors import (
        BudgetError,
        DisagreementError,
        OptionError,
        OrderError,
        ProfileError,
        SampleError,
        ToolchainError,
        UnsupportedError,
    )
    from toolchain.graph import Graph, Node, Op, format_graph
    from toolchain.pipeline import Pipeline
    from toolchain.quantization import QuantizedGraph, Scheme
    from toolchain.recipe import STAGES
    from toolchain.samples import SampleSet, load_samples, samples_from
    from toolchain.stages.calibrate import Calibrate
    from toolchain.stages.cluster import Cluster
    from toolchain.stages.export import Export
    from toolchain.stages.prune import Prune
    from toolchain.stages.quantize import Quantize
    from toolchain.stages.recover import Recover
    from toolchain.stages.states import CalibratedModel, ExportedModel, QuantizedModel, TracedModel, load
    from toolchain.stages.trace import Trace
    from toolchain.store import Store
    from toolchain.targets import load_target
    from toolchain.validation.validate import raise_missed, validate
    from toolchain.zoo.resolve import load_model

_HOMES = {
    "toolchain.deployment": ("Deployment", "deploy"),
    "toolchain.errors": (
        "BudgetError",
        "DisagreementError",
        "OptionError",
        "OrderError",
        "ProfileError",
        "SampleError",
        "ToolchainError",
        "UnsupportedError",
    ),
    "toolchain.graph": ("Graph", "Node", "Op", "format_graph"),
    "toolchain.pipeline": ("Pipeline",),
    "toolchain.quantization": ("QuantizedGraph", "Scheme"),
    "toolchain.recipe": ("STAGES",),
    "toolchain.samples": ("SampleSet", "load_samples", "samples_from"),
    "toolchain.stages.calibrate": ("Calibrate",),
    "toolchain.stages.cluster": ("Cluster",),
    "toolchain.stages.export": ("Export",),
    "toolchain.stages.prune": ("Prune",),
    "toolchain.stages.quantize": ("Quantize",),
    "toolchain.stages.recover": ("Recover",),
    "toolchain.stages.states": ("CalibratedModel", "ExportedModel", "QuantizedModel", "TracedModel", "load"),
    "toolchain.stages.trace": ("Trace",),
    "toolchain.store": ("Store",),
    "toolchain.targets": ("load_target",),
    "toolchain.validation.validate": ("raise_missed", "validate"),
    "toolchain.zoo.resolve": ("load_model",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'toolchain' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
