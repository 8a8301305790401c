# Every public name, once: type checkers read this, and __init__.py loads from it.
from .comparison.compare import compare_artifacts
from .comparison.differences import ArtifactDiff
from .deployment import Deployment, deploy
from .diagnose import ModelDiagnosis, diagnose
from .errors import (
    BudgetError,
    DeviceError,
    DisagreementError,
    OptionError,
    OrderError,
    ProfileError,
    SampleError,
    ToolchainError,
    UnsupportedError,
)
from .graph import Graph, Node, Op, format_graph
from .lint import LintReport, lint
from .packing.loader import load_packed, unpack_file
from .packing.packer import Packed, pack_file
from .pipeline import Pipeline
from .quantization import QuantizedGraph, Scheme
from .recipe import STAGES
from .samples import SampleSet, load_samples, samples_from
from .stages.calibrate import Calibrate
from .stages.cluster import Cluster
from .stages.export import Export
from .stages.prune import Prune
from .stages.quantize import Quantize
from .stages.recover import Recover
from .stages.states import CalibratedModel, ExportedModel, QuantizedModel, TracedModel, load
from .stages.trace import Trace
from .store import Store
from .targets import load_target
from .validation.validate import raise_missed, validate
from .zoo.resolve import load_model

__all__ = [
    "STAGES",
    "ArtifactDiff",
    "BudgetError",
    "Calibrate",
    "CalibratedModel",
    "Cluster",
    "Deployment",
    "DeviceError",
    "DisagreementError",
    "Export",
    "ExportedModel",
    "Graph",
    "LintReport",
    "ModelDiagnosis",
    "Node",
    "Op",
    "OptionError",
    "OrderError",
    "Packed",
    "Pipeline",
    "ProfileError",
    "Prune",
    "Quantize",
    "QuantizedGraph",
    "QuantizedModel",
    "Recover",
    "SampleError",
    "SampleSet",
    "Scheme",
    "Store",
    "ToolchainError",
    "Trace",
    "TracedModel",
    "UnsupportedError",
    "compare_artifacts",
    "deploy",
    "diagnose",
    "format_graph",
    "lint",
    "load",
    "load_model",
    "load_packed",
    "load_samples",
    "load_target",
    "pack_file",
    "raise_missed",
    "samples_from",
    "unpack_file",
    "validate",
]

__version__: str
