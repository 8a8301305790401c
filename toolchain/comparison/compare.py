"""Two artifacts side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from toolchain.comparison.differences import ArtifactDiff, Side, TensorDiff, tensor_differences
from toolchain.comparison.execution import Port, execute, ports
from toolchain.comparison.inputs import random_samples, set_samples
from toolchain.comparison.matching import conversion_tensors, match_tensors
from toolchain.comparison.outputs import Joint, compare_outputs, join_ports
from toolchain.comparison.reading import Artifact, Given, read_artifact
from toolchain.errors import OptionError, UnsupportedError
from toolchain.progress import SILENT, Progress
from toolchain.samples import SampleSet

SAMPLES = 16
"""How many samples both are run on where nothing else is said."""

LARGEST_ELEMENTS = 2**28
"""Elements of a random input, 1 GiB of float32; a damaged shape asks for any number."""


def compare_artifacts(
    first: Given,
    second: Given,
    samples: SampleSet | int = SAMPLES,
    *,
    count: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> ArtifactDiff:
    """Compare two artifacts, each a path (.onnx, .tflite, a saved stage's folder), a file's bytes or a saved stage.

    Both are run on the first `count` samples of a set (of its judging part, where it has one), or on so many random
    ones: normal values (quantized through the scale where an input is integer), 0 and 1 for integers without a scale.
    Where inputs differ or a runtime refuses a file, `notes` say so and outputs are left out.

    Raises OptionError or UnsupportedError where one cannot be read, SampleError where samples do not fit.
    """
    pair = read_artifact(first), read_artifact(second)
    number = samples if isinstance(samples, int) else SAMPLES if count is None else count
    if number < 0:
        raise OptionError(f"{number} samples cannot be run", hint="give 0 or more")
    found = _compare_facts(pair)
    if number == 0:
        return replace(found, notes=("outputs were not compared: no samples were asked for",))
    try:
        return _compare_runs(found, pair, None if isinstance(samples, int) else samples, number, seed, progress)
    except UnsupportedError as error:
        where = f" ({error.where})" if error.where else ""
        return replace(found, notes=(f"outputs were not compared: {error.what}{where}",))


def _compare_facts(pair: tuple[Artifact, Artifact]) -> ArtifactDiff:
    first, second = (artifact.facts for artifact in pair)
    matches = match_tensors(first, second)
    tensors = []
    for match in matches:
        one, other = first.tensors[match.first], second.tensors[match.second]
        tensors.append(TensorDiff(one, other, match.by, tensor_differences(one, other)))
    seen = (
        {m.first for m in matches} | conversion_tensors(first),
        {m.second for m in matches} | conversion_tensors(second),
    )
    return ArtifactDiff(
        _side(pair[0]),
        _side(pair[1]),
        tuple(tensors),
        tuple(name for name in first.tensors if name not in seen[0]),
        tuple(name for name in second.tensors if name not in seen[1]),
    )


def _side(artifact: Artifact) -> Side:
    facts = artifact.facts
    return Side(artifact.name, facts.format, facts.bytes, artifact.constant_bytes, len(facts.tensors), facts.ops)


def _compare_runs(
    found: ArtifactDiff,
    pair: tuple[Artifact, Artifact],
    samples: SampleSet | None,
    number: int,
    seed: int,
    progress: Progress,
) -> ArtifactDiff:
    (ins, outs), (other_ins, other_outs) = (ports(artifact) for artifact in pair)
    inputs, outputs = join_ports(ins, other_ins, "inputs"), join_ports(outs, other_outs, "outputs")
    with ExitStack() as stack:
        loaded = stack.enter_context(execute(pair[0])), stack.enter_context(execute(pair[1]))
        given = progress.track(_samples(inputs, samples, number, seed), description="run both", total=number)
        ran, diffs = compare_outputs(loaded, inputs, outputs, given)
        runtimes = loaded[0].runtime, loaded[1].runtime
    origin = "random" if samples is None else samples.name
    return replace(found, samples=ran, samples_from=origin, runtimes=runtimes, outputs=diffs)


def _samples(inputs: Sequence[Joint], samples: SampleSet | None, number: int, seed: int) -> Iterator[list[np.ndarray]]:
    shapes = [joint.shape for joint in inputs]
    if samples is not None:
        return set_samples(samples, [joint.ports[0] for joint in inputs], shapes, number)
    if any(np.prod(shape, dtype=float) > LARGEST_ELEMENTS for shape in shapes):
        raise UnsupportedError(f"inputs of shape {shapes} are too large")
    return random_samples([_narrowest(joint) for joint in inputs], shapes, number, seed)


def _narrowest(joint: Joint) -> Port:
    """The port whose values the other can take too: plain integers before quantized ones before floats."""
    return min(joint.ports, key=lambda port: (port.is_real, not port.is_quantized))
