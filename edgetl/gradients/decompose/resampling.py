"""Changing the resolution: Resize, pooling, depth to space and back, padding.

Resize and average pooling are linear and act on each axis alone: on each axis they are a matrix,
and the matrix is what the operator makes of the unit vectors. So every mode, alignment and
antialiasing filter is covered, by two products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgetl import defaults
from edgetl.gradients.decompose.linear import along_axis
from edgetl.graph.rewrite import Array, Builder, Rule, Unsupported, attribute, attributes, operand
from edgetl.runtime import sessions


def resize(node: onnx.NodeProto, op: Builder) -> str:
    """A matrix for each axis; ResizeGrad has no CPU kernel.

    `nearest` too: by an integer factor, Expand does the same, and was ten times slower.
    """
    x: str = node.input[0]
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize" or attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("it crops, or keeps the aspect ratio")
    rank = len(op.shape(x))
    settings = attributes(node, without=("axes", "keep_aspect_ratio_policy"))
    for axis, target, by_scale in _resized(node, op):
        (size,) = op.sizes(node.input[0], [axis])
        x = along_axis(op, x, _resizing_matrix(size, target, by_scale, settings), axis, rank)
    return x


def average_pool(node: onnx.NodeProto, op: Builder) -> str:
    """A matrix for each axis; AveragePool's registered gradient fails."""
    x: str = node.input[0]
    rank = len(op.shape(x))
    sizes = op.sizes(x, range(2, rank))
    for i, size in enumerate(sizes):
        settings = attributes(node)
        for name in ("kernel_shape", "strides", "dilations"):
            if name in settings:
                settings[name] = [settings[name][i]]
        if "pads" in settings:
            settings["pads"] = [settings["pads"][i], settings["pads"][i + len(sizes)]]
        x = along_axis(op, x, _pooling_matrix(size, settings), 2 + i, rank)
    return x


def depth_to_space(node: onnx.NodeProto, op: Builder) -> str:
    """Reshape, Transpose, Reshape (ONNX DepthToSpace-13)."""
    x, b = node.input[0], attribute(node, "blocksize", None)
    channels, height, width = op.sizes(x, [1, 2, 3])
    if attribute(node, "mode", "DCR") == "DCR":
        blocks, perm = op.Reshape(x, [0, b, b, channels // b**2, height, width]), [0, 3, 4, 1, 5, 2]
    else:
        blocks, perm = op.Reshape(x, [0, channels // b**2, b, b, height, width]), [0, 1, 4, 2, 5, 3]
    return op.Reshape(op.Transpose(blocks, perm=perm), [0, channels // b**2, height * b, width * b])


def space_to_depth(node: onnx.NodeProto, op: Builder) -> str:
    """Reshape, Transpose, Reshape (ONNX SpaceToDepth-13)."""
    x, b = node.input[0], attribute(node, "blocksize", None)
    channels, height, width = op.sizes(x, [1, 2, 3])
    blocks = op.Reshape(x, [0, channels, height // b, b, width // b, b])
    return op.Reshape(op.Transpose(blocks, perm=[0, 3, 5, 1, 2, 4]), [0, channels * b**2, height // b, width // b])


def pad(node: onnx.NodeProto, op: Builder) -> str | None:
    """All axes' pads, and constant ones; other modes copy elements by their index.

    The registered gradient knows neither Pad's `axes` nor a mode but `constant`.
    """
    x: str = node.input[0]
    mode = attribute(node, "mode", "constant")
    if mode == "constant" and operand(node, 3) is None:
        return None
    rank = len(op.shape(x))
    axes = op.axes(node, 3, rank)
    axes = list(range(rank)) if axes is None else axes
    given = op.ints(node.input[1])
    begins, ends = dict(zip(axes, given, strict=False)), dict(zip(axes, given[len(axes) :], strict=True))
    if mode == "constant":
        every = [side.get(axis, 0) for side in (begins, ends) for axis in range(rank)]
        return op.Pad(x, every, operand(node, 2))
    for axis in axes:
        if begins[axis] or ends[axis]:
            (size,) = op.sizes(node.input[0], [axis])
            # np.pad has ONNX's names for the modes; a negative pad crops
            copied = np.pad(np.arange(size), (max(begins[axis], 0), max(ends[axis], 0)), mode=mode)
            kept = copied[max(-begins[axis], 0) : len(copied) - max(-ends[axis], 0)]
            x = op.Gather(x, kept.astype(np.int64), axis=axis)
    return x


def _resized(node: onnx.NodeProto, op: Builder) -> list[tuple[int, float, bool]]:
    """Return the axes that change, each with its scale (and True) or its new size (and False)."""
    before = op.shape(node.input[0])
    axes = [axis % len(before) for axis in attribute(node, "axes", range(len(before)))]
    scales = op.constant(node.input[2]) if operand(node, 2) else np.empty(0)
    if scales is None:
        raise Unsupported("its scales are computed")
    if scales.size:  # some exporters write an empty tensor beside the sizes
        return [(axis, float(scale), True) for axis, scale in zip(axes, scales, strict=True) if scale != 1]
    resized: list[tuple[int, float, bool]] = []
    for axis, size in zip(axes, op.dims(node.input[3]), strict=True):
        if isinstance(size, int) and size != before[axis]:
            resized.append((axis, size, False))
        elif size is None or size != before[axis]:
            raise Unsupported(f"its size along axis {axis} is computed")
    return resized


def _resizing_matrix(size: int, target: float, by_scale: bool, settings: dict[str, Any]) -> Array:
    """Return the `[out, size]` matrix of Resize along one axis."""
    # scales or sizes, along the third axis of [1, size, size, 1], in which each channel is a unit vector
    if by_scale:
        node = helper.make_node("Resize", ["x", "", "target"], ["y"], **settings)
        value: Array = np.array([1, 1, target, 1], np.float32)
    else:
        node = helper.make_node("Resize", ["x", "", "", "target"], ["y"], **settings)
        value = np.array([1, size, target, 1], np.int64)
    units = np.eye(size, dtype=np.float32).reshape(1, size, size, 1)
    return _run(node, units, target=value).reshape(size, -1).T


def _pooling_matrix(size: int, settings: dict[str, Any]) -> Array:
    """Return the `[out, size]` matrix of AveragePool along one axis."""
    units = np.eye(size, dtype=np.float32).reshape(size, 1, size)
    return _run(helper.make_node("AveragePool", ["x"], ["y"], **settings), units).reshape(size, -1).T


def _run(node: onnx.NodeProto, x: Array, **constants: Array) -> Array:
    graph = helper.make_graph(
        [node],
        "one operator",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [onnx.ValueInfoProto(name="y")],
        initializer=[onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", defaults.OPSET)], ir_version=defaults.IR_VERSION
    )
    (y,) = sessions.open_session(model.SerializeToString()).run(None, {"x": x})
    return np.asarray(y)


RULES: dict[str, Rule] = {
    "AveragePool": average_pool,
    "DepthToSpace": depth_to_space,
    "Pad": pad,
    "Resize": resize,
    "SpaceToDepth": space_to_depth,
}
