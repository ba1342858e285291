"""How good predictions are: classes, several labels at once, and numbers. Pure numpy.

A figure that the data cannot give (the recall of a class without samples, the R² of a target that
never varies) is None and not 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class LabelMetrics:
    """How well one class, or one label, is found.

    Attributes:
        precision: share of its predictions that are right; None if it was never predicted.
        recall: share of its samples that were found; None if it has none.
        f1: harmonic mean of both; None if it neither occurs nor was predicted.
        support: how many samples have it.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Classification:
    """One class for each sample.

    The macro figures are means over the classes that occur, each counting alike; one that was never
    predicted counts with precision 0.
    """

    samples: int
    correct: int
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    classes: tuple[LabelMetrics, ...]


@dataclass(frozen=True)
class Multilabel:
    """Any number of labels for each sample.

    Attributes:
        exact_match: share of samples whose labels are all right.
        micro_f1: over all decisions together; None if there is nothing to find and nothing was found.
        macro_f1: mean over the labels that occur; None if none does.
    """

    samples: int
    exact_match: float
    micro_f1: float | None
    macro_f1: float | None
    labels: tuple[LabelMetrics, ...]


@dataclass(frozen=True)
class TargetMetrics:
    """How far predictions of one number lie from the truth.

    Attributes:
        mae: mean absolute error, in the target's unit.
        rmse: root of the mean squared error, in the target's unit.
        r2: share of the truth's variance that is explained, negative where the truth's mean would
            predict better; None if the truth does not vary.
    """

    mae: float
    rmse: float
    r2: float | None


@dataclass(frozen=True)
class Regression:
    """Numbers for each sample; each figure is the mean over the targets, which count alike."""

    samples: int
    mae: float
    rmse: float
    r2: float | None
    targets: tuple[TargetMetrics, ...]


def confusion_matrix(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count samples by true class (row) and predicted class (column).

    Args:
        truth, predicted: `[N]`, class indices below `classes`.

    Returns:
        `[classes, classes]` int64.

    Raises:
        ValueError: the lengths differ, or an index is out of range.
    """
    _check_indices(truth, predicted, classes)
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def confused(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of true and predicted class that differ, and how often each occurs, `[pairs]`, by their indices.

    They are the confusion matrix's fields off its diagonal that are not zero; the matrix itself grows with the square
    of the classes.

    Raises:
        ValueError: as `confusion_matrix`.
    """
    _check_indices(truth, predicted, classes)
    wrong = truth != predicted
    pairs, counts = np.unique(truth[wrong] * classes + predicted[wrong], return_counts=True)
    return pairs // classes, pairs % classes, counts


def classification(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> Classification:
    """Summarise what was predicted, from counts that grow with the classes, and not with their square.

    Args:
        truth, predicted: `[N]`, class indices below `classes`.

    Raises:
        ValueError: there is no sample, the lengths differ, or an index is out of range.
    """
    _check_indices(truth, predicted, classes)
    samples = len(truth)
    if samples == 0:
        raise ValueError("there are no samples to measure")
    hits = np.bincount(truth[truth == predicted], minlength=classes)
    correct = int(hits.sum())
    found = _found(hits, np.bincount(predicted, minlength=classes), np.bincount(truth, minlength=classes))
    occurring = [item for item in found if item.support]
    return Classification(
        samples=samples,
        correct=correct,
        accuracy=correct / samples,
        macro_precision=_mean([item.precision or 0.0 for item in occurring]),
        macro_recall=_mean([item.recall or 0.0 for item in occurring]),
        macro_f1=_mean([item.f1 or 0.0 for item in occurring]),
        classes=found,
    )


def multilabel(truth: ArrayLike, probabilities: ArrayLike, *, threshold: float = 0.5) -> Multilabel:
    """Compare labels with probabilities; a label counts as predicted from `threshold` on.

    Args:
        truth: `[N, labels]`, 0 or 1.
        probabilities: `[N, labels]`.

    Raises:
        ValueError: the shapes differ, or there are no samples.
    """
    wanted, given = _tables(truth, probabilities)
    present, predicted = wanted.astype(bool), given >= threshold
    hits, claimed, support = (each.sum(axis=0) for each in (present & predicted, predicted, present))
    labels = _found(hits, claimed, support)
    (together,) = _found(hits.sum(keepdims=True), claimed.sum(keepdims=True), support.sum(keepdims=True))
    occurring = [item.f1 or 0.0 for item in labels if item.support]
    return Multilabel(
        samples=len(wanted),
        exact_match=float((present == predicted).all(axis=1).mean()),
        micro_f1=together.f1,
        macro_f1=_mean(occurring) if occurring else None,
        labels=labels,
    )


def regression(truth: ArrayLike, predicted: ArrayLike) -> Regression:
    """Compare numbers with their predictions.

    Args:
        truth, predicted: `[N]` or `[N, targets]`.

    Raises:
        ValueError: the shapes differ, or there are no samples.
    """
    wanted, given = _tables(truth, predicted)
    error = given - wanted
    squares = (error**2).sum(axis=0)
    spread = ((wanted - wanted.mean(axis=0)) ** 2).sum(axis=0)
    targets = tuple(
        TargetMetrics(
            mae=float(np.abs(error[:, i]).mean()),
            rmse=math.sqrt(squares[i] / len(error)),
            # rounding leaves a little spread in a constant, so its variance is asked for by its range
            r2=float(1 - squares[i] / spread[i]) if np.ptp(wanted[:, i]) > 0 else None,
        )
        for i in range(error.shape[1])
    )
    explained = [target.r2 for target in targets if target.r2 is not None]
    return Regression(
        samples=len(error),
        mae=_mean([target.mae for target in targets]),
        rmse=_mean([target.rmse for target in targets]),
        r2=_mean(explained) if explained else None,
        targets=targets,
    )


def log_loss(labels: NDArray[Any], logits: NDArray[Any]) -> float:
    """Return the mean cross-entropy of classes, or the mean binary cross-entropy of several labels.

    Args:
        labels: `[N]` int class indices, or `[N, K]` 0 or 1.
        logits: `[N, K]`.
    """
    scores = np.asarray(logits, np.float64)
    if labels.ndim == 1:
        highest = scores.max(axis=1)
        total = highest + np.log(np.exp(scores - highest[:, None]).sum(axis=1))
        return float(np.mean(total - scores[np.arange(len(labels)), labels]))
    # log(1 + exp(z)) - t·z
    return float(np.mean(np.logaddexp(0, scores) - labels * scores))


def wilson_interval(correct: int, samples: int) -> tuple[float, float]:
    """Return the bounds between which a share of `correct` in `samples` lies with 95 % confidence (Wilson 1927)."""
    z = 1.959964
    share = correct / samples
    scale = 1 + z * z / samples
    centre = (share + z * z / (2 * samples)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _check_indices(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> None:
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and predicted {predicted.shape} are not two lists of one length")
    both = np.concatenate([truth, predicted])
    if both.size and not (both.min() >= 0 and both.max() < classes):
        raise ValueError(f"class indices from {both.min()} to {both.max()} do not fit {classes} classes")


def _found(hits: NDArray[Any], claimed: NDArray[Any], support: NDArray[Any]) -> tuple[LabelMetrics, ...]:
    return tuple(
        LabelMetrics(
            precision=h / c if c else None,
            recall=h / s if s else None,
            f1=2 * h / (c + s) if c + s else None,
            support=s,
        )
        for h, c, s in zip(hits.tolist(), claimed.tolist(), support.tolist(), strict=True)
    )


def _tables(truth: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as `[N, K]` float64."""
    first, second = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if first.shape != second.shape or first.ndim not in (1, 2):
        raise ValueError(f"truth {first.shape} and predictions {second.shape} are not of one shape")
    if len(first) == 0:
        raise ValueError("there are no samples to measure")
    return first.reshape(len(first), -1), second.reshape(len(second), -1)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
