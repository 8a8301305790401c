"""Read a TFLite file back: what it holds, and where its tensors' layouts differ from torch's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from toolchain.errors import OptionError
from toolchain.formats.artifact import ArtifactFacts, OperatorFacts
from toolchain.formats.tflite.layout import Layout
from toolchain.formats.tflite.parse import Operator, ParsedModel, parse


def read_tflite(content: bytes) -> ArtifactFacts:
    """What the file holds. Raises OptionError where it is damaged, UnsupportedError where it is beyond us."""
    model = parse(content)
    names = _tensor_names(model)
    return ArtifactFacts(
        "tflite",
        dict(Counter(operator.name for operator in model.operators)),
        {name: replace(facts, name=name) for name, facts in zip(names, model.tensors, strict=True)},
        tuple(names[index] for _, index in model.inputs),
        tuple(names[index] for _, index in model.outputs),
        len(content),
        tuple(_operator_facts(operator, names) for operator in model.operators),
    )


def _tensor_names(model: ParsedModel) -> list[str]:
    """Names of all tensors; a file may call several alike, or none at all, and then they carry their number."""
    counts = Counter(facts.name for facts in model.tensors)
    return [
        facts.name if facts.name and counts[facts.name] == 1 else f"{facts.name}#{index}"
        for index, facts in enumerate(model.tensors)
    ]


def _operator_facts(operator: Operator, names: Sequence[str]) -> OperatorFacts:
    inputs = tuple("" if index < 0 else names[index] for index in operator.inputs)
    return OperatorFacts(operator.name, inputs, tuple(names[index] for index in operator.outputs))


def layouts(content: bytes) -> Mapping[str, Layout]:
    """Layout of every activation, in- and output of the file, by the graph's tensor names."""
    return activation_layouts(parse(content))


def activation_layouts(model: ParsedModel) -> dict[str, Layout]:
    """The same of a file already taken apart. Raises OptionError where one does not fit its tensor."""
    shapes = {facts.name: facts.shape for facts in model.tensors if not facts.is_constant}
    stored = {name: name for name in shapes} | dict(model.mapped.aliases)
    found = {}
    for name, tensor in stored.items():
        shape = shapes.get(tensor)
        if shape is None:
            raise OptionError(f"the TFLite file is damaged: {name} stands for {tensor}, which is missing")
        layout = found[name] = model.mapped.layout(name, len(shape))
        if not layout.fits(shape):
            raise OptionError(f"the TFLite file is damaged: the layout of {name} does not fit {list(shape)}")
    return found
