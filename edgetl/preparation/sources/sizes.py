"""Graphs whose values are too large to be computed, told by their shapes before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper, shape_inference

from edgetl.errors import ModelError
from edgetl.runtime import machine

_LARGEST_CONSTANT = 2**31
"""Bytes; an ONNX file holds no more, and what a graph computes from constants alone becomes a part of it."""

_SMALL = 1024
"""Elements of a constant up to which it may tell a shape."""


def refuse_too_large(what: str, model: onnx.ModelProto) -> None:
    """Refuse a graph with a value that is too large for an ONNX file or for this machine.

    Args:
        what: names the graph in the error.

    Raises:
        ModelError: it has one.
    """
    skeleton = _skeleton(model)
    given = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    try:
        inferred = shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except Exception:  # what cannot be inferred fails elsewhere, with a sentence of its own
        return
    for node, output, size, constant in _sizes(inferred, given):
        check_size(what, f"{node.op_type} {node.name or output!r}", size, constant=constant)


def check_size(what: str, where: str, size: int, *, constant: bool) -> None:
    """Refuse a value of `size` bytes.

    Args:
        where: names the operator that makes it.
        constant: whether it depends on no input.

    Raises:
        ModelError: it is too large.
    """
    memory = (machine.memory_mb() or math.inf) * 1e6
    if size <= (min(memory, _LARGEST_CONSTANT) if constant else memory):
        return
    kind = "a constant" if constant else "a value"
    raise ModelError(
        f"{what} needs too much memory: its operator {where} makes {kind} of {size / 1e9:,.1f} GB; export it "
        "without that operator, or for smaller inputs"
    )


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without the content of large constants, of which shapes alone are needed."""
    graph = model.graph
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    bare.graph.name = graph.name
    bare.graph.output.extend(graph.output)
    known = {tensor.name for tensor in graph.initializer}
    bare.graph.input.extend(value for value in graph.input if value.name not in known)
    large = []
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > _SMALL or tensor.data_location == TensorProto.EXTERNAL:
            large.append((tensor.name, tensor))
        else:
            bare.graph.initializer.append(tensor)
    for node in graph.node:
        tensors = [attribute.t for attribute in node.attribute if attribute.name == "value" and attribute.HasField("t")]
        if node.op_type == "Constant" and tensors and math.prod(tensors[0].dims) > _SMALL:
            large.append((node.output[0], tensors[0]))
        else:
            bare.graph.node.append(node)
    bare.graph.input.extend(
        helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)) for name, tensor in large
    )
    return bare


def _sizes(graph: onnx.GraphProto, given: set[str]) -> Iterator[tuple[onnx.NodeProto, str, int, bool]]:
    """Yield the node, the name, the bytes, and whether it is a constant, of each value whose shape is known.

    An axis of unknown length counts as 1.

    Args:
        given: names of inputs, to which what depends on them is added.
    """
    found = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}
    for node in graph.node:
        bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        varies = bool(bodies) or not given.isdisjoint(node.input)
        for body in bodies:
            yield from _sizes(body, given | {value.name for value in body.input})
        if varies:
            given.update(node.output)
        for output in node.output:
            kind = found.get(output)
            if kind is None or not kind.elem_type or kind.elem_type == TensorProto.STRING:
                continue
            dims = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in kind.shape.dim]
            width = helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
            yield node, output, math.prod(dims) * width, not varies
