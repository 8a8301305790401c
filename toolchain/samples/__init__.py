"""Where samples come from: what calibrates a model, and what judges the result, kept apart from it.

load_samples("mnist")                   a shipped name, a TOML, an .npz, a folder of pictures, a function of yours
samples_from(values)                    Python values: arrays, dicts, generators, a torch DataLoader
stream_samples(network, values, ...)    streams of a network that hands its state to the caller
SampleSet.calibration(), .judging()     batches, streamed anew at every call
"""

from toolchain.samples.checks import InputType, Sample
from toolchain.samples.load import load_samples
from toolchain.samples.sample_set import Batch, Rows, SampleSet, Selection, Streams
from toolchain.samples.spec import CalibrationSpec, Preprocess
from toolchain.samples.streams import Network, followed, stream_samples
from toolchain.samples.values import samples_from

__all__ = [
    "Batch",
    "CalibrationSpec",
    "InputType",
    "Network",
    "Preprocess",
    "Rows",
    "Sample",
    "SampleSet",
    "Selection",
    "Streams",
    "followed",
    "load_samples",
    "samples_from",
    "stream_samples",
]
