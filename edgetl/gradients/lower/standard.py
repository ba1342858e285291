"""Standard operators that onnxruntime-training writes in more steps than it takes, or that run faster otherwise."""

from __future__ import annotations

import numpy as np
import onnx

from edgetl.gradients.lower import convolution
from edgetl.graph.rewrite import Builder, Rule


def and_(node: onnx.NodeProto, op: Builder) -> str | None:
    """Clip's mask `low ≤ x ≤ high` as `low < clip(x) < high`.

    Read from the output, x need not be kept for it, and the runtime can clip within the convolution
    that makes x. At the bounds themselves the gradient is 0, as that of torch's relu6, hardsigmoid and
    hardswish is, where onnxruntime-training's is 1.
    """
    sides = [op.producers.get(name) for name in node.input]
    by_type = {side.op_type: side for side in sides if side is not None}
    low, high = by_type.get("GreaterOrEqual"), by_type.get("LessOrEqual")
    if low is None or high is None or low.input[0] != high.input[0]:
        return None
    clipped = [low.input[0], low.input[1], high.input[1]]
    for clip in op.producers.values():
        if clip.op_type == "Clip" and list(clip.input) == clipped:
            y: str = clip.output[0]
            return op.And(op.Greater(y, low.input[1]), op.Less(y, high.input[1]))
    return None


def clip(node: onnx.NodeProto, op: Builder) -> str | None:
    """`clip(αx + β, 0, 1)`, what `decompose` makes of HardSigmoid and HardSwish, as the one operator it was."""
    scaled, shift = _and_constant(op, node.input[0], "Add")
    x, slope = _and_constant(op, scaled, "Mul")
    bounds = [op.constant(name) if name else None for name in node.input[1:]]
    if x is None or slope is None or shift is None or bounds != [0, 1]:
        return None
    return op.HardSigmoid(x, alpha=slope, beta=shift)


def reshape(node: onnx.NodeProto, op: Builder) -> str | None:
    """A target that is computed from the batch's size alone, as a constant with -1 for the axis that varies."""
    x, target = node.input
    size = op.dims(target)
    varying = [i for i, n in enumerate(size) if not isinstance(n, int)]
    if op.constant(target) is not None or len(varying) != 1 or 0 in size or -1 in size:
        return None
    return op.Reshape(x, np.array([n if isinstance(n, int) else -1 for n in size], np.int64))


def _and_constant(op: Builder, name: str | None, op_type: str) -> tuple[str | None, float | None]:
    """Return what a node of a type and a constant scalar make `name` of, and the scalar."""
    node = op.producers.get(name or "")
    if node is None or node.op_type != op_type:
        return None, None
    value = op.constant(node.input[1])
    return (node.input[0], float(value)) if value is not None and value.ndim == 0 else (None, None)


RULES: dict[str, Rule] = {"And": and_, "Clip": clip, "Conv": convolution.conv, "Reshape": reshape}
