"""What goes with which task; the rest of the settings is tested through finetune() in test_train.py."""

from typing import Any

import pytest

from edgetl.errors import RunError
from edgetl.tasks.figures import metrics_of
from edgetl.tasks.names import TASKS
from edgetl.training.settings import FinetuneSettings, check_task


def settings(**changes: Any) -> FinetuneSettings:
    return FinetuneSettings("artifacts", "data", out="run", **changes)


@pytest.mark.parametrize("change", [{"label_smoothing": 0.1}, {"class_weights": "balanced"}, {"init": "prototype"}])
def test_what_is_for_one_class_per_sample(change: dict[str, Any]) -> None:
    check_task(settings(**change), "classification")
    for task in ("multilabel", "regression"):
        check_task(settings(), task)
        with pytest.raises(RunError, match=f"are for one class per sample, not for {task}"):
            check_task(settings(**change), task)


def test_each_task_has_its_metrics_and_no_others() -> None:
    for task in TASKS:
        for metric in {name for each in TASKS for name in metrics_of(each)}:
            given = settings(metric=metric)
            if metric in metrics_of(task):
                check_task(given, task)
            else:
                with pytest.raises(RunError, match=f"--metric {metric} is not measured of {task}"):
                    check_task(given, task)
