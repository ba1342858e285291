"""The preprocessing of a source that does not say how it takes pictures: read from its graph where that is clear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from edgetl.artifacts import Preprocessing
from edgetl.events import Note, OnEvent
from edgetl.graphs import make_model, node_inputs, prune
from edgetl.preparation.aside import array_of
from edgetl.preparation.run import run_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RANGES = (1.0, 255.0)
_PIXELS = (0.45, 0.25)
"""Mean and standard deviation of pixels of 0..1, roughly, of photographs."""
_SPREAD = (0.05, 80.0)
"""Standard deviations that a network may be given: from 0..1 divided by 5 to 0..255 less a mean."""
_OFF_CENTRE = 2.0
"""Standard deviations by which the mean may lie off zero: it is 1.8 where only the range is scaled."""
_CLEARLY = 3.0

_ADVICE = (
    "If it was trained with others, give --mean, --std and --channel-order (for 0..1: --mean 0 --std 1; for -1..1: "
    f"--mean 0.5 --std 0.5; for 0..255: --mean 0 --std {1 / 255:.8f})"
)

_UNCHANGED = {"Cast", "Dropout", "Identity", "Pad"}
_ARITHMETIC = {"Add", "Div", "Mul", "Sub"}


@dataclass(frozen=True)
class Scaling:
    """What a graph does to pixels before its first layer: `scale * x + shift` for each channel.

    Attributes:
        largest: 1 or 255, the largest value of the pixels that this suits; None if that is not clear.
    """

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    largest: float | None


def settle(
    what: str, model: onnx.ModelProto, own: Preprocessing, overrides: Mapping[str, Any], on_event: OnEvent
) -> Preprocessing:
    """Return the preprocessing for a graph whose source states none, and tell what is assumed.

    Args:
        what: names the source.
        own: what is assumed of a graph that tells nothing, with what the user said.
        overrides: what the user said; a mean or a deviation is never changed.
    """
    said = {key for key, value in overrides.items() if value is not None}
    if {"mean", "std"} <= said:
        return own
    scaling = own_scaling(model, own.channels)
    colours = "grey" if own.channels == 1 else own.channel_order.upper()
    if scaling is not None and scaling.largest is not None and said.isdisjoint({"mean", "std"}):
        largest = f"{scaling.largest:g}"
        on_event(
            Note(f"{what} scales pixels itself, so it gets {colours} values of 0..{largest} as they are. {_ADVICE}")
        )
        return _in_range(own, scaling.largest)
    if scaling is None and own == _in_range(own, 255.0):
        return own
    why = "does not say how it takes pixels"
    if scaling is not None:
        why = "scales pixels itself, but it is not clear whether from 0..1 or from 0..255"
    on_event(
        Note(
            f"{what} {why}. Assumed: {colours} values of 0..1, less the mean {_listed(own.mean)}, divided by the "
            f"standard deviation {_listed(own.std)}. {_ADVICE}"
        )
    )
    return own


def own_scaling(model: onnx.ModelProto, channels: int) -> Scaling | None:
    """Return how a graph with the input `[batch, channels, height, width]` scales it; None if it does not.

    What constants alone do to the input is followed up to the first layer: arithmetic, batch
    normalisation, and the order of axes and channels.
    """
    graph = model.graph
    name, axis = graph.input[0].name, 1
    scale, shift = np.ones(channels), np.zeros(channels)
    while True:
        readers = [node for node in graph.node if name in node_inputs(node) and node.op_type != "Shape"]
        if len(readers) != 1:
            break
        node = readers[0]
        if node.op_type == "Transpose":
            axis = list(helper.get_node_attr_value(node, "perm")).index(axis)
        elif node.op_type == "BatchNormalization" and axis == 1:
            parameters = [_constant(model, item) for item in node.input[1:5]]
            if any(value is None or value.size != channels for value in parameters):
                break
            gain, bias, mean, variance = (np.asarray(value, np.float64) for value in parameters)
            epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
            factor = gain / np.sqrt(variance + epsilon)
            scale, shift = scale * factor, (shift - mean) * factor + bias
        elif node.op_type in _ARITHMETIC:
            value = _per_channel(_constant(model, _other(node, name)), axis, channels)
            if value is None or (node.op_type == "Div" and node.input[0] != name):
                break
            scale, shift = _applied(node.op_type, node.input[0] == name, scale, shift, value)
        elif node.op_type == "Gather" and _axis(node) == axis:
            order = _constant(model, node.input[1])
            if order is None or sorted(order.ravel().tolist()) != list(range(channels)):
                break
            scale, shift = scale[order.ravel()], shift[order.ravel()]
        elif node.op_type not in _UNCHANGED:
            break
        name = node.output[0]
    if (scale == 1).all() and (shift == 0).all():
        return None
    return Scaling(tuple(map(float, scale)), tuple(map(float, shift)), _largest(scale, shift))


def _applied(
    op_type: str, first: bool, scale: NDArray[Any], shift: NDArray[Any], value: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return scale and shift after one more operation with a constant; `first` if the pixels are its first operand."""
    if op_type == "Mul":
        return scale * value, shift * value
    if op_type == "Div":
        return scale / value, shift / value
    if op_type == "Add":
        return scale, shift + value
    return (scale, shift - value) if first else (-scale, value - shift)


def _largest(scale: NDArray[Any], shift: NDArray[Any]) -> float | None:
    """Return the range of pixels that comes out centred and neither too narrow nor too wide, if one does so clearly."""
    off: dict[float, float] = {}
    for largest in _RANGES:
        mean, spread = scale * _PIXELS[0] * largest + shift, np.abs(scale) * _PIXELS[1] * largest
        if (spread >= _SPREAD[0]).all() and (spread <= _SPREAD[1]).all():
            off[largest] = float((np.abs(mean) / spread).max())
    suiting = sorted((value, largest) for largest, value in off.items() if value <= _OFF_CENTRE)
    if not suiting or (len(suiting) > 1 and suiting[1][0] < _CLEARLY * suiting[0][0]):
        return None
    return suiting[0][1]


def _other(node: onnx.NodeProto, name: str) -> str:
    return str(node.input[1] if node.input[0] == name else node.input[0])


def _axis(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 0)


def _constant(model: onnx.ModelProto, name: str) -> NDArray[Any] | None:
    """Return what a value always is; None if it depends on the input."""
    tensor = next((tensor for tensor in model.graph.initializer if tensor.name == name), None)
    if tensor is not None:
        return array_of(tensor)
    part = make_model(model.graph)
    del part.graph.output[:]
    part.graph.output.append(onnx.ValueInfoProto(name=name))
    prune(part.graph)
    inputs = {value.name for value in part.graph.input}
    if any(not inputs.isdisjoint(node_inputs(node)) for node in part.graph.node) or name in inputs:
        return None
    del part.graph.input[:]
    (value,) = run_graph(part, [name], {})
    return value


def _per_channel(value: NDArray[Any] | None, axis: int, channels: int) -> NDArray[Any] | None:
    """Return a constant operand of pixels with four axes as one number for each channel; None if it is no such."""
    if value is None or value.ndim > 4:
        return None
    shape = (1,) * (4 - value.ndim) + value.shape
    if any(size != 1 for i, size in enumerate(shape) if i != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(value.reshape(-1).astype(np.float64), (channels,))


def _in_range(own: Preprocessing, largest: float) -> Preprocessing:
    """Return the preprocessing that gives pixels of 0..largest, as they are."""
    return replace(own, mean=(0.0,) * own.channels, std=(1 / largest,) * own.channels)


def _listed(values: tuple[float, ...]) -> str:
    shown = [f"{value:.4g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else ",".join(shown)
