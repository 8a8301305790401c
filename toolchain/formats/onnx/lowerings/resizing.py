"""Resizes, and channels that become pixels.

DepthToSpace takes both orders of channels, SpaceToDepth `(i, j, c)` alone: the other is written out.
"""

from __future__ import annotations

from toolchain.formats.onnx.lowerings.rule import LoweringRule, reshape_to
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op


def _resize(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    if node["mode"] == "nearest":
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        corners = "align_corners" if node["align_corners"] else "half_pixel"
        how = {"mode": "linear", "coordinate_transformation_mode": corners}
    shape = scope.graph.types[node.output].shape
    if scope.opset >= 18:
        sizes = scope.store_axis_values(f"{node.output}/size", shape[2:])
        scope.apply("Resize", [*inputs, "", "", sizes], result, name=node.name, axes=(2, 3), **how)
    else:
        sizes = scope.store_axis_values(f"{node.output}/size", shape)
        scope.apply("Resize", [*inputs, "", "", sizes], result, name=node.name, **how)


def _depth_to_space(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    mode = "CRD" if node["channels_first"] else "DCR"
    scope.apply("DepthToSpace", inputs, result, name=node.name, blocksize=node["block"], mode=mode)


def _space_to_depth(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    block = node["block"]
    if not node["channels_first"]:
        scope.apply("SpaceToDepth", inputs, result, name=node.name, blocksize=block)
        return
    if scope.qdq_only:
        _reordered_blocks(scope, node, inputs[0], result)
        return
    (source,) = inputs
    batch, channels, height, width = scope.graph.types[node.inputs[0]].shape
    split = scope.auxiliary(node.output, "split", source.params)
    moved = scope.auxiliary(node.output, "moved", source.params)
    reshape_to(scope, source, split, (batch, channels, height // block, block, width // block, block))
    scope.apply("Transpose", [split], moved, name=node.name, perm=(0, 1, 3, 5, 2, 4))
    reshape_to(scope, moved, result, scope.graph.types[node.output].shape)


def _reordered_blocks(scope: Scope, node: Node, source: Tensor, result: Tensor) -> None:
    """SpaceToDepth, and its channels brought from `(i, j, c)` to `(c, i, j)`: no tensor has more than 4 axes, where
    NPUs end at 4 or 5."""
    squared = node["block"] ** 2
    shape = scope.graph.types[node.output].shape
    parts = [scope.auxiliary(node.output, step, source.params) for step in ("blocks", "rows", "moved")]
    scope.apply("SpaceToDepth", [source], parts[0], blocksize=node["block"])
    reshape_to(scope, parts[0], parts[1], (shape[0], squared, shape[1] // squared, shape[2] * shape[3]))
    scope.apply("Transpose", [parts[1]], parts[2], name=node.name, perm=(0, 2, 1, 3))
    reshape_to(scope, parts[2], result, shape)


RESIZING: dict[Op, LoweringRule] = {
    Op.RESIZE: _resize,
    Op.DEPTH_TO_SPACE: _depth_to_space,
    Op.SPACE_TO_DEPTH: _space_to_depth,
}
