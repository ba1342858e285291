"""What a long call tells its caller while it works.

Every long function takes `on_event`, a callable that receives one of these records. The default
ignores them; the command line draws them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A new part of the work begins; `text` says which."""

    text: str


@dataclass(frozen=True)
class Note:
    """Something the user should know; the work goes on."""

    text: str


@dataclass(frozen=True)
class FeatureProgress:
    """`done` of `total` samples have their features, `reused` of them from the cache."""

    done: int
    total: int
    reused: int


@dataclass(frozen=True)
class EpochProgress:
    """Within an epoch: `step` of `steps` are done; `loss` is the mean over them."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is finished and its checkpoint is on the disk; epoch 0 is the start, before the first step.

    Attributes:
        train_loss: None for epoch 0.
        val_loss, val_metric: None without validation data.
        metric: what `val_metric` is: `accuracy`, `macro_f1` or `r2`. It may be None where the data cannot
            give it (the R² of numbers that never vary).
    """

    epoch: int
    epochs: int
    train_loss: float | None
    seconds: float
    val_loss: float | None
    val_metric: float | None
    metric: str = "accuracy"

    @property
    def val_accuracy(self) -> float | None:
        """The metric, if it is accuracy."""
        return self.val_metric if self.metric == "accuracy" else None


Event = Stage | Note | FeatureProgress | EpochProgress | EpochEnd
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The default receiver: does nothing."""
