"""What Python code may do at the end of each epoch: look, log, and stop the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from edgetl.declaration import MOST, Range, check_range
from edgetl.errors import EdgetlError
from edgetl.events import EpochEnd
from edgetl.tasks.figures import best_epoch


class Callback:
    """Base of all callbacks; both methods do nothing."""

    def epoch_ended(self, end: EpochEnd) -> None:
        """Receive an epoch that is finished and kept on the disk."""

    def why_stop(self, history: Sequence[EpochEnd]) -> str | None:
        """Return the reason to train no further, or None; the run ends as if it had no more epochs.

        It is asked before each epoch, also of a run that is resumed, so the answer should depend on the history alone.
        """
        return None


@dataclass(frozen=True)
class EarlyStopping(Callback):
    """Stop where the best epoch lies `patience` epochs back.

    Attributes:
        metric: as `--metric` names it.

    Raises:
        EdgetlError: `patience` is not a positive whole number; or, during training, the metric is not measured.
    """

    patience: int
    metric: str

    def __post_init__(self) -> None:
        check_range("patience", self.patience, Range(1, MOST))

    def why_stop(self, history: Sequence[EpochEnd]) -> str | None:
        """See `Callback.why_stop`."""
        measured = history[-1].val_figures
        if measured and self.metric not in (*measured, "loss"):
            raise EdgetlError(f"there is no metric {self.metric!r} here: choose one of {', '.join(measured)}, loss")
        if history[-1].epoch - best_epoch(history, self.metric).epoch < self.patience:
            return None
        return f"no better epoch in {self.patience}"


@dataclass(frozen=True)
class Logging(Callback):
    """Write a line for each epoch to a logger of the standard library."""

    logger: logging.Logger = logging.getLogger("edgetl")

    def epoch_ended(self, end: EpochEnd) -> None:
        """See `Callback.epoch_ended`."""
        figures = {"loss": end.train_loss, "val_loss": end.val_loss, **end.val_figures}
        measured = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if value is not None)
        self.logger.info("epoch %d of %d in %.1f s: %s", end.epoch, end.epochs, end.seconds, measured)
