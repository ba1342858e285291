"""From labels to what a training step takes: targets and weights (see `edgetl.engines.base.Engine`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TASKS = {
    "classification": ("cross_entropy",),
    "multilabel": ("binary_cross_entropy",),
    "regression": ("mean_squared_error", "l1"),
}
"""Each task and the losses it can be trained with, the default first."""


@dataclass(frozen=True)
class TargetEncoder:
    """Labels of one task as targets and weights.

    Attributes:
        task: one of `TASKS`.
        outputs: K, the number of classes or of numbers.
        label_smoothing: ε: a class's target is `1 - ε + ε/K`, every other's `ε/K` (Szegedy et al. 2016).
        class_weights: one for each class; None weighs all alike.
    """

    task: str
    outputs: int
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    def __call__(self, labels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return targets `[N, K]` and weights `[N]`, whose loss is the batch's (weighted) mean.

        With weights c of the classes it is torch's: `Σₙ c[yₙ]·ℓₙ / Σₙ c[yₙ]`.

        Args:
            labels: `[N]` int64 class indices for classification, `[N, K]` float32 for other tasks.

        Raises:
            DataError: a class index is out of range, or a number is not finite.
        """
        count = len(labels)
        if self.task != "classification":
            if labels.shape != (count, self.outputs) or not np.isfinite(labels).all():
                raise DataError(f"labels must be {self.outputs} finite numbers for each sample")
            return labels.astype(np.float32), np.full(count, 1 / count, np.float32)
        if labels.ndim != 1 or labels.min() < 0 or labels.max() >= self.outputs:
            raise DataError(f"labels must lie in 0..{self.outputs - 1}; found {labels.min()}..{labels.max()}")
        targets = np.full((count, self.outputs), self.label_smoothing / self.outputs, np.float32)
        targets[np.arange(count), labels] += 1 - self.label_smoothing
        if self.class_weights is None:
            return targets, np.full(count, 1 / count, np.float32)
        each = np.array(self.class_weights, np.float32)
        return targets * each, np.full(count, 1 / each[labels].sum(), np.float32)


def balanced_weights(labels: NDArray[np.int64], classes: int) -> tuple[float, ...]:
    """Return weights that make all classes count alike: `N / (K·N_k)` (King & Zeng 2001).

    Args:
        labels: `[N]` class indices; every class must occur.
    """
    counts = np.bincount(labels, minlength=classes)
    return tuple(float(len(labels) / (classes * count)) for count in counts)
