"""What Python code may do at the end of each epoch."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgetl import finetune
from edgetl.errors import EdgetlError
from edgetl.events import EpochEnd, Note
from edgetl.runs.run import LAST, Run
from edgetl.training.callbacks import Callback, EarlyStopping, Logging


def end(epoch: int, loss: float, accuracy: float) -> EpochEnd:
    return EpochEnd(epoch, 9, loss, 0.5, loss, {"accuracy": accuracy})


HISTORY = [end(0, 1.0, 0.5), end(1, 0.8, 0.75), end(2, 0.9, 0.75), end(3, 0.95, 0.5)]


@pytest.mark.parametrize(("patience", "length", "stops"), [(2, 3, False), (2, 4, True), (1, 3, True), (3, 4, False)])
def test_early_stopping_waits_for_so_many_epochs(patience: int, length: int, stops: bool) -> None:
    said = EarlyStopping(patience, "accuracy").why_stop(HISTORY[:length])
    assert (said is not None) == stops
    assert said is None or f"in {patience}" in said


def test_early_stopping_refuses_what_it_cannot_watch() -> None:
    for metric in ("acuracy", "r2"):
        with pytest.raises(EdgetlError, match=f"no metric '{metric}' here: choose one of accuracy, loss"):
            EarlyStopping(1, metric).why_stop(HISTORY)
    for patience in (0, -5, "1"):
        with pytest.raises(EdgetlError, match="patience must lie between 1 and"):
            EarlyStopping(patience, "accuracy")  # type: ignore[arg-type]
    assert EarlyStopping(2, "loss").why_stop(HISTORY) == "no better epoch in 2"


class Stop(Callback):
    """Stop behind an epoch."""

    def __init__(self, epoch: int) -> None:
        self.seen: list[int] = []
        self._last = epoch

    def epoch_ended(self, end: EpochEnd) -> None:
        self.seen.append(end.epoch)

    def why_stop(self, history: Sequence[EpochEnd]) -> str | None:
        return "enough" if history[-1].epoch >= self._last else None


def test_a_callback_sees_each_epoch_and_may_stop_the_run(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    options: dict[str, Any] = {"epochs": 6, "refit": False, "on_event": events.append}
    stop = Stop(2)
    result = finetune(digits_artifacts, digits / "train", out=tmp_path / "run", callbacks=[stop], **options)
    assert stop.seen == [0, 1, 2]
    assert result.epochs == 2
    assert Note("enough: stopped before epoch 3") in events
    # the run is a whole one: it has a proof, and goes on where it was stopped, to the bits of an undisturbed one
    assert Run(tmp_path / "run").is_proven()
    finetune(digits_artifacts, digits / "train", out=tmp_path / "run", resume=True, **options)
    finetune(digits_artifacts, digits / "train", out=tmp_path / "whole", **options)
    ends = [Run(tmp_path / name).read_checkpoint(LAST) for name in ("run", "whole")]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0].engine_state == ends[1].engine_state


def test_a_stopped_run_that_is_resumed_stays_stopped(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    for resume in (False, True):
        stop = Stop(1)
        out = tmp_path / "run"
        result = finetune(digits_artifacts, digits / "train", out=out, epochs=5, callbacks=[stop], resume=resume)
        assert result.epochs == 1
    assert stop.seen == []


def test_logging_writes_a_line_for_each_epoch(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="edgetl"):
        Logging().epoch_ended(end(3, 0.25, 0.5))
    assert caplog.messages == ["epoch 3 of 9 in 0.5 s: loss 0.25, val_loss 0.25, accuracy 0.5"]
