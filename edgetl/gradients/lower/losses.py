"""Losses: the standard SoftmaxCrossEntropyLoss stays as it is, with its second output log_prob."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from edgetl.graph.rewrite import Builder, Rule, attribute, operand


def softmax_cross_entropy_loss_grad(node: onnx.NodeProto, op: Builder) -> str:
    """SoftmaxCrossEntropyLossGrad(dY, log_prob, label, weight?).

    `log_prob` is `[N, C, …]`, `label` `[N, …]`, `dY` a scalar (or `[N, …]` for reduction `none`):
    `d_logits = dY·w(exp(log_prob) - onehot(label))`, with `w = weight[label]` (or 1), 0 where the
    label is `ignore_index`, and for reduction `mean` divided by `Σ w` (ONNX SoftmaxCrossEntropyLoss-13).
    """
    dy, log_prob, label, weight = node.input[0], node.input[1], node.input[2], operand(node, 3)
    reduction = attribute(node, "reduction", "mean")
    (classes,) = op.sizes(log_prob, [1])
    ignored = attribute(node, "ignore_index", None)
    row = None
    if ignored is not None:
        counts = op.Not(op.Equal(label, np.array(ignored, _integers(op, label))))
        label = op.Where(counts, label, np.array(0, _integers(op, label)))
        row = op.Cast(counts, to=TensorProto.FLOAT)
    if weight:
        chosen = op.Gather(weight, label)
        row = op.Mul(row, chosen) if row else chosen
    one_hot = op.OneHot(label, np.array(classes), np.array([0, 1], np.float32), axis=1)
    difference = op.Sub(op.Exp(log_prob), one_hot)
    if reduction == "none":
        dy = op.Unsqueeze(dy, [1])
    elif reduction == "mean":
        total = op.ReduceSum(row, keepdims=0) if row else op.Cast(op.Size(label), to=TensorProto.FLOAT)
        dy = op.Reciprocal(total) if _is_one(op, dy) else op.Div(dy, total)
    factor = op.Mul(dy, op.Unsqueeze(row, [1])) if row else dy
    return op.Mul(difference, factor)


def _integers(op: Builder, label: str) -> type[np.signedinteger]:
    return np.int32 if op.element_type(label) == TensorProto.INT32 else np.int64


def _is_one(op: Builder, name: str) -> bool:
    value = op.constant(name)
    return value is not None and bool((value == 1).all())


RULES: dict[str, Rule] = {"SoftmaxCrossEntropyLossGrad": softmax_cross_entropy_loss_grad}
