"""Cross-entropy of each label by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.losses.rule import LossRule, axis, mean_over_outputs

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes


def _each(op: Nodes, z: str, t: str) -> str:
    """`-(1/K) Σₖ tₖ·log σ(zₖ) + (1 - tₖ)·log σ(-zₖ)`: a cross-entropy of the pairs `(z/2, -z/2)`.

    The usual form `max(z, 0) - z·t + log(1 + exp(-|z|))` has the wrong gradient at z = 0, where a new
    head begins.
    """
    last = axis(2)
    pairs = op.Concat(op.Unsqueeze(op.Mul(z, 0.5), last), op.Unsqueeze(op.Mul(z, -0.5), last), axis=2)
    targets = op.Concat(op.Unsqueeze(t, last), op.Unsqueeze(op.Sub(1.0, t), last), axis=2)
    each = op.ReduceSum(op.Mul(targets, op.LogSoftmax(pairs, axis=2)), last, keepdims=0)
    return op.Neg(mean_over_outputs(op, each))


BINARY_CROSS_ENTROPY = LossRule("binary_cross_entropy", "multilabel", _each)
