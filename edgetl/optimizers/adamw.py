"""AdamW (Loshchilov & Hutter 2019, algorithm 2), in torch's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetl.declaration import SMALLEST, Range
from edgetl.optimizers.rule import LEARNING_RATE, STEP, Hyperparameter, OptimizerRule, decayed

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes

_DOUBLE, _FLOAT = 11, 1
"""Of `onnx.TensorProto.DataType`, which devices need not import."""


@dataclass(frozen=True)
class AdamW(OptimizerRule):
    """`m ← β₁m + (1 - β₁)g`, `v ← β₂v + (1 - β₂)g²`, `p ← p(1 - η·wd) - η·m̂/(√v̂ + ε)`.

    Here `m̂ = m/(1 - β₁ᵗ)` and `v̂ = v/(1 - β₂ᵗ)`. The fraction is extended by `√(1 - β₂ᵗ)`, so that each
    correction is a scalar; the powers are computed in float64, as torch does.
    """

    def scalars(self, op: Nodes, values: Mapping[str, float]) -> tuple[str, ...]:
        """Write `η·√(1 - β₂ᵗ)/(1 - β₁ᵗ)` and `ε·√(1 - β₂ᵗ)`."""
        import numpy as np

        t = op.Cast(STEP, to=_DOUBLE)
        first, second = (op.Sub(np.float64(1), op.Pow(np.float64(values[beta]), t)) for beta in ("beta1", "beta2"))
        root = op.Sqrt(second)
        size = op.Mul(LEARNING_RATE, op.Cast(op.Div(root, first), to=_FLOAT))
        return size, op.Cast(op.Mul(root, np.float64(values["epsilon"])), to=_FLOAT)

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
        m, v = state
        size, epsilon = scalars
        beta1, beta2 = values["beta1"], values["beta2"]
        m = op.Add(op.Mul(m, beta1), op.Mul(gradient, 1 - beta1))
        v = op.Add(op.Mul(v, beta2), op.Mul(op.Mul(gradient, gradient), 1 - beta2))
        change = op.Mul(op.Div(m, op.Add(op.Sqrt(v), epsilon)), size)
        return op.Sub(decayed(op, parameter, decay), change), m, v

    def ort_attributes(self, values: Mapping[str, float], weight_decay: float) -> dict[str, float]:
        """Return those of mode 0, which is torch's AdamW: decay first, epsilon outside of the corrected root."""
        return {
            "adam_mode": 0,
            "correct_bias": 1,
            "alpha": values["beta1"],
            "beta": values["beta2"],
            "epsilon": values["epsilon"],
            "weight_decay": weight_decay,
        }


ADAMW = AdamW(
    name="adamw",
    # torch.optim.AdamW's
    hyperparameters={
        "beta1": Hyperparameter(0.9),
        "beta2": Hyperparameter(0.999),
        "epsilon": Hyperparameter(1e-8, Range(SMALLEST, 1.0)),
    },
    state=("/first_moment", "/second_moment"),
    moves_by_rate=True,
)
