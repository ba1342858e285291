"""Cross-entropy with one class for each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.losses.rule import LossRule, sum_over_outputs

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes


def _each(op: Nodes, z: str, t: str) -> str:
    """`-Σₖ tₖ·log softmax(z)ₖ`."""
    return op.Neg(sum_over_outputs(op, op.Mul(t, op.LogSoftmax(z, axis=1))))


CROSS_ENTROPY = LossRule("cross_entropy", "classification", _each)
