"""Focal loss (Lin et al. 2017): samples that are right already count less, for classes that are rare or hard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.losses.rule import LossRule, sum_over_outputs

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes


def _each(op: Nodes, z: str, t: str) -> str:
    """`-Σₖ tₖ·(1 - pₖ)²·log pₖ` with `p = softmax(z)`: the paper's γ = 2, which it found best."""
    log = op.LogSoftmax(z, axis=1)
    rest = op.Sub(1.0, op.Exp(log))
    return op.Neg(sum_over_outputs(op, op.Mul(op.Mul(t, op.Mul(rest, rest)), log)))


FOCAL = LossRule("focal", "classification", _each)
