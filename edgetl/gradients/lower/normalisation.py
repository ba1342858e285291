"""Normalisations."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from edgetl.graph.rewrite import Builder, Rule, attribute


def layer_normalization_grad(node: onnx.NodeProto, op: Builder) -> list[str]:
    """LayerNormalizationGrad(dY, X, scale, mean, inv_std) (Ba et al. 2016).

    With `x̂ = (X - mean)·inv_std`, `g = dY·scale` and means over the axes from `axis` on:
    `dX = inv_std(g - mean(g) - x̂·mean(g·x̂))`; `dscale = Σ dY·x̂` and `dbias = Σ dY` over the axes
    before it.
    """
    dy, x, scale, mean, inv_std = node.input
    normalised = op.Mul(op.Sub(x, mean), inv_std)
    return _layer_normalization_grad(node, op, normalised, dy, scale, inv_std, centred=True)


def simplified_layer_normalization(node: onnx.NodeProto, op: Builder) -> list[str]:
    """SimplifiedLayerNormalization(X, scale): `Y = X·inv_std·scale`, `inv_std = 1/√(mean(X²) + ε)` (RMSNorm)."""
    x, scale = node.input
    rank = len(op.shape(x))
    axes = list(range(attribute(node, "axis", -1) % rank, rank))
    square = op.ReduceMean(op.Mul(x, x), axes, keepdims=1)
    inv_std = op.Reciprocal(op.Sqrt(op.Add(square, attribute(node, "epsilon", 1e-5))))
    return [op.Mul(op.Mul(x, inv_std), scale), inv_std]


def simplified_layer_normalization_grad(node: onnx.NodeProto, op: Builder) -> list[str]:
    """SimplifiedLayerNormalizationGrad(dY, X, scale, inv_std) (Zhang & Sennrich 2019).

    With `x̂ = X·inv_std` and `g = dY·scale`: `dX = inv_std(g - x̂·mean(g·x̂))`; `dscale = Σ dY·x̂`.
    """
    dy, x, scale, inv_std = node.input
    return _layer_normalization_grad(node, op, op.Mul(x, inv_std), dy, scale, inv_std, centred=False)


def batch_norm_internal(node: onnx.NodeProto, op: Builder) -> list[str]:
    """BatchNormInternal(X, scale, B, mean, var), with the statistics of the batch (Ioffe & Szegedy 2015).

    `Y = (X - m)·inv_std·scale + B`, `inv_std = 1/√(v + ε)`, m and v per channel over all other axes;
    `running = momentum·old + (1 - momentum)·batch`, of the population's variance.
    """
    x, scale, bias, old_mean, old_variance = node.input
    rank = len(op.shape(x))
    axes, channels = [0, *range(2, rank)], [1, -1, *([1] * (rank - 2))]
    mean = op.ReduceMean(x, axes, keepdims=1)
    centred = op.Sub(x, mean)
    variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    inv_std = op.Reciprocal(op.Sqrt(op.Add(variance, attribute(node, "epsilon", 1e-5))))
    y = op.Add(op.Mul(centred, op.Mul(inv_std, op.Reshape(scale, channels))), op.Reshape(bias, channels))
    momentum = attribute(node, "momentum", 0.9)

    def running(old: str, new: str) -> str:
        return op.Add(op.Mul(old, momentum), op.Mul(op.Reshape(new, [-1]), 1 - momentum))

    return [
        y,
        running(old_mean, mean),
        running(old_variance, variance),
        op.Reshape(mean, [-1]),
        op.Reshape(inv_std, [-1]),
    ]


def batch_normalization_grad(node: onnx.NodeProto, op: Builder) -> list[str]:
    """BatchNormalizationGrad(dY, X, scale, saved_mean, saved_inv_std).

    With `x̂ = (X - mean)·inv_std`, sums and means per channel over all other axes:
    `dscale = Σ dY·x̂`, `dB = Σ dY`, `dX = scale·inv_std(dY - mean(dY) - x̂·mean(dY·x̂))`.
    """
    dy, x, scale, mean, inv_std = node.input
    rank = len(op.shape(x))
    axes, channels = [0, *range(2, rank)], [1, -1, *([1] * (rank - 2))]
    mean, inv_std = op.Reshape(mean, channels), op.Reshape(inv_std, channels)
    normalised = op.Mul(op.Sub(x, mean), inv_std)
    product = op.Mul(dy, normalised)
    inner = op.Sub(
        op.Sub(dy, op.ReduceMean(dy, axes, keepdims=1)), op.Mul(normalised, op.ReduceMean(product, axes, keepdims=1))
    )
    dx = op.Mul(inner, op.Mul(op.Reshape(scale, channels), inv_std))
    return [dx, op.ReduceSum(product, axes, keepdims=0), op.ReduceSum(dy, axes, keepdims=0)]


def _layer_normalization_grad(
    node: onnx.NodeProto, op: Builder, normalised: str, dy: str, scale: str, inv_std: str, *, centred: bool
) -> list[str]:
    rank = len(op.shape(node.input[1]))
    axis = attribute(node, "axis", -1) % rank
    before, inner = list(range(axis)), list(range(axis, rank))
    g = op.Mul(dy, scale)
    rest = op.Mul(normalised, op.ReduceMean(op.Mul(g, normalised), inner, keepdims=1))
    if centred:
        rest = op.Add(rest, op.ReduceMean(g, inner, keepdims=1))
    dx = op.Mul(op.Sub(g, rest), inv_std)
    made = [dx, _summed(op, op.Mul(dy, normalised), before)]
    return [*made, _summed(op, dy, before)] if centred else made


def _summed(op: Builder, x: str, axes: Sequence[int]) -> str:
    return op.ReduceSum(x, axes, keepdims=0) if axes else x


RULES: dict[str, Rule] = {
    "BatchNormInternal": batch_norm_internal,
    "BatchNormalizationGrad": batch_normalization_grad,
    "LayerNormalizationGrad": layer_normalization_grad,
    "SimplifiedLayerNormalization": simplified_layer_normalization,
    "SimplifiedLayerNormalizationGrad": simplified_layer_normalization_grad,
}
