"""preprocess.onnx: an upright RGB picture of any size, or an array, to the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgetl.artifacts import ARRAY, IMAGE, Preprocessing, TensorSpec
from edgetl.errors import ModelError
from edgetl.graph.build import make_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MODES = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}
_CHOICES = {
    "interpolation": tuple(_MODES),
    "resize": ("crop", "squash", "squash_crop"),
    "channel_order": ("rgb", "bgr"),
    "crop_corner": ("even", "down"),
}
_PREFIX = "preprocess/"
_LONGEST = 16
"""Longer sides, in shorter ones, of pictures that are resized whole, as all photographs are."""


def build_preprocess(spec: Preprocessing, output: str, file: Path) -> None:
    """Write the graph `image` `[height, width, 3]` uint8 → `output` `[1, C, H, W]` float32.

    Everything up to the crop is done on uint8 with antialiasing, as Pillow does it: the picture is
    rounded to 0..255 after resizing, and memory stays a quarter of what floats would take. The
    longer side is the integer part of what the aspect ratio gives, as in torchvision. Of a picture more than
    `_LONGEST` times as long as wide only the middle is resized: the crop keeps nothing else, and all of a
    line of 60,000 pixels would become 12 GB.

    Raises:
        ModelError: the specification asks for something that does not exist.
    """
    for field, choices in _CHOICES.items():
        if (value := getattr(spec, field)) not in choices:
            raise ModelError(f"{field} {value!r} is not known: choose from {', '.join(choices)}")
    if spec.channels not in (1, 3) or len(spec.mean) != spec.channels or len(spec.std) != spec.channels:
        raise ModelError(
            f"a picture has 1 or 3 channels, each with a mean and a standard deviation; got {spec.channels} channels, "
            f"mean {list(spec.mean)} and std {list(spec.std)}"
        )
    if spec.resize != "squash" and spec.resize_size < max(spec.height, spec.width):
        raise ModelError(
            f"pictures resized to {spec.resize_size} cannot be cropped to {spec.height}×{spec.width}: "
            "use a crop percentage of at most 1"
        )
    graph = _Builder()
    # channels stay last until the picture is small: what the camera made is not copied once more
    pixels = IMAGE if spec.resize != "crop" else _middle(graph, IMAGE)
    pixels = graph.add("Unsqueeze", [pixels, graph.integers(0)])
    if spec.channels == 1:
        pixels = _luminance(graph, pixels)
    pixels = _resize(graph, pixels, spec)
    if spec.resize != "squash":
        pixels = _center_crop(graph, pixels, spec)
    pixels = graph.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    if spec.channels == 3 and spec.channel_order == "bgr":
        pixels = graph.add("Gather", [pixels, graph.integers(2, 1, 0)], axis=1)
    values = graph.add("Cast", [pixels], to=TensorProto.FLOAT)
    mean, std = (np.array(v, np.float64).reshape(1, -1, 1, 1) for v in (spec.mean, spec.std))
    values = graph.add("Mul", [values, graph.constant((1 / (255 * std)).astype(np.float32))])
    graph.add("Add", [values, graph.constant((-mean / std).astype(np.float32))], output=output)
    model = make_model(
        helper.make_graph(
            graph.nodes,
            "preprocess",
            [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["height", "width", 3])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, spec.channels, spec.height, spec.width])],
            initializer=graph.constants,
        )
    )
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


class _Builder:
    """Nodes and constants under names of their own."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        name = output or f"{_PREFIX}{len(self.nodes)}_{op.lower()}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        name = f"{_PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))


def _luminance(graph: _Builder, pixels: str) -> str:
    """Grey as Pillow computes it: (19595 R + 38470 G + 7471 B + 2^15) / 2^16, ITU-R 601-2 in fixed point.

    All numbers are whole and below 2^24, so that float32 has them exactly, in a third of the time of int32.
    """
    wide = graph.add("Cast", [pixels], to=TensorProto.FLOAT)
    weights = np.array([[19595], [38470], [7471]], np.float32) / (1 << 16)
    weighted = graph.add("MatMul", [wide, graph.constant(weights)])
    rounded = graph.add("Add", [weighted, graph.constant(np.array(0.5, np.float32))])
    return graph.add("Cast", [rounded], to=TensorProto.UINT8)  # which takes the integer part


def _middle(graph: _Builder, pixels: str) -> str:
    """The middle `_LONGEST` squares of a longer picture; as much is left out on both sides, so that nothing moves."""
    size = graph.add("Shape", [pixels], start=0, end=2)
    shorter = graph.add("ReduceMin", [size, graph.integers(0)], keepdims=1)
    most = graph.add("Mul", [shorter, graph.integers(_LONGEST)])
    beyond = graph.add("Max", [graph.add("Sub", [size, most]), graph.integers(0)])
    start = graph.add("Div", [beyond, graph.integers(2)])
    end = graph.add("Sub", [size, start])
    return graph.add("Slice", [pixels, start, end, graph.integers(0, 1)])


def _resize(graph: _Builder, pixels: str, spec: Preprocessing) -> str:
    if spec.resize == "squash":
        sizes = graph.integers(spec.height, spec.width)
    elif spec.resize == "squash_crop":
        longer = max(spec.height, spec.width)
        sizes = graph.integers(spec.height * spec.resize_size // longer, spec.width * spec.resize_size // longer)
    else:
        sizes = _scaled(graph, graph.add("Shape", [pixels], start=1, end=3), spec)
        # the middle of a long picture keeps its place, and the crop's corner its rounding, where four divides what
        # it is shorter by: one less to two more
        whole = _scaled(graph, graph.add("Shape", [IMAGE], start=0, end=2), spec)
        further = graph.add("Add", [graph.add("Sub", [whole, sizes]), graph.integers(1)])
        more = graph.add("Sub", [graph.add("Mod", [further, graph.integers(4)]), graph.integers(1)])
        sizes = graph.add("Add", [sizes, more])
    whole = graph.add("Concat", [graph.integers(1), sizes, graph.integers(spec.channels)], axis=0)
    attributes: dict[str, Any] = {"mode": _MODES[spec.interpolation], "coordinate_transformation_mode": "half_pixel"}
    if spec.interpolation == "nearest":
        attributes["nearest_mode"] = "round_prefer_ceil"  # Pillow takes floor((x + ½) · scale)
    else:
        attributes["antialias"] = 1
    if spec.interpolation == "bicubic":
        attributes["cubic_coeff_a"] = -0.5  # Pillow's; ONNX's default is -0.75
    return graph.add("Resize", [pixels, "", "", whole], **attributes)


def _scaled(graph: _Builder, size: str, spec: Preprocessing) -> str:
    """Height and width after the shorter side has become `resize_size`."""
    shorter = graph.add("ReduceMin", [size, graph.integers(0)], keepdims=1)
    return graph.add("Div", [graph.add("Mul", [size, graph.integers(spec.resize_size)]), shorter])


def _center_crop(graph: _Builder, pixels: str, spec: Preprocessing) -> str:
    size = graph.add("Shape", [pixels], start=1, end=3)
    crop = graph.integers(spec.height, spec.width)
    rest = graph.add("Cast", [graph.add("Sub", [size, crop])], to=TensorProto.FLOAT)
    half = graph.add("Mul", [rest, graph.constant(np.array(0.5, np.float32))])
    whole = graph.add("Round" if spec.crop_corner == "even" else "Floor", [half])
    corner = graph.add("Cast", [whole], to=TensorProto.INT64)
    end = graph.add("Add", [corner, crop])
    return graph.add("Slice", [pixels, corner, end, graph.integers(1, 2)])


def build_array(shape: Sequence[int], output: str, file: Path) -> None:
    """Write the graph `array` `[*shape]` float32 → `output` `[1, *shape]`: it enters as it is."""
    build_unchanged([TensorSpec(ARRAY, tuple(shape))], [output], file)


def build_unchanged(inputs: Sequence[TensorSpec], outputs: Sequence[str], file: Path) -> None:
    """Write a graph that turns each input `[*shape]` into the output `[1, *shape]`."""
    graph = _Builder()
    entering, leaving = [], []
    for spec, output in zip(inputs, outputs, strict=True):
        graph.add("Unsqueeze", [spec.name, graph.integers(0)], output=output)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        shape = ["length" if size == -1 else size for size in spec.shape]
        entering.append(helper.make_tensor_value_info(spec.name, kind, shape))
        leaving.append(helper.make_tensor_value_info(output, kind, [1, *shape]))
    model = make_model(helper.make_graph(graph.nodes, "preprocess", entering, leaving, initializer=graph.constants))
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())
