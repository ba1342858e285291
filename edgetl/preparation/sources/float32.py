"""16-bit numbers in a graph, as 32-bit numbers: a step is too small for 16 bits, and processors compute in 32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgetl.preparation.aside import array_of

_NARROW = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_TYPES = {"to", "dtype", "output_dtype"}
"""Attributes that name the type of an output."""

TOLERANCE = 0.02
"""By which scores in 16 bits may differ from those in 32, relative to the largest: 8 to 11 bits, after many layers."""


def in_float32(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Return a graph that computes throughout in float32 where it held float16 or bfloat16.

    Returns:
        The graph, and whether it held any.
    """
    if not any(map(_is_narrow, _tensors(model.graph))) and not _names_narrow(model.graph):
        return model, False
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in _tensors(result.graph):
        if _is_narrow(tensor):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(array_of(tensor).astype(np.float32), name))
    for graph in _graphs(result.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in _NARROW:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPES and attribute.i in _NARROW:
                    attribute.i = TensorProto.FLOAT
    return result, True


def _is_narrow(tensor: TensorProto) -> bool:
    return tensor.data_type in _NARROW


def _names_narrow(graph: onnx.GraphProto) -> bool:
    """Return whether an input or an operator's attribute names such a type."""
    kinds = [value.type.tensor_type.elem_type for value in graph.input]
    nodes = (node for item in _graphs(graph) for node in item.node)
    kinds += [attribute.i for node in nodes for attribute in node.attribute if attribute.name in _TYPES]
    return not _NARROW.isdisjoint(kinds)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    for item in _graphs(graph):
        yield from item.initializer
        for node in item.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
