"""Standard operators that onnxruntime-training writes in more steps than it takes."""

from __future__ import annotations

import numpy as np
import onnx

from edgetl.preparation.decompose.builder import Builder, Rule


def and_(node: onnx.NodeProto, op: Builder) -> str | None:
    """Clip's mask `low ≤ x ≤ high` as `x = clip(x, low, high)`: one comparison, not three."""
    sides = [op.producers.get(name) for name in node.input]
    by_type = {side.op_type: side for side in sides if side is not None}
    low, high = by_type.get("GreaterOrEqual"), by_type.get("LessOrEqual")
    if low is None or high is None or low.input[0] != high.input[0]:
        return None
    clipped = [low.input[0], low.input[1], high.input[1]]
    for clip in op.producers.values():
        if clip.op_type == "Clip" and list(clip.input) == clipped:
            return op.Equal(low.input[0], clip.output[0])
    return None


def reshape(node: onnx.NodeProto, op: Builder) -> str | None:
    """A target that is computed from the batch's size alone, as a constant with -1 for the axis that varies."""
    x, target = node.input
    size = op.dims(target)
    varying = [i for i, n in enumerate(size) if not isinstance(n, int)]
    if op.constant(target) is not None or len(varying) != 1 or 0 in size or -1 in size:
        return None
    return op.Reshape(x, np.array([n if isinstance(n, int) else -1 for n in size], np.int64))


RULES: dict[str, Rule] = {"And": and_, "Reshape": reshape}
