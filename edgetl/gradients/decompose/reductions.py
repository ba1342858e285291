"""Reductions. Each takes its axes as a second input, as all do from opset 18 on."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from edgetl.graph.rewrite import Builder, Rule, attribute


def reduce_max(node: onnx.NodeProto, op: Builder) -> str:
    """The largest element; its gradient is shared among equals, as torch.amax does."""
    axes = _axes(node, op)
    return (
        _mean_of_equal(op, node.input[0], "ReduceMax", axes, attribute(node, "keepdims", 1)) if axes else node.input[0]
    )


def reduce_min(node: onnx.NodeProto, op: Builder) -> str:
    """The smallest element; its gradient is shared among equals, as torch.amin does."""
    axes = _axes(node, op)
    return (
        _mean_of_equal(op, node.input[0], "ReduceMin", axes, attribute(node, "keepdims", 1)) if axes else node.input[0]
    )


def global_max_pool(node: onnx.NodeProto, op: Builder) -> str:
    """The largest element of each channel; its gradient is shared among equals."""
    x = node.input[0]
    return _mean_of_equal(op, x, "ReduceMax", range(2, len(op.shape(x))), 1)


def reduce_l1(node: onnx.NodeProto, op: Builder) -> str:
    """`Σ |x|`."""
    return _reduced_sum(node, op, op.Abs(node.input[0]))


def reduce_sum_square(node: onnx.NodeProto, op: Builder) -> str:
    """`Σ x²`."""
    return _reduced_sum(node, op, op.Mul(node.input[0], node.input[0]))


def reduce_log_sum(node: onnx.NodeProto, op: Builder) -> str:
    """`ln Σ x`."""
    return op.Log(_reduced_sum(node, op, node.input[0]))


def _reduced_sum(node: onnx.NodeProto, op: Builder, x: str) -> str:
    axes = _axes(node, op)
    return op.ReduceSum(x, axes, keepdims=attribute(node, "keepdims", 1)) if axes else x


def _mean_of_equal(op: Builder, x: str, reduction: str, axes: Sequence[int], keepdims: int) -> str:
    """Average those elements along `axes` that equal what `reduction` finds there.

    No gradient flows through a comparison, so `reduction` does not need one.
    """
    chosen = op.Equal(x, op.add(reduction, x, list(axes), keepdims=1))
    count = op.ReduceSum(op.Cast(chosen, to=onnx.TensorProto.FLOAT), list(axes), keepdims=keepdims)
    return op.Div(op.ReduceSum(op.Where(chosen, x, 0.0), list(axes), keepdims=keepdims), count)


def _axes(node: onnx.NodeProto, op: Builder) -> list[int]:
    """Return the axes to reduce, counted from the front."""
    rank = len(op.shape(node.input[0]))
    given = op.axes(node, 1, rank)
    if given:
        return given
    return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(rank))


RULES: dict[str, Rule] = {
    "GlobalMaxPool": global_max_pool,
    "ReduceL1": reduce_l1,
    "ReduceLogSum": reduce_log_sum,
    "ReduceMax": reduce_max,
    "ReduceMin": reduce_min,
    "ReduceSumSquare": reduce_sum_square,
}
