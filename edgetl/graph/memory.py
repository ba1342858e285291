"""How much memory a graph takes: it is walked node by node."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
from onnx import helper

from edgetl.artifacts import GraphMemory
from edgetl.graph.build import node_inputs
from edgetl.graph.rewrite import Dim
from edgetl.graph.values import Value, observe

_NO_COPY = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
"""onnxruntime lets these share their input's buffer."""

_IN_PLACE = {
    *("Add", "Sub", "Mul", "Div", "Relu", "Sigmoid", "Tanh", "Clip", "Neg", "Exp", "Sqrt", "Erf", "Abs", "Log"),
    *("Softmax", "LogSoftmax", "HardSigmoid", "Cast", "Reciprocal"),
}
"""onnxruntime writes these over an input that nobody else reads and that is as large."""

SMALL, LARGE = 8, 16


def graph_memory(model: onnx.ModelProto, *, length: int = 1) -> GraphMemory:
    """Return what a graph holds at once at most: inputs, outputs, weights, and the values that are still to be read.

    A value takes memory from the node that makes it to the last that reads it, in the order of the
    graph. What grows with the batch is what the peaks of two batches differ by.

    Args:
        length: of the inputs' axes that differ from sample to sample, as the length of texts may.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for value in sized.graph.input:
        for dim in value.type.tensor_type.shape.dim[1:]:
            if not dim.HasField("dim_value"):
                dim.dim_value = length
    values = observe(sized)
    peaks = {batch: _peak(sized.graph, values, batch) for batch in (SMALL, LARGE)}
    per_sample = (peaks[LARGE] - peaks[SMALL]) / (LARGE - SMALL)
    fixed = peaks[SMALL] - SMALL * per_sample
    return GraphMemory(fixed_mb=fixed / 1e6, per_sample_mb=per_sample / 1e6, nodes=len(model.graph.node))


def _peak(graph: onnx.GraphProto, values: Mapping[str, Value], batch: int) -> int:
    sizes = {name: nbytes(value, batch) for name, value in values.items()}
    bound = {value.name for value in (*graph.input, *graph.output)} | {tensor.name for tensor in graph.initializer}
    always = sum(sizes[name] for name in bound)
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node_inputs(node):
            readers[name] = readers.get(name, 0) + 1
    owner: dict[str, str] = {}
    holders: dict[str, int] = {}
    live = peak = 0
    for node in graph.node:
        inputs = [name for name in node_inputs(node) if name]
        for output in node.output:
            if not output or output in bound:
                continue
            source = _shared(node, inputs, output, sizes, bound, owner, holders)
            if source is not None:
                owner[output] = source
                holders[source] += readers.get(output, 0)
            else:
                owner[output] = output
                holders[output] = readers.get(output, 0)
                live += sizes[output]
        peak = max(peak, live)
        for name in inputs:
            if name in owner:
                holder = owner[name]
                holders[holder] -= 1
                if holders[holder] == 0:
                    live -= sizes[holder]
    return always + peak


def _shared(
    node: onnx.NodeProto,
    inputs: list[str],
    output: str,
    sizes: Mapping[str, int],
    bound: set[str],
    owner: Mapping[str, str],
    holders: Mapping[str, int],
) -> str | None:
    """Return whose buffer an output takes over; None if it needs its own."""
    if node.op_type in _NO_COPY and inputs[0] in owner:
        return owner[inputs[0]]
    if node.op_type in _IN_PLACE:
        for name in inputs:
            if name in owner and holders[owner[name]] == 1 and sizes[owner[name]] == sizes[output]:
                return owner[name]
    return None


def nbytes(value: Value, batch: int) -> int:
    """Return how many bytes an observed value takes for a batch."""
    width = helper.tensor_dtype_to_np_dtype(value.element_type).itemsize
    return width * math.prod(_length(dim, batch) for dim in value.shape)


def _length(dim: Dim, batch: int) -> int:
    """Return a size as `observe` writes it: a number, or `3*batch+1`."""
    if isinstance(dim, int):
        return dim
    assert dim is not None, "observed sizes are known"
    factor, _, rest = dim.partition("batch")
    return int(factor.rstrip("*") or 1) * batch + int(rest or 0)
