"""Shapes, scales, sums and products: training-only spellings of standard operators."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from edgetl.gradients.lower.builder import unbroadcast
from edgetl.graph.rewrite import Builder, Rule, Unsupported, attribute, attributes, operand


def scale(node: onnx.NodeProto, op: Builder) -> str:
    """Scale(X, scale): `X·scale`, or with `scale_down` `X/scale`."""
    x, factor = node.input
    down = attribute(node, "scale_down", 0)
    value = op.constant(factor)
    if value is not None:
        return op.Mul(x, float(1 / value.item() if down else value.item()))
    if op.element_type(factor) != TensorProto.FLOAT:
        factor = op.Cast(factor, to=TensorProto.FLOAT)
    return op.Div(x, factor) if down else op.Mul(x, factor)


def split_training(node: onnx.NodeProto, op: Builder) -> list[str]:
    """SplitTraining(X, lengths): Split."""
    return op.add_many("Split", len(node.output), *node.input, axis=attribute(node, "axis", 0))


def concat_training(node: onnx.NodeProto, op: Builder) -> list[str]:
    """ConcatTraining(X…): Concat, and the inputs' lengths along `axis`."""
    axis = attribute(node, "axis", 0)
    made = [op.Concat(*node.input, axis=axis)]
    if len(node.output) > 1 and node.output[1]:
        rank = len(op.shape(node.input[0]))
        start = axis % rank
        made.append(op.Concat(*(op.Shape(x, start=start, end=start + 1) for x in node.input), axis=0))
    return made


def reduce_sum_training(node: onnx.NodeProto, op: Builder) -> str:
    """ReduceSumTraining(X, axes): ReduceSum-13."""
    return op.ReduceSum(*node.input, **attributes(node))


def broadcast_gradient_args(node: onnx.NodeProto, op: Builder) -> list[str]:
    """BroadcastGradientArgs(a_shape, b_shape): the axes over which each was broadcast; folded where it is known."""
    raise Unsupported("which axes are broadcast depends on the batch")


def div_grad(node: onnx.NodeProto, op: Builder) -> list[str]:
    """DivGrad(dY, A, B): `dA = dY/B`, `dB = -dA·A/B`, each summed over the axes along which it was broadcast."""
    dy, a, b = node.input
    wanted = [*map(bool, node.output), False]
    shape, divisor = op.shape(dy), op.constant(b)
    quotient = op.Mul(dy, 1 / divisor) if divisor is not None else op.Div(dy, b)
    da = unbroadcast(op, quotient, shape, op.shape(a)) if wanted[0] else ""
    # A/B is the forward node, which the runtime computes once
    db = unbroadcast(op, op.Mul(quotient, op.Div(a, b)), shape, op.shape(b)) if wanted[1] else ""
    return [da, op.Neg(db) if db else ""]


def fused_mat_mul(node: onnx.NodeProto, op: Builder) -> str:
    """FusedMatMul(A, B): `α·A·B`, either with its last two axes swapped, or its first moved in front of the last."""
    a, b = (_turned(node, op, name, side) for name, side in zip(node.input, "AB", strict=True))
    alpha = attribute(node, "alpha", 1.0)
    product = op.MatMul(a, b)
    return op.Mul(product, alpha) if alpha != 1 else product


def trilu(node: onnx.NodeProto, op: Builder) -> str:
    """Trilu of com.microsoft: that of ONNX since opset 14."""
    return op.Trilu(node.input[0], operand(node, 1), **attributes(node))


def _turned(node: onnx.NodeProto, op: Builder, name: str, side: str) -> str:
    if attribute(node, f"transBatch{side}", 0):
        raise Unsupported("it turns the batch axes")
    if not attribute(node, f"trans{side}", 0):
        return name
    rank = len(op.shape(name))
    return op.Transpose(name, perm=[*range(rank - 2), rank - 1, rank - 2])


RULES: dict[str, Rule] = {
    "BroadcastGradientArgs": broadcast_gradient_args,
    "ConcatTraining": concat_training,
    "DivGrad": div_grad,
    "FusedMatMul": fused_mat_mul,
    "ReduceSumTraining": reduce_sum_training,
    "Scale": scale,
    "SplitTraining": split_training,
    "Trilu": trilu,
}
