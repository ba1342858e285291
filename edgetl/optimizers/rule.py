"""What an optimizer is: what it keeps for each parameter, its arithmetic, and its form in onnxruntime-training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetl.declaration import Range

if TYPE_CHECKING:
    from edgetl.graph.build import Nodes

LEARNING_RATE = "learning_rate"
"""The input of a step that holds the learning rate η, a float32 scalar."""

STEP = "step"
"""The input of a step that holds its number t, an int64 scalar; the first step has 1."""


@dataclass(frozen=True)
class Hyperparameter:
    """A number of an optimizer: its default, and what it may be."""

    default: float
    range: Range = Range(0.0, 1.0, below=True)


@dataclass(frozen=True)
class OptimizerRule(ABC):
    """One optimizer. Weight decay is decoupled in each: `p ← p - η·wd·p`, beside the rule's own change.

    Attributes:
        name: as `--optimizer` takes it.
        hyperparameters: its own numbers, by the names that `--optimizer-arg` takes.
        state: suffixes of the names of what it keeps for each parameter p, in p's shape, zero at first.
        moves_by_rate: whether a step changes each weight by about the learning rate, whatever the size of its
            gradient; the rules of `edgetl.training.rate` hold for such optimizers alone.
    """

    name: str
    hyperparameters: Mapping[str, Hyperparameter]
    state: tuple[str, ...]
    moves_by_rate: bool

    @abstractmethod
    def scalars(self, op: Nodes, values: Mapping[str, float]) -> tuple[str, ...]:
        """Write what is the same for all parameters of a step, from `LEARNING_RATE` and `STEP`; return its names.

        Args:
            values: the hyperparameters.
        """

    @abstractmethod
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
        """Write the step of one parameter; return the names of its new value and of its new state.

        Args:
            decay: the scalar `η·wd`; None without weight decay.
            scalars: what `scalars` returned.
        """

    @abstractmethod
    def ort_attributes(self, values: Mapping[str, float], weight_decay: float) -> dict[str, float] | None:
        """Return the attributes with which onnxruntime-training's AdamWOptimizer is this rule; None if it can't be."""

    def ort_rate(self, rate: float, values: Mapping[str, float]) -> float:
        """Return the learning rate that goes with `ort_attributes` for the rate η."""
        return rate


def decayed(op: Nodes, parameter: str, decay: str | None) -> str:
    """Write `p - p·decay`. As a factor, `1 - decay` would round small rates to 1."""
    return op.Sub(parameter, op.Mul(parameter, decay)) if decay else parameter
