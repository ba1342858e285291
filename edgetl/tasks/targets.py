"""From labels to targets and weights (see `edgetl.engines.base.Engine`), and from logits to answers and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.errors import DataError
from edgetl.tasks import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTPUTS_ARE = {"classification": "classes", "multilabel": "labels", "regression": "numbers"}


@dataclass(frozen=True)
class TargetEncoder:
    """Labels of one task as targets and weights.

    Attributes:
        task: one of `edgetl.tasks.names.TASKS`.
        outputs: K, the number of classes or of numbers.
        label_smoothing: ε: a class's target is `1 - ε + ε/K`, every other's `ε/K` (Szegedy et al. 2016).
        class_weights: one for each class; None weighs all alike.
        mean, std: of the training data's numbers; the targets of regression are `(y - mean) / std`, so
            that a learning rate suits numbers of any size.
    """

    task: str
    outputs: int
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, labels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return targets `[N, K]` and weights `[N]`, whose loss is the batch's (weighted) mean.

        With weights c of the classes it is torch's: `Σₙ c[yₙ]·ℓₙ / Σₙ c[yₙ]`.

        Args:
            labels: `[N]` int64 class indices for classification, `[N, K]` float for other tasks.

        Raises:
            DataError: a class index is out of range, or a number is not finite.
        """
        count = len(labels)
        if self.task != "classification":
            if labels.shape != (count, self.outputs) or not np.isfinite(labels).all():
                raise DataError(f"labels must be {self.outputs} finite numbers for each sample")
            scaled = (labels - np.array(self.mean)) / np.array(self.std) if self.mean else labels
            return scaled.astype(np.float32), np.full(count, 1 / count, np.float32)
        if labels.ndim != 1 or labels.min() < 0 or labels.max() >= self.outputs:
            raise DataError(f"labels must lie in 0..{self.outputs - 1}; found {labels.min()}..{labels.max()}")
        targets = np.full((count, self.outputs), self.label_smoothing / self.outputs, np.float32)
        targets[np.arange(count), labels] += 1 - self.label_smoothing
        if self.class_weights is None:
            return targets, np.full(count, 1 / count, np.float32)
        each = np.array(self.class_weights, np.float32)
        return targets * each, np.full(count, 1 / each[labels].sum(), np.float32)

    def mass(self, labels: NDArray[Any]) -> float:
        """What a batch's mean weighs in a mean over several: the sum of its samples' weights."""
        if self.class_weights is None:
            return float(len(labels))
        return float(np.array(self.class_weights)[labels].sum())


def balanced_weights(labels: NDArray[np.int64], classes: int) -> tuple[float, ...]:
    """Return weights that make all classes count alike: `N / (K·N_k)` (King & Zeng 2001).

    Args:
        labels: `[N]` class indices; every class must occur.
    """
    counts = np.bincount(labels, minlength=classes)
    return tuple(float(len(labels) / (classes * count)) for count in counts)


def scaling(labels: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each column of `[N, K]`; 1 for the deviation of one that never varies."""
    mean, std = labels.mean(axis=0), labels.std(axis=0)
    # rounding leaves a little deviation in a constant
    return tuple(mean.tolist()), tuple(np.where(np.ptp(labels, axis=0) > 0, std, 1.0).tolist())


def figures(task: str, labels: NDArray[Any], answers: NDArray[Any]) -> dict[str, float | None]:
    """Return the figures of a task by name, those of `edgetl.tasks.figures.FIGURES`.

    Args:
        labels: `[N]` int64 for classification, `[N, K]` for other tasks.
        answers: `[N, K]`: for classification probabilities or logits, for several labels probabilities,
            for regression numbers.
    """
    if task == "classification":
        found = metrics.classification(labels, answers.argmax(axis=1), answers.shape[1])
        return {"accuracy": found.accuracy, "macro_f1": found.macro_f1}
    if task == "multilabel":
        several = metrics.multilabel(labels, answers)
        return {"macro_f1": several.macro_f1, "micro_f1": several.micro_f1, "exact_match": several.exact_match}
    numbers = metrics.regression(labels, answers)
    return {"r2": numbers.r2, "mae": numbers.mae, "rmse": numbers.rmse}


def answers(task: str, logits: NDArray[np.float32], encoder: TargetEncoder) -> NDArray[Any]:
    """Return what logits `[N, K]` mean: probabilities of labels, or numbers in their own unit; logits of classes."""
    if task == "multilabel":
        return (1 + np.tanh(logits.astype(np.float64) / 2)) / 2  # the logistic function, without overflow
    if task == "regression" and encoder.mean:
        return logits.astype(np.float64) * encoder.std + encoder.mean
    return logits
