"""What a long call tells its caller while it works.

Every long function takes `on_event`, a callable that receives one of these records. The default
ignores them; the command line draws them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgetl.tasks.figures import measured


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
        val_loss: None without validation data.
        val_figures: of the task (`edgetl.tasks.figures.FIGURES`), by name; empty without validation data, and
            None where the data cannot give one (the R² of numbers that never vary).
        metric: the figure, or `loss`, by which the best epoch is chosen.
    """

    epoch: int
    epochs: int
    train_loss: float | None
    seconds: float
    val_loss: float | None
    val_figures: dict[str, float | None] = field(default_factory=dict)
    metric: str = "accuracy"

    @property
    def val_metric(self) -> float | None:
        """What decides which epoch is the best; None if it was not measured."""
        return measured(self, self.metric)

    @property
    def val_accuracy(self) -> float | None:
        """None if it was not measured."""
        return self.val_figures.get("accuracy")


Event = Stage | Note | FeatureProgress | EpochProgress | EpochEnd
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The default receiver: does nothing."""
