"""Figures of merit: which a task has, what they are called, how they are shown, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

FIGURES = {
    "classification": ("accuracy", "macro_f1"),
    "multilabel": ("macro_f1", "micro_f1", "exact_match"),
    "regression": ("r2", "mae", "rmse"),
}
"""What is measured of each task besides the loss. By the first the best epoch is chosen, unless another is named."""

ALL_METRICS = tuple(dict.fromkeys(name for figures in FIGURES.values() for name in (*figures, "loss")))
"""By what a best epoch can be chosen, in some task."""

NAMES = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "exact_match": "exact match",
    "r2": "R²",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
}
"""Of those that people call otherwise than files do."""

_LESS_IS_BETTER = ("loss", "mae", "rmse")
_NO_SHARES = ("loss", "r2", "mae", "rmse")


class Epoch(Protocol):
    """What was measured at the end of an epoch."""

    @property
    def epoch(self) -> int:
        """Its number; 0 is the start."""

    @property
    def val_loss(self) -> float | None:
        """None without validation data."""

    @property
    def val_figures(self) -> Mapping[str, float | None]:
        """By name."""


E = TypeVar("E", bound=Epoch)


def metrics_of(task: str) -> tuple[str, ...]:
    """By what the best epoch of a task can be chosen, the default first."""
    return (*FIGURES[task], "loss")


def is_share(name: str) -> bool:
    """Whether a figure lies between 0 and 1, and is shown in percent."""
    return name not in _NO_SHARES


def called(name: str) -> str:
    """A figure's name for people."""
    return NAMES.get(name, name)


def figure(name: str, value: float | None, *, width: int = 0) -> str:
    """A figure's name and value for people: shares in percent, everything else with four digits."""
    return f"{called(name)} {shown(name, value):>{width}}"


def shown(name: str, value: float | None) -> str:
    """A figure's value for people."""
    return "-" if value is None else f"{value:.1%}" if is_share(name) else f"{value:.4g}"


def leading(task: str, metric: str) -> str:
    """The figure to show first: the metric, or the task's first where that is the loss, which is shown anyway."""
    return FIGURES[task][0] if metric == "loss" else metric


def demerit(name: str, value: float | None) -> float:
    """A key that puts the best first, and what is missing last."""
    if value is None or math.isnan(value):
        return math.inf
    return value if name in _LESS_IS_BETTER else -value


def measured(epoch: Epoch, name: str) -> float | None:
    """A figure or the loss of an epoch; None if it was not measured."""
    return epoch.val_loss if name == "loss" else epoch.val_figures.get(name)


def best_epoch(history: Iterable[E], metric: str) -> E:
    """The epoch of the best metric, then of the lowest loss, then the earliest; without validation the last."""
    epochs = tuple(history)
    if epochs[-1].val_loss is None:
        return epochs[-1]
    return min(
        epochs, key=lambda end: (demerit(metric, measured(end, metric)), demerit("loss", end.val_loss), end.epoch)
    )
