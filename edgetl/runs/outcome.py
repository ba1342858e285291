"""What a user should know of a finished run before trusting it: sentences, from its epochs and its logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgetl.events import EpochEnd
from edgetl.tasks.figures import best_epoch, called, demerit, measured, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

GUESSING = 1.02
"""The validation loss over that of guessing from which it is called no better."""

SURE = 30.0
"""Logits that lie further apart than this give probabilities of 1 - 10⁻¹³, which no few hundred samples can show."""


def concerns(
    history: Sequence[EpochEnd], task: str, lr: float, logits: NDArray[np.float32], *, smoothed: bool = False
) -> tuple[str, ...]:
    """Return sentences about a run that did not go well; none about one that did.

    Args:
        history: every finished epoch, from epoch 0 on.
        lr: the learning rate, which the advice names.
        logits: `[N, K]` of the validation samples, or else of some that trained.
        smoothed: whether labels were smoothed, classes weighted, or the loss is not the task's usual one, so that
            guessing has another loss.
    """
    found = []
    start, last = history[0], history[-1]
    best = best_epoch(history, last.metric)
    if stands_still(history):
        found.append(
            f"the loss stayed at {last.train_loss:.4g} in every epoch: nothing that trains changes what the network "
            "gives; train a larger share with 'edgetl prepare --train', or begin otherwise with --init"
        )
    elif best.epoch == 0 and last.epoch > 0 and last.val_loss is not None:
        found.append(_not_better(start, last, lr))
    guessing = _guessing(task, logits.shape[1])
    if guessing is not None and not smoothed and best.val_loss is not None and best.val_loss > GUESSING * guessing:
        found.append(
            f"the validation loss, {best.val_loss:.3g}, is above that of guessing, {guessing:.3g}: do not rely on the "
            "probabilities; more samples, or a share that trains less, may help"
        )
    spread = float(np.ptp(logits, axis=1).max()) if task == "classification" and len(logits) else 0.0
    if spread > SURE:
        found.append(
            f"logits lie up to {spread:.0f} apart, so that probabilities are 100 % whatever the sample: train with a "
            "smaller --lr, fewer --epochs or --label-smoothing 0.1"
        )
    return tuple(found)


def stands_still(history: Sequence[EpochEnd]) -> bool:
    """Whether two epochs and more ended with the same training loss to six digits."""
    losses = [end.train_loss for end in history if end.train_loss is not None]
    return len(losses) > 1 and max(losses) - min(losses) <= 1e-6 * abs(losses[0])


def _not_better(start: EpochEnd, last: EpochEnd, lr: float) -> str:
    name = last.metric
    before, after = measured(start, name), measured(last, name)
    sentence = "no epoch was better than the start, which is what 'edgetl deploy' takes"
    if before is None or after is None:
        return sentence
    if demerit(name, after) <= demerit(name, before):
        return sentence
    return (
        f"{sentence}: validation {called(name)} went from {shown(name, before)} to {shown(name, after)}; try "
        f"--lr {lr / 10:.1g}"
    )


def _guessing(task: str, outputs: int) -> float | None:
    """The loss of equally likely classes, or of labels that are as likely as not; None where it depends on the data."""
    return {"classification": math.log(outputs), "multilabel": math.log(2)}.get(task)
