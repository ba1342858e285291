"""The optimizer's arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgetl.artifacts import Optimizer
from edgetl.preparation.decompose.builder import Builder


@dataclass(frozen=True)
class Rates:
    """What all parameters share in a step: scalars in the graph.

    Attributes:
        decay: `1 - η·wd`.
        size: `η·√(1 - β₂ᵗ)/(1 - β₁ᵗ)`.
        epsilon: `ε·√(1 - β₂ᵗ)`.
    """

    decay: str
    size: str
    epsilon: str


def adamw_rates(op: Builder, learning_rate: str, step: str, settings: Optimizer) -> Rates:
    """Compute a step's scalars from the learning rate η and the step t ≥ 1; the powers in float64, as torch does."""
    t = op.Cast(step, to=TensorProto.DOUBLE)
    first, second = (op.Sub(_double(op, 1.0), op.Pow(_double(op, beta), t)) for beta in settings.betas)
    root = op.Sqrt(second)
    return Rates(
        decay=op.Sub(1.0, op.Mul(learning_rate, settings.weight_decay)),
        size=op.Mul(learning_rate, op.Cast(op.Div(root, first), to=TensorProto.FLOAT)),
        epsilon=op.Cast(op.Mul(root, _double(op, settings.epsilon)), to=TensorProto.FLOAT),
    )


def adamw(node: onnx.NodeProto, op: Builder, *, rates: Rates, settings: Optimizer) -> tuple[str, str, str]:
    """AdamW(p, g, m, v) → new p, m and v (Loshchilov & Hutter 2019, algorithm 2, in torch's order).

    `m ← β₁m + (1 - β₁)g`, `v ← β₂v + (1 - β₂)g²`, and with `m̂ = m/(1 - β₁ᵗ)`, `v̂ = v/(1 - β₂ᵗ)`:
    `p ← p(1 - η·wd) - η·m̂/(√v̂ + ε)`. The last fraction is extended by `√(1 - β₂ᵗ)`, so that each
    correction is a scalar.
    """
    # onnxruntime goes through a tensor that ends in axes of length 1, as 1×1 kernels do, element by
    # element where the other operand is a scalar: fifty times as slow as through a vector
    parameter, gradient, first, second = (op.Reshape(name, [-1]) for name in node.input)
    beta1, beta2 = settings.betas
    m = op.Add(op.Mul(first, beta1), op.Mul(gradient, 1 - beta1))
    v = op.Add(op.Mul(second, beta2), op.Mul(op.Mul(gradient, gradient), 1 - beta2))
    change = op.Mul(op.Div(m, op.Add(op.Sqrt(v), rates.epsilon)), rates.size)
    kept = op.Mul(parameter, rates.decay) if settings.weight_decay else parameter
    shape = op.sizes(node.input[0], range(len(op.shape(node.input[0]))))
    p, m, v = (op.Reshape(value, shape) for value in (op.Sub(kept, change), m, v))
    return p, m, v


def _double(op: Builder, value: float) -> str:
    # a float operand of the builder would become float32
    return op.Constant(value=numpy_helper.from_array(np.array(value, np.float64)))
