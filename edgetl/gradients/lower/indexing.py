"""Gradients of what picks elements: each puts dY back where the forward operator took X from, 0 elsewhere.

Where the same element was taken twice its gradients add up. ScatterElements, unlike ScatterND, adds them
in order in onnxruntime, whatever the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from edgetl.gradients.decompose.linear import along_axis
from edgetl.graph.rewrite import Array, Builder, Dim, Rule, Unsupported, attribute, operand

LARGEST_MATRIX = 1 << 18
"""Elements of a constant selection matrix; beyond it ScatterElements is used."""


def gather_grad(node: onnx.NodeProto, op: Builder) -> str:
    """GatherGrad(shape, indices, dY): along `axis`, `dX[indices[j]] += dY[j]`."""
    shape, indices, dy = node.input
    size = op.dims(shape)
    axis = attribute(node, "axis", 0) % len(size)
    length, picked = size[axis], op.constant(indices)
    indexed = op.shape(indices)
    if len(indexed) != 1:
        # one axis for all indices
        fixed = [n for n in indexed if isinstance(n, int)]
        count = math.prod(fixed) if len(fixed) == len(indexed) else None
        dy = _reshaped(op, dy, [*size[:axis], count, *size[axis + 1 :]])
    if picked is not None and isinstance(length, int):
        made = _put_back(op, dy, axis, np.asarray(picked, np.int64).ravel() % length, length, len(size))
        if made is not None:
            return made
    flat = op.Reshape(indices, [*([1] * axis), -1, *([1] * (len(size) - axis - 1))])
    return op.ScatterElements(_zeros(op, shape), op.Expand(flat, op.Shape(dy)), dy, axis=axis, reduction="add")


def gather_elements_grad(node: onnx.NodeProto, op: Builder) -> str:
    """GatherElementsGrad(dY, shape, indices): along `axis`, `dX[…, indices[…, j, …], …] += dY[…, j, …]`."""
    dy, shape, indices = node.input
    return op.ScatterElements(_zeros(op, shape), indices, dy, axis=attribute(node, "axis", 0), reduction="add")


def gather_nd_grad(node: onnx.NodeProto, op: Builder) -> str:
    """GatherNDGrad(shape, indices, dY): `dX[indices[j]] += dY[j]`, an index being the last axis of `indices`.

    The indexed axes are merged into one of `Σ index·stride`.
    """
    shape, indices, dy = node.input
    if attribute(node, "batch_dims", 0):
        raise Unsupported("it has batch axes")
    size = op.dims(shape)
    (depth,) = op.sizes(indices, [len(op.shape(indices)) - 1])
    inner = [n for n in size[1:depth] if isinstance(n, int)]
    if len(inner) != depth - 1:
        raise Unsupported("of the axes indexed, more than the first vary")
    strides = np.array([math.prod(inner[i:]) for i in range(depth)], np.int64)
    # as matrices [indexed, rest], one of whose sizes may vary
    rest = [n for n in size[depth:] if isinstance(n, int)]
    if len(rest) == len(size) - depth:
        rows = picked = [-1, math.prod(rest)]
    else:
        rows, picked = ([_product(sizes), -1] for sizes in (size[:depth], op.shape(indices)[:-1]))
    # an index may count from the back
    first = op.Slice(shape, [0], [depth])
    indices = op.Where(op.Less(indices, np.array(0)), op.Add(indices, first), indices)
    flat = op.Reshape(op.ReduceSum(op.Mul(indices, strides), [-1], keepdims=0), [-1, 1])
    updates = op.Reshape(dy, picked)
    zeros = op.Reshape(_zeros(op, shape), rows)
    spread = op.Expand(flat, op.Shape(updates))
    return op.Reshape(op.ScatterElements(zeros, spread, updates, axis=0, reduction="add"), shape)


def slice_grad(node: onnx.NodeProto, op: Builder) -> str:
    """SliceGrad(dY, shape, starts, ends, axes?, steps?): dY between zeros."""
    dy, shape = node.input[:2]
    size = op.dims(shape)
    rank = len(size)
    starts, ends = op.ints(node.input[2]), op.ints(node.input[3])
    axes = [axis % rank for axis in op.ints(node.input[4])] if operand(node, 4) else list(range(len(starts)))
    steps = op.ints(node.input[5]) if operand(node, 5) else [1] * len(starts)
    pads = np.zeros((2, rank), np.int64)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = size[axis]
        if not isinstance(length, int):
            if start == 0 and end >= np.iinfo(np.int32).max and step == 1:
                continue
            raise Unsupported("it cuts the batch")
        stop = None if step < 0 and end < -length else end
        taken = np.arange(length)[start:stop:step]
        if step == 1:
            pads[:, axis] = taken[0], length - 1 - taken[-1]
        else:
            made = _put_back(op, dy, axis, taken, length, rank)
            assert made is not None, "a slice takes no element twice"
            dy = made
    return op.Pad(dy, pads.ravel()) if pads.any() else dy


def _put_back(op: Builder, dy: str, axis: int, picked: Array, length: int, rank: int) -> str | None:
    """Return dX for constant indices of a 1-D pick along `axis`; None if that is not worth it."""
    if len(np.unique(picked)) < len(picked):
        if length * len(picked) > LARGEST_MATRIX:
            return None
        matrix = np.zeros((length, len(picked)), np.float32)
        matrix[picked, np.arange(len(picked))] = 1
        return along_axis(op, dy, matrix, axis, rank)
    if (np.diff(picked) == 1).all():
        pads = np.zeros((2, rank), np.int64)
        pads[:, axis] = picked[0], length - 1 - picked[-1]
        return op.Pad(dy, pads.ravel()) if pads.any() else dy
    where = np.full(length, len(picked), np.int64)  # behind the last element: a zero
    where[picked] = np.arange(len(picked))
    if len(picked) < length:
        pads = np.zeros((2, rank), np.int64)
        pads[1, axis] = 1
        dy = op.Pad(dy, pads.ravel())
    return op.Gather(dy, where, axis=axis)


def _product(sizes: Sequence[Dim]) -> int:
    known = [n for n in sizes if isinstance(n, int)]
    if len(known) != len(sizes):
        raise Unsupported("both the axes indexed and the others vary")
    return math.prod(known)


def _zeros(op: Builder, shape: str) -> str:
    return op.ConstantOfShape(shape, value=numpy_helper.from_array(np.zeros(1, np.float32)))


def _reshaped(op: Builder, x: str, size: Sequence[Dim]) -> str:
    varying = [n for n in size if not isinstance(n, int)]
    if len(varying) > 1:
        raise Unsupported("more than one axis varies")
    return op.Reshape(x, [n if isinstance(n, int) else -1 for n in size])


RULES: dict[str, Rule] = {
    "GatherElementsGrad": gather_elements_grad,
    "GatherGrad": gather_grad,
    "GatherNDGrad": gather_nd_grad,
    "SliceGrad": slice_grad,
}
