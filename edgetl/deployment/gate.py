"""What less precision costs, and whether a file may cost that much: a paired test on the validation data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.tasks.figures import FIGURES
from edgetl.tasks.targets import figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGNIFICANT = 0.1
"""Probability below which a drop is not put down to chance: 4 answers of 60 that only get worse, but not 3."""

LARGE_DROP = 10.0
"""Points from which on a drop counts without a test: on a few samples chance could explain anything."""

_PERMUTATIONS = 999


@dataclass(frozen=True)
class Comparison:
    """The file's answers and the trained network's on the same samples.

    Attributes:
        metric: the task's first, which the file may not lose much of.
        drop: what the file lost of it, in points (hundredths); negative where it gained; None where the data
            cannot give the metric.
        worse, better: how many samples the file answers worse, and better: wrong instead of right, with more wrong
            labels, or further from the truth.
        p_value: the probability of a drop so large, if file and network were equally good and each sample's two
            answers had been swapped by chance. Of classes it is McNemar's exact test, one-sided (McNemar 1947). None
            where no more was lost than allowed, so that nothing had to be tested.
    """

    metric: str
    samples: int
    drop: float | None
    worse: int
    better: int
    p_value: float | None

    def is_refused(self, max_drop: float) -> bool:
        """Whether more was lost than `max_drop` points, and more than chance explains."""
        if self.drop is None or self.p_value is None:
            return False
        return self.p_value < SIGNIFICANT or self.drop > max(LARGE_DROP, max_drop)


def compare(
    task: str, labels: NDArray[Any], before: NDArray[Any], after: NDArray[Any], *, max_drop: float
) -> Comparison:
    """Compare answers, as `edgetl.tasks.targets.figures` takes them, with those before.

    Args:
        before, after: `[N, K]`, of the same samples.
        max_drop: points; a larger drop is tested.
    """
    metric = FIGURES[task][0]
    errors = _errors(task, labels, before), _errors(task, labels, after)
    worse, better = int((errors[1] > errors[0]).sum()), int((errors[1] < errors[0]).sum())
    drop = _drop(task, labels, before, after)
    p_value = None
    if drop is not None and drop > max_drop + 1e-6:  # a difference of two shares is not exact
        p_value = mcnemar(worse, better) if task == "classification" else _swapped(task, labels, before, after, drop)
    return Comparison(metric, len(labels), drop, worse, better, p_value)


def mcnemar(worse: int, better: int) -> float:
    """Return the probability that at least `worse` of all answers that changed got worse, if each did with 1/2."""
    changed = worse + better
    return float(sum(math.comb(changed, k) for k in range(worse, changed + 1)) / 2**changed)


def _swapped(task: str, labels: NDArray[Any], before: NDArray[Any], after: NDArray[Any], drop: float) -> float:
    """Return the share of random swaps of each sample's two answers that lose as much (Fisher 1935)."""
    rng = np.random.default_rng(0)
    reached = 1  # the answers as they are
    for _ in range(_PERMUTATIONS):
        swap = rng.random(len(labels))[:, None] < 0.5
        found = _drop(task, labels, np.where(swap, after, before), np.where(swap, before, after))
        reached += found is not None and found >= drop - 1e-9
    return reached / (_PERMUTATIONS + 1)


def _drop(task: str, labels: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> float | None:
    """What the task's first metric, a share or R², lost, in points."""
    was, is_now = (figures(task, labels, answers)[FIGURES[task][0]] for answers in (before, after))
    return None if was is None or is_now is None else 100 * (was - is_now)


def _errors(task: str, labels: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
    """How wrong each answer is, `[N]`: whether, by how many labels, or by the sum of distances in units of spread."""
    if task == "classification":
        return np.asarray(answers.argmax(axis=1) != labels, np.float64)
    if task == "multilabel":
        return np.asarray(((answers >= 0.5) != labels.astype(bool)).sum(axis=1), np.float64)
    spread = labels.std(axis=0)
    return np.asarray((np.abs(answers - labels) / np.where(spread > 0, spread, 1)).sum(axis=1), np.float64)
