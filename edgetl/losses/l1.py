"""Mean absolute error of the standardised numbers, which outliers move less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.losses.rule import LossRule, mean_over_outputs

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes


def _each(op: Nodes, z: str, t: str) -> str:
    """`(1/K) Σₖ |zₖ - tₖ|`; its slope at 0 is taken as 0."""
    return mean_over_outputs(op, op.Abs(op.Sub(z, t)))


L1 = LossRule("l1", "regression", _each)
