"""Read a TFLite file back: what it holds, and where its tensors' layouts differ from torch's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from toolchain.errors import OptionError
from toolchain.formats.artifact import ArtifactFacts
from toolchain.formats.tflite.layout import Layout
from toolchain.formats.tflite.parse import ParsedModel, parse


def read_tflite(content: bytes) -> ArtifactFacts:
    """What the file holds. Raises OptionError where it is damaged, UnsupportedError where it is beyond us."""
    model = parse(content)
    return ArtifactFacts(
        "tflite",
        dict(Counter(operator.name for operator in model.operators)),
        {facts.name: facts for facts in model.tensors},
        tuple(model.tensors[index].name for _, index in model.inputs),
        tuple(model.tensors[index].name for _, index in model.outputs),
        len(content),
    )


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
