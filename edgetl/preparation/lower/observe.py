"""What every value of a training graph is: its type, its shape, and what it holds if that never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl import runtime
from edgetl.graphs import node_inputs
from edgetl.preparation.decompose.builder import Array, Dim, Shape

BATCHES = (2, 3)
LARGEST_CONSTANT = 1 << 20
"""Bytes; what is larger stays a computation."""

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
    onnxruntime-training. The numbers do not matter: floats are drawn, integers are 0.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    names = list(dict.fromkeys(output for node in graph.node for output in node.output if output))
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = runtime.open_session(probe.SerializeToString(), threads=runtime.available_cores(), optimize=False)
    fixed = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    runs = []
    for batch in BATCHES:
        feeds = {value.name: _drawn(value, batch) for value in graph.input if value.name not in fixed}
        found = {**fixed, **feeds}
        if names:
            found.update(zip(names, session.run(names, feeds), strict=True))
        runs.append(found)
    free = _independent(graph)
    return {name: _value(runs[0][name], runs[1][name], free=name in free) for name in runs[0]}


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


def _value(two: Array, three: Array, *, free: bool) -> Value:
    element_type = helper.np_dtype_to_tensor_dtype(two.dtype)
    shape = _sizes(two.shape, three.shape)
    if not free:
        return Value(element_type, shape)
    if two.shape == three.shape and np.array_equal(two, three):
        return Value(element_type, shape, constant=two if two.nbytes <= LARGEST_CONSTANT else None)
    if two.dtype == np.int64 and two.ndim == 1 and two.shape == three.shape:
        return Value(element_type, shape, elements=_sizes(two.tolist(), three.tolist()))
    return Value(element_type, shape)


def _sizes(two: Sequence[int], three: Sequence[int]) -> Shape:
    return tuple(_size(int(a), int(b)) for a, b in zip(two, three, strict=True))


def _size(two: int, three: int) -> Dim:
    slope = three - two
    offset = two - 2 * slope
    if slope == 0:
        return two
    return ("" if slope == 1 else f"{slope}*") + "batch" + (f"{offset:+d}" if offset else "")
