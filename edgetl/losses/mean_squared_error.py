"""Mean squared error of the standardised numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.losses.rule import LossRule, mean_over_outputs

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes


def _each(op: Nodes, z: str, t: str) -> str:
    """`(1/K) Σₖ (zₖ - tₖ)²`."""
    error = op.Sub(z, t)
    return mean_over_outputs(op, op.Mul(error, error))


MEAN_SQUARED_ERROR = LossRule("mean_squared_error", "regression", _each)
