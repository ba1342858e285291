"""Gradients of pooling."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgetl.preparation.decompose.builder import Array, Builder, Rule, Unsupported, attribute
from edgetl.preparation.decompose.linear import along_axis


def max_pool_grad(node: onnx.NodeProto, op: Builder) -> str:
    """MaxPoolGrad(dY, Indices): `dX[Indices[j]] += dY[j]`, an index counting through the whole of X."""
    dy, indices = node.input
    _, *size = op.shape(node.output[0])
    if not all(isinstance(n, int) for n in size):
        raise Unsupported("its input's size varies")
    shape = op.Concat(op.Shape(dy, start=0, end=1), np.array([n for n in size if isinstance(n, int)], np.int64), axis=0)
    total = op.ReduceProd(shape, keepdims=1)
    zeros = op.ConstantOfShape(total, value=numpy_helper.from_array(np.zeros(1, np.float32)))
    flat = op.ScatterElements(zeros, op.Reshape(indices, [-1]), op.Reshape(dy, [-1]), axis=0, reduction="add")
    return op.Reshape(flat, shape)


def average_pool_grad(node: onnx.NodeProto, op: Builder) -> str:
    """AveragePoolGrad(dY): along each axis the transposed pooling matrix, `dX = Aᵀ dY` with `Y = A X`.

    A window's count is a product over the axes, so the axes separate.
    """
    value = node.input[0]
    rank = len(op.shape(value))
    dims = rank - 2
    if attribute(node, "auto_pad", "NOTSET").startswith("SAME"):
        raise Unsupported("its pads are not spelled out")
    pads = attribute(node, "pads", [0] * 2 * dims)
    strides = attribute(node, "strides", [1] * dims)
    for i, kernel in enumerate(attribute(node, "kernel_shape", [])):
        (size,), (out,) = op.sizes(node.output[0], [2 + i]), op.sizes(value, [2 + i])
        counted = bool(attribute(node, "count_include_pad", 0))
        matrix = _pooling_matrix(size, out, kernel, strides[i], pads[i], pads[dims + i], counted)
        value = along_axis(op, value, matrix.T, 2 + i, rank)
    return value


def _pooling_matrix(size: int, out: int, kernel: int, stride: int, before: int, after: int, counted: bool) -> Array:
    """Return `[out, size]`; with `counted` the padding counts as elements of a window, but nothing beyond it does."""
    matrix = np.zeros((out, size), np.float64)
    for row in range(out):
        start, end = row * stride - before, row * stride - before + kernel
        inside = slice(max(start, 0), min(end, size))
        count = min(end, size + after) - start if counted else inside.stop - inside.start
        matrix[row, inside] = 1 / count
    return matrix.astype(np.float32)


RULES: dict[str, Rule] = {"AveragePoolGrad": average_pool_grad, "MaxPoolGrad": max_pool_grad}
