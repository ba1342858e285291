"""Normalisations. Statistics that a network brings along stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgetl.gradients.decompose.linear import along_axis
from edgetl.graph.rewrite import Array, Builder, Rule, attribute, attributes, operand


def batch_normalization(node: onnx.NodeProto, op: Builder) -> str:
    """`xs + t` with `s = scale/√(var + ε)` and `t = bias - mean·s` (Ioffe & Szegedy 2015, inference).

    onnxruntime-training turns every BatchNormalization, also where no gradient passes, into one that
    uses, and updates, the statistics of the batch. Where scale and bias are constant, so are s and t.
    """
    x, scale, bias, mean, variance = node.input
    rank = len(op.shape(x))
    channels = [-1, *([1] * (rank - 2))]
    epsilon = attribute(node, "epsilon", 1e-5)
    if attribute(node, "training_mode", 0):
        # statistics of the batch, in an exported network: a standardised weight; nobody reads the running ones
        axes = [0, *range(2, rank)]
        y = _standardised(op, x, axes, epsilon)
        return op.Add(op.Mul(y, op.Reshape(scale, channels)), op.Reshape(bias, channels))
    fixed_mean, fixed_variance = op.constant(mean), op.constant(variance)
    if fixed_mean is None or fixed_variance is None:
        # computed ones, in an exported network: of a standardised weight
        deviation = op.Sqrt(op.Add(op.Reshape(variance, channels), np.float32(epsilon)))
        y = op.Div(op.Sub(x, op.Reshape(mean, channels)), deviation)
        return op.Add(op.Mul(y, op.Reshape(scale, channels)), op.Reshape(bias, channels))
    inverse = 1 / np.sqrt(fixed_variance.astype(np.float64) + epsilon)
    fixed_scale, fixed_bias = op.constant(scale), op.constant(bias)
    if fixed_scale is not None and fixed_bias is not None:
        s: Array = fixed_scale * inverse
        return op.Add(op.Mul(x, s.reshape(channels)), (fixed_bias - fixed_mean * s).reshape(channels))
    product = op.Mul(scale, inverse)
    shift = op.Sub(bias, op.Mul(product, fixed_mean))
    return op.Add(op.Mul(x, op.Reshape(product, channels)), op.Reshape(shift, channels))


def layer_normalization(node: onnx.NodeProto, op: Builder) -> Sequence[str] | None:
    """Itself with its bias and all three outputs: the registered gradient reads mean and 1/deviation."""
    x, scale, bias = node.input[0], node.input[1], operand(node, 2)
    if bias and all(node.output) and len(node.output) == 3:
        return None
    zeros = np.zeros(op.sizes(scale, range(len(op.shape(scale)))), np.float32)
    return op.add_many("LayerNormalization", 3, x, scale, bias or zeros, **attributes(node))


def instance_normalization(node: onnx.NodeProto, op: Builder) -> str:
    """`(x - mean)/√(var + ε) · scale + bias` over the spatial axes (Ulyanov et al. 2016)."""
    x, scale, bias = node.input
    rank = len(op.shape(x))
    y = _standardised(op, x, list(range(2, rank)), attribute(node, "epsilon", 1e-5))
    channels = [-1, *([1] * (rank - 2))]
    return op.Add(op.Mul(y, op.Reshape(scale, channels)), op.Reshape(bias, channels))


def group_normalization(node: onnx.NodeProto, op: Builder) -> str:
    """InstanceNormalization of each group's channels together (Wu & He 2018); scale and bias per group (opset 18)."""
    x, scale, bias = node.input
    shape = op.shape(x)
    groups = attribute(node, "num_groups", None)
    y = _standardised(op, op.Reshape(x, [0, groups, -1]), [2], attribute(node, "epsilon", 1e-5))
    y = op.Add(op.Mul(y, op.Reshape(scale, [-1, 1])), op.Reshape(bias, [-1, 1]))
    return op.Reshape(y, [0, *op.sizes(x, range(1, len(shape)))])


def mean_variance_normalization(node: onnx.NodeProto, op: Builder) -> str:
    """`(x - mean)/(√var + 1e-9)` (ONNX MeanVarianceNormalization-13)."""
    x = node.input[0]
    axes = list(attribute(node, "axes", [0, 2, 3]))
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    deviation = op.Sqrt(op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1))
    return op.Div(centred, op.Add(deviation, 1e-9))


def lp_normalization(node: onnx.NodeProto, op: Builder) -> str:
    """`x` divided by its 1- or 2-norm along an axis."""
    x, axes = node.input[0], [attribute(node, "axis", -1)]
    if attribute(node, "p", 2) == 1:
        return op.Div(x, op.ReduceSum(op.Abs(x), axes, keepdims=1))
    return op.Div(x, op.ReduceL2(x, axes, keepdims=1))


def lrn(node: onnx.NodeProto, op: Builder) -> str:
    """`x / (k + α/n · Σ x²)^β` over n neighbouring channels (Krizhevsky et al. 2012); the sum is a banded matrix."""
    x = node.input[0]
    size = attribute(node, "size", None)
    (channels,) = op.sizes(x, [1])
    distance = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    band = ((distance >= -((size - 1) // 2)) & (distance <= size // 2)).astype(np.float32)
    squares = along_axis(op, op.Mul(x, x), band, 1, len(op.shape(x)))
    base = op.Add(op.Mul(squares, attribute(node, "alpha", 1e-4) / size), attribute(node, "bias", 1.0))
    return op.Div(x, op.Pow(base, attribute(node, "beta", 0.75)))


def _standardised(op: Builder, x: str, axes: Sequence[int], epsilon: float) -> str:
    centred = op.Sub(x, op.ReduceMean(x, list(axes), keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), list(axes), keepdims=1)
    return op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))


RULES: dict[str, Rule] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": lrn,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
}
