"""Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetl.optimizers.rule import LEARNING_RATE, Hyperparameter, OptimizerRule, decayed

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes


@dataclass(frozen=True)
class Lion(OptimizerRule):
    """`p ← p(1 - η·wd) - η·sign(β₁m + (1 - β₁)g)`, then `m ← β₂m + (1 - β₂)g`: half of AdamW's state."""

    def scalars(self, op: Nodes, values: Mapping[str, float]) -> tuple[str, ...]:
        """There are none."""
        return ()

    def update(
        self,
        op: Nodes,
        parameter: str,
        state: Sequence[str],
        gradient: str,
        decay: str | None,
        scalars: Sequence[str],
        values: Mapping[str, float],
    ) -> tuple[str, ...]:
        """See `OptimizerRule.update`."""
        (m,) = state
        beta1, beta2 = values["beta1"], values["beta2"]
        direction = op.Sign(op.Add(op.Mul(m, beta1), op.Mul(gradient, 1 - beta1)))
        kept = op.Add(op.Mul(m, beta2), op.Mul(gradient, 1 - beta2))
        return op.Sub(decayed(op, parameter, decay), op.Mul(direction, LEARNING_RATE)), kept

    def ort_attributes(self, values: Mapping[str, float], weight_decay: float) -> None:
        """Return None: onnxruntime-training has no operator that takes signs."""
        return


LION = Lion(
    name="lion",
    hyperparameters={"beta1": Hyperparameter(0.9), "beta2": Hyperparameter(0.99)},
    state=("/momentum",),
    moves_by_rate=True,
)
