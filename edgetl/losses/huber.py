"""Huber loss (Huber 1964): squared for small errors of the standardised numbers, absolute for large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.losses.rule import LossRule, mean_over_outputs

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes


def _each(op: Nodes, z: str, t: str) -> str:
    """`(1/K) Σₖ e²/2` where `e = |zₖ - tₖ| ≤ 1`, else `e - 1/2`: as `m²/2 + (e - m)` with `m = min(e, 1)`."""
    error = op.Abs(op.Sub(z, t))
    small = op.Sub(1.0, op.Relu(op.Sub(1.0, error)))
    return mean_over_outputs(op, op.Add(op.Mul(op.Mul(small, small), 0.5), op.Relu(op.Sub(error, 1.0))))


HUBER = LossRule("huber", "regression", _each)
