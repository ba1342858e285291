"""Forms of Split, Slice, Where and Transpose that lead to a wrong gradient, or to none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgetl.graph.rewrite import Builder, Rule, attribute, operand


def split(node: onnx.NodeProto, op: Builder) -> Sequence[str] | None:
    """A Slice for each output that carries a gradient, if some do not: the registered gradient forgets their place."""
    if all(name in op.carries for name in node.output):
        return None
    x = node.input[0]
    axis = attribute(node, "axis", 0) % len(op.shape(x))
    if operand(node, 1):
        lengths = op.ints(node.input[1])
    else:
        (size,) = op.sizes(x, [axis])
        length = -(-size // len(node.output))
        lengths = [min(length, size - length * i) for i in range(len(node.output))]
    ends = np.cumsum(lengths).tolist()
    return [op.Slice(x, [end - n], [end], [axis]) for end, n in zip(ends, lengths, strict=True)]


def slice_(node: onnx.NodeProto, op: Builder) -> str | None:
    """A Gather for each axis that is walked backwards, where SliceGrad fails."""
    steps = op.constant(node.input[4]) if operand(node, 4) else None
    if steps is None or (steps > 0).all():
        return None
    x: str = node.input[0]
    starts, ends = op.ints(node.input[1]), op.ints(node.input[2])
    axes = op.axes(node, 3, len(op.shape(x))) or range(len(starts))
    for start, end, axis, step in zip(starts, ends, axes, steps.tolist(), strict=True):
        (size,) = op.sizes(node.input[0], [axis])
        # ONNX's -1 counts from the back even as an end; what lies before the first element is beyond -size
        stop = None if step < 0 and end < -size else end
        x = op.Gather(x, np.arange(size)[start:stop:step].astype(np.int64), axis=axis)
    return x


def where(node: onnx.NodeProto, op: Builder) -> str | None:
    """Branches expanded to the output's shape: the registered gradient does not undo their broadcasting."""
    condition, *branches = node.input
    narrow = [b for b in branches if b in op.carries and not op.same_shape(b, node.output[0])]
    if not narrow:
        return None
    # the shape of the unexpanded result; no gradient flows through Shape
    full = op.Shape(op.Where(condition, *branches))
    return op.Where(condition, *(op.Expand(b, full) if b in narrow else b for b in branches))


def transpose(node: onnx.NodeProto, op: Builder) -> str | None:
    """The axes in reverse, spelled out; nothing where they stay in order.

    The registered gradient wants `perm`. A later fusion takes each Transpose of a matrix before a
    Gemm for one that swaps its axes.
    """
    x: str = node.input[0]
    perm = attribute(node, "perm", None)
    if perm is None:
        return op.transposed(x, list(reversed(range(len(op.shape(x))))))
    return x if list(perm) == sorted(perm) else None


def cast_like(node: onnx.NodeProto, op: Builder) -> str:
    """Cast to the type of the second input."""
    return op.Cast(node.input[0], to=op.element_type(node.input[1]))


RULES: dict[str, Rule] = {
    "CastLike": cast_like,
    "Slice": slice_,
    "Split": split,
    "Transpose": transpose,
    "Where": where,
}
