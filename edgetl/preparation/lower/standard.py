"""Standard operators that onnxruntime-training writes in more steps than it takes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from edgetl.preparation.decompose.builder import Builder, Rule


def mul(node: onnx.NodeProto, op: Builder) -> str | None:
    """`dY·Cast(mask)` as one Where (gradients of Clip, Max, Min and Abs)."""
    for value, factor in (node.input, reversed(node.input)):
        cast = op.producers.get(factor)
        if cast is None or cast.op_type != "Cast" or op.element_type(cast.input[0]) != TensorProto.BOOL:
            continue
        if op.element_type(value) == TensorProto.FLOAT:
            return op.Where(_mask(op, cast.input[0]), value, 0.0)
    return None


def reshape(node: onnx.NodeProto, op: Builder) -> str | None:
    """A target that is computed from the batch's size alone, as a constant with -1 for the axis that varies."""
    x, target = node.input
    size = op.dims(target)
    varying = [i for i, n in enumerate(size) if not isinstance(n, int)]
    if op.constant(target) is not None or len(varying) != 1 or 0 in size:
        return None
    return op.Reshape(x, np.array([n if isinstance(n, int) else -1 for n in size], np.int64))


def _mask(op: Builder, mask: str) -> str:
    """Replace `low ≤ x ≤ high` by `x = clip(x, low, high)`, where that is in the graph: one comparison, not three."""
    both = op.producers.get(mask)
    if both is None or both.op_type != "And":
        return mask
    sides = [op.producers.get(name) for name in both.input]
    by_type = {side.op_type: side for side in sides if side is not None}
    low, high = by_type.get("GreaterOrEqual"), by_type.get("LessOrEqual")
    if low is None or high is None or low.input[0] != high.input[0]:
        return mask
    clipped = [low.input[0], low.input[1], high.input[1]]
    for node in op.producers.values():
        if node.op_type == "Clip" and list(node.input) == clipped:
            return op.Equal(low.input[0], node.output[0])
    return mask


RULES: dict[str, Rule] = {"Mul": mul, "Reshape": reshape}
