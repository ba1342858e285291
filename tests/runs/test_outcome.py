"""Sentences about runs that did not go well, and none about those that did."""

import math
from pathlib import Path

import numpy as np
import pytest

from edgetl import finetune
from edgetl.events import EpochEnd, Note
from edgetl.runs.outcome import concerns
from edgetl.runs.report.write import write_report

CALM = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]], np.float32)


def epochs(*measured: tuple[float, float], train: float = 0.5) -> list[EpochEnd]:
    """Epochs of such validation losses and accuracies."""
    count = len(measured) - 1
    return [
        EpochEnd(i, count, train / (i + 1) if i else None, 1.0, loss, {"accuracy": accuracy})
        for i, (loss, accuracy) in enumerate(measured)
    ]


def test_a_run_that_went_well_has_none() -> None:
    assert concerns(epochs((0.9, 0.6), (0.7, 0.7), (0.6, 0.8)), "classification", 1e-3, CALM) == ()
    assert concerns(epochs((0.9, 0.6)), "classification", 1e-3, CALM) == ()


def test_worse_than_its_start() -> None:
    (found,) = concerns(epochs((0.3, 0.94), (0.5, 0.81), (0.4, 0.88)), "classification", 1e-3, CALM)
    assert "no epoch was better than the start" in found
    assert "from 94.0% to 88.0%" in found
    assert "--lr 0.0001" in found
    (found,) = concerns(epochs((0.3, 0.94), (0.31, 0.94)), "classification", 1e-3, CALM)
    assert "--lr" not in found
    (found,) = concerns(epochs((0.3, 0.94), (0.31, 0.93)), "classification", 2e-4, CALM)
    assert found.endswith("went from 94.0% to 93.0%; try --lr 2e-05")


def test_no_better_than_guessing() -> None:
    (found,) = concerns(epochs((16.3, 0.5), (3.0, 0.6)), "classification", 1e-3, CALM)
    assert found.startswith(f"the validation loss, 3, is above that of guessing, {math.log(3):.3g}")
    assert concerns(epochs((16.3, 0.5), (3.0, 0.6)), "classification", 1e-3, CALM, smoothed=True) == ()


def test_certain_of_everything() -> None:
    (found,) = concerns(epochs((0.9, 0.6), (0.7, 0.7)), "classification", 1e-3, CALM * 1000)
    assert found.startswith("logits lie up to 3000 apart")
    assert concerns(epochs((0.9, 0.6), (0.7, 0.7)), "regression", 1e-3, CALM * 1000) == ()


def test_nothing_moves() -> None:
    still = [EpochEnd(i, 3, 0.6931 if i else None, 1.0, 0.6931, {"accuracy": 0.5}) for i in range(4)]
    (found,) = concerns(still, "classification", 1e-3, CALM[:, :2])
    assert found.startswith("the loss stayed at 0.6931 in every epoch")


@pytest.mark.parametrize("lr", [1e-30, 3.0])
def test_they_are_told_and_kept_and_shown(digits: Path, digits_artifacts: Path, tmp_path: Path, lr: float) -> None:
    notes: list[str] = []
    result = finetune(
        digits_artifacts,
        digits / "train",
        out=tmp_path / "run",
        lr=lr,
        epochs=3,
        optimizer="sgd",
        on_event=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    assert result.concerns
    assert set(result.concerns) <= set(notes)
    page = Path(write_report(tmp_path / "run").report).read_text(encoding="utf-8")
    assert result.concerns[0][1:20] in page
