"""The gradient of maximum pooling; `decompose` rewrites every other pooling."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgetl.graph.rewrite import Builder, Rule, Unsupported


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


RULES: dict[str, Rule] = {"MaxPoolGrad": max_pool_grad}
