"""SGD with momentum (Sutskever et al. 2013, as torch writes it) and decoupled weight decay (SGDW)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetl.optimizers.rule import LEARNING_RATE, Hyperparameter, OptimizerRule, decayed

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes


@dataclass(frozen=True)
class SGD(OptimizerRule):
    """`m ← μm + g`, `p ← (p - ηm)(1 - η·wd)`."""

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
        m = op.Add(op.Mul(state[0], values["momentum"]), gradient)
        moved = op.Sub(parameter, op.Mul(m, LEARNING_RATE))
        return decayed(op, moved, decay), m

    def ort_attributes(self, values: Mapping[str, float], weight_decay: float) -> dict[str, float]:
        """Return those that make AdamWOptimizer SGD with momentum, which onnxruntime-training lacks.

        With β₂ = 1, ε = 1 and without bias correction it is `m ← μm + (1 - μ)g; p ← p - ηm`.
        """
        rest = 1 - values["momentum"]
        return {
            "adam_mode": 1,
            "correct_bias": 0,
            "alpha": values["momentum"],
            "beta": 1.0,
            "epsilon": 1.0,
            "weight_decay": weight_decay * rest,
        }

    def ort_rate(self, rate: float, values: Mapping[str, float]) -> float:
        """Return `η/(1 - μ)`, which goes with a moment of `1 - μ` times the size."""
        return rate / (1 - values["momentum"])


SGD_MOMENTUM = SGD(
    name="sgd",
    hyperparameters={"momentum": Hyperparameter(0.9)},
    state=("/momentum",),
    moves_by_rate=False,
)
