"""Activations. In every formula dY is the gradient of the output Y, dX that of the input X; all have one shape."""

from __future__ import annotations

import math

import onnx

from edgetl.graph.rewrite import Builder, Rule, attribute, operand

ROOT_2 = math.sqrt(2)
ROOT_2_OVER_PI = math.sqrt(2 / math.pi)


def relu_grad(node: onnx.NodeProto, op: Builder) -> str:
    """ReluGrad(dY, Y): `dX = dY where Y > 0, else 0`."""
    dy, y = node.input
    return op.Mul(dy, _where_positive(op, y))


def leaky_relu_grad(node: onnx.NodeProto, op: Builder) -> str:
    """LeakyReluGrad(dY, Y): `dX = dY where Y > 0, else α·dY`, for α > 0 (Maas et al. 2013)."""
    dy, y = node.input
    alpha = attribute(node, "alpha", 0.01)
    return op.Mul(dy, op.Add(op.Mul(_where_positive(op, y), 1 - alpha), alpha))


def sigmoid_grad(node: onnx.NodeProto, op: Builder) -> str:
    """SigmoidGrad(dY, Y): `dX = dY·Y(1 - Y)`."""
    dy, y = node.input
    return op.Mul(dy, op.Mul(y, op.Sub(1.0, y)))


def tanh_grad(node: onnx.NodeProto, op: Builder) -> str:
    """TanhGrad(dY, Y): `dX = dY(1 - Y²)`."""
    dy, y = node.input
    return op.Mul(dy, op.Sub(1.0, op.Mul(y, y)))


def gelu(node: onnx.NodeProto, op: Builder) -> str:
    """Gelu(X): `Y = X/2·(1 + erf(X/√2))` (Hendrycks & Gimpel 2016)."""
    return _gelu(op, node.input[0])


def bias_gelu(node: onnx.NodeProto, op: Builder) -> str:
    """BiasGelu(X, B): `Gelu(X + B)`, B along the last axis."""
    return _gelu(op, op.Add(*node.input))


def gelu_grad(node: onnx.NodeProto, op: Builder) -> str:
    """GeluGrad(dY, X): `dX = dY(Φ(X) + X·φ(X))`, the normal distribution and its density."""
    dy, x = node.input
    return _gelu_grad(op, dy, x)


def bias_gelu_grad(node: onnx.NodeProto, op: Builder) -> str:
    """BiasGeluGrad_dX(dY, X, B): GeluGrad at `X + B`."""
    dy, x, bias = node.input
    return _gelu_grad(op, dy, op.Add(x, bias))


def fast_gelu(node: onnx.NodeProto, op: Builder) -> str:
    """FastGelu(X, B?): `x/2·(1 + tanh(√(2/π)(x + 0.044715x³)))` at `x = X + B` (Hendrycks & Gimpel 2016)."""
    x, bias = node.input[0], operand(node, 1)
    x = op.Add(x, bias) if bias else x
    return op.Mul(op.Mul(x, 0.5), op.Add(_fast_gelu_tanh(op, x), 1.0))


def fast_gelu_grad(node: onnx.NodeProto, op: Builder) -> str:
    """FastGeluGrad(dY, X), BiasFastGeluGrad_dX(dY, X, B): the derivative of FastGelu at `x = X + B`.

    With `t = tanh(c(x + 0.044715x³))`, `c = √(2/π)`:
    `dX = dY((1 + t)/2 + x/2·(1 - t²)·c(1 + 0.134145x²))`.
    """
    dy, x, bias = node.input[0], node.input[1], operand(node, 2)
    x = op.Add(x, bias) if bias else x
    t = _fast_gelu_tanh(op, x)
    inner = op.Add(op.Mul(op.Mul(x, x), 3 * 0.044715 * ROOT_2_OVER_PI), ROOT_2_OVER_PI)
    slope = op.Mul(op.Mul(x, inner), op.Sub(1.0, op.Mul(t, t)))
    return op.Mul(dy, op.Mul(op.Add(op.Add(t, 1.0), slope), 0.5))


def quick_gelu(node: onnx.NodeProto, op: Builder) -> str:
    """QuickGelu(X): `Y = X·σ(αX)` (Hendrycks & Gimpel 2016; α = 1 is SiLU)."""
    x = node.input[0]
    return op.Mul(x, _quick_gelu_sigmoid(node, op, x))


def quick_gelu_grad(node: onnx.NodeProto, op: Builder) -> str:
    """QuickGeluGrad(dY, X): with `s = σ(αX)`, `dX = dY·s(1 + αX(1 - s))`."""
    dy, x = node.input
    alpha = attribute(node, "alpha", 1.702)
    s = _quick_gelu_sigmoid(node, op, x)
    inner = op.Mul(x, op.Sub(1.0, s))
    if alpha != 1:
        inner = op.Mul(inner, alpha)
    return op.Mul(op.Mul(dy, s), op.Add(inner, 1.0))


def softmax_grad(node: onnx.NodeProto, op: Builder) -> str:
    """SoftmaxGrad_13(dY, Y): `dX = (dY - Σ dY·Y)·Y`, the sum along `axis`."""
    dy, y = node.input
    total = op.ReduceSum(op.Mul(dy, y), [attribute(node, "axis", -1)], keepdims=1)
    return op.Mul(op.Sub(dy, total), y)


def log_softmax_grad(node: onnx.NodeProto, op: Builder) -> str:
    """LogSoftmaxGrad_13(dY, Y): `dX = dY - exp(Y)·Σ dY`, the sum along `axis`."""
    dy, y = node.input
    total = op.ReduceSum(dy, [attribute(node, "axis", -1)], keepdims=1)
    return op.Sub(dy, op.Mul(op.Exp(y), total))


def dropout_grad(node: onnx.NodeProto, op: Builder) -> str:
    """DropoutGrad(dY, mask, ratio?, training_mode?): `dX = dY/(1 - ratio) where mask, else 0`."""
    dy, mask, ratio = node.input[0], node.input[1], operand(node, 2)
    kept = op.Div(dy, op.Sub(1.0, ratio)) if ratio else op.Mul(dy, 2.0)  # Dropout-13: the ratio is 0.5 if not given
    return op.Where(mask, kept, 0.0)


def _where_positive(op: Builder, y: str) -> str:
    """Return 1 where y is positive, else 0: `max(0, min(1, 2¹⁰⁰y))`.

    One pass; onnxruntime takes twice as long for Greater and Cast, and six times for Where.
    """
    return op.HardSigmoid(y, alpha=2.0**100, beta=0.0)


def _gelu(op: Builder, x: str) -> str:
    # in the form that onnxruntime's optimizer knows and computes in one pass
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, ROOT_2)), 1.0)), 0.5)


def _gelu_grad(op: Builder, dy: str, x: str) -> str:
    # Mul, not the forward's Div: sharing that node would keep the runtime from computing Gelu in one pass
    scaled = op.Mul(x, 1 / ROOT_2)
    distribution = op.Mul(op.Add(op.Erf(scaled), 1.0), 0.5)
    density = op.Mul(op.Exp(op.Neg(op.Mul(scaled, scaled))), 1 / math.sqrt(2 * math.pi))
    return op.Mul(dy, op.Add(distribution, op.Mul(x, density)))


def _fast_gelu_tanh(op: Builder, x: str) -> str:
    inner = op.Add(op.Mul(op.Mul(x, x), 0.044715 * ROOT_2_OVER_PI), ROOT_2_OVER_PI)
    return op.Tanh(op.Mul(x, inner))


def _quick_gelu_sigmoid(node: onnx.NodeProto, op: Builder, x: str) -> str:
    alpha = attribute(node, "alpha", 1.702)
    return op.Sigmoid(x if alpha == 1 else op.Mul(x, alpha))


RULES: dict[str, Rule] = {
    "BiasFastGeluGrad_dX": fast_gelu_grad,
    "BiasGelu": bias_gelu,
    "BiasGeluGrad_dX": bias_gelu_grad,
    "DropoutGrad": dropout_grad,
    "FastGelu": fast_gelu,
    "FastGeluGrad": fast_gelu_grad,
    "Gelu": gelu,
    "GeluGrad": gelu_grad,
    "LeakyReluGrad": leaky_relu_grad,
    "LogSoftmaxGrad_13": log_softmax_grad,
    "QuickGelu": quick_gelu,
    "QuickGeluGrad": quick_gelu_grad,
    "ReluGrad": relu_grad,
    "SigmoidGrad": sigmoid_grad,
    "SoftmaxGrad_13": softmax_grad,
    "TanhGrad": tanh_grad,
}
