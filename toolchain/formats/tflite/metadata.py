"""What a file says of itself beyond the schema: how its tensors map to those of the graph.

The metadata buffer `edge_toolchain` is JSON:

    {"version": 1, "layouts": {tensor: layout}, "aliases": {tensor: tensor of the file}}

`layouts` holds those that differ from the default (rank 4 channels last, any other rank as in torch);
`aliases` the tensors of the graph whose values another tensor of the file holds. A file without the buffer
has neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from toolchain.errors import OptionError
from toolchain.formats.tflite.layout import Layout, default_layout

KEY: Final = "edge_toolchain"
RUNTIME_KEY: Final = "min_runtime_version"
VERSION: Final = 1


@dataclass(frozen=True)
class Mapped:
    """Layouts that are not the default and aliases, both by the graph's tensor names."""

    layouts: Mapping[str, Layout] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def layout(self, name: str, rank: int) -> Layout:
        return self.layouts.get(name) or default_layout(rank)

    def to_bytes(self) -> bytes:
        plain = {
            "version": VERSION,
            "layouts": {name: layout.to_plain() for name, layout in self.layouts.items()},
            "aliases": dict(self.aliases),
        }
        return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Mapped:
        """Raises OptionError where the JSON is not what `to_bytes` writes."""
        try:
            plain = json.loads(content)
            layouts = {name: Layout.from_plain(layout) for name, layout in plain["layouts"].items()}
            aliases = {str(name): str(stored) for name, stored in plain["aliases"].items()}
            version = plain["version"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OptionError(f"the TFLite file is damaged: its {KEY} metadata cannot be read ({error})") from error
        if version != VERSION:
            raise OptionError(
                f"the TFLite file's {KEY} metadata is of version {version}; this toolchain reads {VERSION}"
            )
        return cls(layouts, aliases)
