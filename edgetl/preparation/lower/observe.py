"""What every value of a training graph is: its type, its shape, and what it holds if that never changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgetl.preparation.aside import array_of
from edgetl.preparation.decompose.builder import Array, Dim, Shape
from edgetl.preparation.run import Seen, independent, walk

BATCHES = (2, 3)
LARGEST_CONSTANT = 1 << 20
"""Bytes; what is larger stays a computation."""


@dataclass(frozen=True)
class Value:
    """What was seen of a value.

    Attributes:
        element_type: a `TensorProto.DataType`.
        shape: a number, or for what grows with the batch a name; equal names are equal sizes.
        constant: its content, if it depends neither on an input nor on the batch.
        elements: of a vector of ints that depends on the batch alone, in the form of `shape`.
    """

    element_type: int
    shape: Shape
    constant: Array | None = None
    elements: Shape | None = None


def observe(model: onnx.ModelProto) -> dict[str, Value]:
    """Run a graph for batches of 2 and of 3 and look at all its values.

    ONNX's shape inference does not know the training operators, so the graph runs in
    onnxruntime-training. The numbers do not matter: integers are 0.
    """
    graph = model.graph
    free, fixed = independent(graph), {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in fixed]
    ran: dict[Any, list[Seen]] = {}
    two, three = (
        {
            name: replace(seen, content=None) if name not in free or _is_large(seen) else seen
            for name, seen in walk(model, {value.name: _zeros(value, batch) for value in inputs}, ran)
        }
        for batch in BATCHES
    )
    values = {name: _value(seen, three[name]) for name, seen in two.items()}
    return {**{name: _constant(tensor) for name, tensor in fixed.items()}, **values}


def _is_large(seen: Seen) -> bool:
    return isinstance(seen.content, list) or getattr(seen.content, "nbytes", 0) > LARGEST_CONSTANT


def _constant(tensor: onnx.TensorProto) -> Value:
    shape = tuple(tensor.dims)
    size = math.prod(shape) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return Value(tensor.data_type, shape, constant=array_of(tensor) if size <= LARGEST_CONSTANT else None)


def _zeros(value: onnx.ValueInfoProto, batch: int) -> Array:
    tensor = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else batch for dim in tensor.shape.dim]
    return np.zeros(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))


def _value(two: Seen, three: Seen) -> Value:
    """What was seen for two samples and for three; the content of what depends on no input."""
    shape, content, other = _sizes(two.shape, three.shape), two.content, three.content
    if content is None or other is None:
        return Value(two.element_type, shape)
    if content.shape == other.shape and np.array_equal(content, other):
        return Value(two.element_type, shape, constant=content)
    if content.dtype == np.int64 and content.ndim == 1 and content.shape == other.shape:
        return Value(two.element_type, shape, elements=_sizes(content.tolist(), other.tolist()))
    return Value(two.element_type, shape)


def _sizes(two: Sequence[int], three: Sequence[int]) -> Shape:
    return tuple(_size(int(a), int(b)) for a, b in zip(two, three, strict=True))


def _size(two: int, three: int) -> Dim:
    slope = three - two
    offset = two - 2 * slope
    if slope == 0:
        return two
    return ("" if slope == 1 else f"{slope}*") + "batch" + (f"{offset:+d}" if offset else "")
