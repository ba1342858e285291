"""What every value of a training graph is: its type, its shape, and what it holds if that never changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.graph.build import node_inputs
from edgetl.graph.execute import Shapes, types_of
from edgetl.graph.rewrite import Array, Dim, Shape

BATCHES = (2, 3)
LARGEST_CONSTANT = 1 << 20
"""Bytes; what is larger stays a computation."""

_INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}

_SHAPES_ONLY = {"Shape", "Size"}


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
    onnxruntime-training. The numbers do not matter: floats are drawn, integers are 0. Of most values no more than
    the shape is asked for, as soon as they are there: all of them at once would take gigabytes.
    """
    graph = model.graph
    names = list(dict.fromkeys(output for node in graph.node for output in node.output if output))
    fixed = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in fixed]
    free, types = _independent(graph), types_of(model, names)
    sizes = [name for name in names if name in free and types[name] in _INTEGERS]
    probe = Shapes(model, names, sizes)
    shapes, contents = [], []
    for batch in BATCHES:
        feeds = {value.name: _drawn(value, batch) for value in inputs}
        found, whole = probe.run(feeds)
        shapes.append({**{name: array.shape for name, array in (*fixed.items(), *feeds.items())}, **found})
        contents.append(whole)
        types.update((name, helper.np_dtype_to_tensor_dtype(array.dtype)) for name, array in feeds.items())
    del probe
    types.update((name, helper.np_dtype_to_tensor_dtype(array.dtype)) for name, array in fixed.items())
    small = [
        n for n in names if n in free and n not in contents[0] and _nbytes(types[n], shapes[0][n]) <= LARGEST_CONSTANT
    ]
    probe = Shapes(_making(model, small), (), small)
    for batch, known in zip(BATCHES, contents, strict=True):
        _, numbers = probe.run({value.name: _drawn(value, batch) for value in inputs})
        known.update({**fixed, **numbers})
    return {
        name: _value(types[name], shapes[0][name], shapes[1][name], contents[0].get(name), contents[1].get(name))
        for name in shapes[0]
    }


def _nbytes(element_type: int, shape: Sequence[int]) -> int:
    return math.prod(shape) * helper.tensor_dtype_to_np_dtype(element_type).itemsize


def _making(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return the part of a graph that makes these values."""
    needed: set[str] = set(names)
    nodes: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            nodes.insert(0, node)
            needed.update(node_inputs(node))
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    part = helper.make_graph(nodes, "part", list(model.graph.input), [], initializer=initializers)
    return helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)


def _drawn(value: onnx.ValueInfoProto, batch: int) -> Array:
    tensor = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else batch for dim in tensor.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if tensor.elem_type == TensorProto.FLOAT:
        # positive, so that no root or logarithm fails
        return np.random.default_rng(0).uniform(0.01, 0.1, shape).astype(np.float32)
    return np.zeros(shape, dtype)


def _independent(graph: onnx.GraphProto) -> set[str]:
    """Return the values that depend on initializers and on shapes alone."""
    free = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if node.op_type in _SHAPES_ONLY or free.issuperset(node_inputs(node)):
            free.update(node.output)
        elif node.op_type == "ConcatTraining":
            free.update(node.output[1:])  # the lengths of its inputs
    return free


def _value(
    element_type: int, two: Sequence[int], three: Sequence[int], content: Array | None, other: Array | None
) -> Value:
    """What was seen for two samples and for three; the content of what depends on no input."""
    shape = _sizes(two, three)
    if content is None or other is None:
        return Value(element_type, shape)
    if content.shape == other.shape and np.array_equal(content, other):
        return Value(element_type, shape, constant=content if content.nbytes <= LARGEST_CONSTANT else None)
    if content.dtype == np.int64 and content.ndim == 1 and content.shape == other.shape:
        return Value(element_type, shape, elements=_sizes(content.tolist(), other.tolist()))
    return Value(element_type, shape)


def _sizes(two: Sequence[int], three: Sequence[int]) -> Shape:
    return tuple(_size(int(a), int(b)) for a, b in zip(two, three, strict=True))


def _size(two: int, three: int) -> Dim:
    slope = three - two
    offset = two - 2 * slope
    if slope == 0:
        return two
    return ("" if slope == 1 else f"{slope}*") + "batch" + (f"{offset:+d}" if offset else "")
