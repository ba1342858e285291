"""What goes with which task; the rest of the settings is tested through finetune() in test_train.py."""

import inspect
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from edgetl import finetune
from edgetl.declaration import check, declarations, plain
from edgetl.errors import EdgetlError, RunError
from edgetl.tasks.figures import metrics_of
from edgetl.tasks.names import TASKS
from edgetl.training.resources import choose_resources
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"momentum": 0.5}, "the optimizer adamw has no 'momentum'"),
        ({"optimizer_args": {"momentum": 0.5}}, "the optimizer adamw has no 'momentum'"),
        ({"optimizer": "sgd", "momentum": 0.5, "optimizer_args": {"momentum": 0.6}}, "given twice"),
        ({"optimizer_args": {"beta1": 1.0}}, "beta1 of adamw must lie between 0 and just below 1, not be 1.0"),
        ({"optimizer_args": {"epsilon": 0.0}}, "epsilon of adamw must lie between"),
        ({"optimizer": "adam"}, "no optimizer 'adam'; did you mean 'adamw'?"),
    ],
)
def test_numbers_that_the_optimizer_does_not_have(change: dict[str, Any], said: str) -> None:
    with pytest.raises(EdgetlError) as caught:
        check(settings(**change))
    assert said in str(caught.value)


def test_hyperparameters_reach_the_optimizer() -> None:
    check(settings(optimizer="sgd", momentum=0.5, clip_norm=2.0))
    chosen = settings(optimizer="sgd", momentum=0.5, clip_norm=2.0).chosen_optimizer()
    assert (chosen.name, chosen.hyperparameters, chosen.clip_norm) == ("sgd", {"momentum": 0.5}, 2.0)
    lion = settings(optimizer="lion", optimizer_args={"beta1": 0.95}).chosen_optimizer()
    assert lion.hyperparameters == {"beta1": 0.95, "beta2": 0.99}


@pytest.mark.parametrize("device", [None, "x86-64-mini-pc"])
def test_an_engine_that_has_the_optimizer_is_taken(device: str | None) -> None:
    asked = settings(optimizer="lion", device=device)
    assert choose_resources(asked, asked.chosen_optimizer()).engine == "portable"


def test_an_unknown_argument_is_named_with_the_function() -> None:
    with pytest.raises(TypeError, match=r"finetune\(\) got an unexpected keyword argument 'epoch'"):
        finetune("artifacts", "data", out="run", epoch=3)  # type: ignore[call-arg]


def test_what_help_shows_is_what_is_declared() -> None:
    signature = inspect.signature(finetune)
    names = [field.name for field in fields(FinetuneSettings)]
    assert set(signature.parameters) == set(names)
    for field, known in declarations(FinetuneSettings):
        assert f"{field.name}: {known.help[:20]}" in (finetune.__doc__ or "")


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"weight_decay": 0}, 0.0),
        ({"clip_norm": np.int64(1)}, 1.0),
        ({"batch_size": np.uint8(200)}, 200),
        ({"epochs": np.int16(3)}, 3),
        ({"flip": np.True_}, True),
        ({"label_column": "class"}, ("class",)),
        ({"lr": "auto"}, "auto"),
    ],
)
def test_numbers_of_numpy_and_single_words_become_pythons_own(change: dict[str, Any], value: Any) -> None:
    (name,) = change
    found = getattr(plain(settings(**change)), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flip": "no"}, "flip must be True or False, not 'no'"),
        ({"keep_test": 0}, "keep_test must be True or False, not 0"),
        ({"val": ""}, "val is empty: give a path"),
        ({"callbacks": [1]}, "1 is not an object of a class derived from Callback"),
        ({"resume": True, "force": True}, "give one of them"),
    ],
)
def test_what_python_lets_through_is_refused_before_anything_is_lost(change: dict[str, Any], said: str) -> None:
    with pytest.raises(EdgetlError, match=said):
        finetune("artifacts", "data", out="run", **change)
