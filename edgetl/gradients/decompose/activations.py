"""Activations. Each gradient is torch's, at the points where branches meet too, unless a rule says otherwise."""

from __future__ import annotations

import math

import onnx

from edgetl.graph.rewrite import Builder, Rule, attribute, operand


def hard_sigmoid(node: onnx.NodeProto, op: Builder) -> str:
    """`max(0, min(1, αx + β))` (ONNX HardSigmoid-6)."""
    return _hard_sigmoid(op, node.input[0], attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5))


def hard_swish(node: onnx.NodeProto, op: Builder) -> str:
    """`x · max(0, min(1, x/6 + 1/2))` (ONNX HardSwish-14)."""
    x = node.input[0]
    return op.Mul(x, _hard_sigmoid(op, x, 1 / 6, 0.5))


def softplus(node: onnx.NodeProto, op: Builder) -> str:
    """`ln(1 + eˣ)`, written so that it does not overflow."""
    return _softplus(op, node.input[0])


def mish(node: onnx.NodeProto, op: Builder) -> str:
    """`x · tanh(softplus(x))` (Misra 2019)."""
    return op.Mul(node.input[0], op.Tanh(_softplus(op, node.input[0])))


def elu(node: onnx.NodeProto, op: Builder) -> str:
    """`x` where positive, else `α(eˣ - 1)` (Clevert et al. 2015)."""
    return _elu(op, node.input[0], attribute(node, "alpha", 1.0))


def celu(node: onnx.NodeProto, op: Builder) -> str:
    """`x` where positive, else `α(exp(x/α) - 1)` (Barron 2017)."""
    alpha = attribute(node, "alpha", 1.0)
    return _elu(op, node.input[0], alpha, inner=alpha)


def selu(node: onnx.NodeProto, op: Builder) -> str:
    """`γ · elu(x, α)` (Klambauer et al. 2017; the defaults are ONNX Selu-6's)."""
    alpha, gamma = (
        attribute(node, "alpha", 1.67326319217681884765625),
        attribute(node, "gamma", 1.05070102214813232421875),
    )
    return op.Mul(_elu(op, node.input[0], alpha), gamma)


def prelu(node: onnx.NodeProto, op: Builder) -> str:
    """`x` where positive, else `slope · x` (He et al. 2015)."""
    x, slope = node.input
    return op.Where(op.Greater(x, 0.0), x, op.Mul(x, slope))


def thresholded_relu(node: onnx.NodeProto, op: Builder) -> str:
    """`x` where greater than α, else 0 (Konda et al. 2014)."""
    x = node.input[0]
    return op.Where(op.Greater(x, attribute(node, "alpha", 1.0)), x, 0.0)


def softsign(node: onnx.NodeProto, op: Builder) -> str:
    """`x / (1 + |x|)`."""
    x = node.input[0]
    return op.Div(x, op.Add(op.Abs(x), 1.0))


def clip(node: onnx.NodeProto, op: Builder) -> str | None:
    """`min(max(x, low), high)`: where a bound trains, Clip's registered gradient misses it."""
    low, high = operand(node, 1), operand(node, 2)
    if op.carries.isdisjoint({low, high}):
        return None
    x: str = node.input[0]
    if low:
        x = op.Max(x, low)
    return op.Min(x, high) if high else x


def dropout(node: onnx.NodeProto, op: Builder) -> str:
    """The identity: a network that was exported for inference drops nothing.

    The registered gradient is wrong where training mode is given and false.
    """
    x: str = node.input[0]
    return x


def tan(node: onnx.NodeProto, op: Builder) -> str:
    """`sin(x) / cos(x)`."""
    return op.Div(op.Sin(node.input[0]), op.Cos(node.input[0]))


def sinh(node: onnx.NodeProto, op: Builder) -> str:
    """`(eˣ - e⁻ˣ) / 2`."""
    x = node.input[0]
    return op.Mul(op.Sub(op.Exp(x), op.Exp(op.Neg(x))), 0.5)


def cosh(node: onnx.NodeProto, op: Builder) -> str:
    """`(eˣ + e⁻ˣ) / 2`."""
    x = node.input[0]
    return op.Mul(op.Add(op.Exp(x), op.Exp(op.Neg(x))), 0.5)


def gelu(node: onnx.NodeProto, op: Builder) -> str | None:
    """`x/2 · (1 + tanh(√(2/π)(x + 0.044715x³)))` (Hendrycks & Gimpel 2016), if `approximate` asks for it.

    The registered gradient ignores the attribute and is erf's.
    """
    if attribute(node, "approximate", "none") != "tanh":
        return None
    x = node.input[0]
    cubic = op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), 0.044715))
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(op.Mul(cubic, math.sqrt(2 / math.pi))), 1.0))


def _hard_sigmoid(op: Builder, x: str, alpha: float, beta: float) -> str:
    return op.Clip(op.Add(op.Mul(x, alpha), beta), 0.0, 1.0)


def _softplus(op: Builder, x: str) -> str:
    # Max, not Relu: its gradient at 0 is split between both sides, which gives softplus its 1/2 there
    return op.Add(op.Max(x, 0.0), op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), 1.0)))


def _elu(op: Builder, x: str, alpha: float, inner: float = 1.0) -> str:
    # without the bound, exp overflows where it is not selected, and 0 · inf enters the gradient
    negative = op.Clip(x, None, 0.0)
    if inner != 1.0:
        negative = op.Mul(negative, 1 / inner)
    return op.Where(op.Greater(x, 0.0), x, op.Mul(op.Sub(op.Exp(negative), 1.0), alpha))


RULES: dict[str, Rule] = {
    "Celu": celu,
    "Clip": clip,
    "Cosh": cosh,
    "Dropout": dropout,
    "Elu": elu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Mish": mish,
    "PRelu": prelu,
    "Selu": selu,
    "Sinh": sinh,
    "Softplus": softplus,
    "Softsign": softsign,
    "Tan": tan,
    "ThresholdedRelu": thresholded_relu,
}
