"""The settings of `finetune`, and the checks that need more than one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from edgetl import defaults
from edgetl.declaration import REQUIRED, declared
from edgetl.errors import EdgetlError, RunError
from edgetl.optimizers.registry import CLIP_NORM, RULES, WEIGHT_DECAY, Optimizer
from edgetl.runs.settings import TrainingSettings
from edgetl.shared_settings import (
    DATA,
    MACHINE,
    OPTIMIZER,
    DeviceSettings,
    InputColumns,
    LabelColumns,
    Listening,
    ProviderSettings,
    ThreadSettings,
)
from edgetl.tasks.figures import metrics_of
from edgetl.training.callbacks import Callback

_MOMENTUM = RULES["sgd"].hyperparameters["momentum"]
_HYPERPARAMETERS = "; ".join(f"{rule.name} has {', '.join(rule.hyperparameters)}" for rule in RULES.values())


@dataclass(frozen=True)
class FinetuneSettings(
    TrainingSettings, LabelColumns, InputColumns, ProviderSettings, ThreadSettings, DeviceSettings, Listening
):
    """What `finetune` takes.

    Attributes:
        artifacts: a directory made by `prepare`.
        data: a folder with one folder per class, a table, or an archive of arrays (docs/data.md).
        callbacks: called at the end of each epoch, from Python (`edgetl.training.callbacks`).
    """

    artifacts: str | Path
    data: str | Path
    _: KW_ONLY
    out: str | Path = declared(REQUIRED, "Run directory to write.", kind="path")
    val: str | Path | None = declared(
        None,
        "Validation data.",
        group=DATA,
        kind="path",
        metavar="DATA",
        default_text="val/ or test/ of DATA, or else --val-fraction of the training samples",
    )
    optimizer: str = declared(
        Optimizer.name, "Optimizer. Weight decay is decoupled in each.", group=OPTIMIZER, choices=tuple(RULES)
    )
    optimizer_args: Mapping[str, float] | None = declared(
        None,
        f"Hyperparameter of the optimizer: {_HYPERPARAMETERS}.",
        group=OPTIMIZER,
        kind="values",
        option="--optimizer-arg",
    )
    momentum: float | None = declared(
        None,
        "Momentum of sgd.",
        group=OPTIMIZER,
        range=_MOMENTUM.range,
        default_text=f"{_MOMENTUM.default}",
    )
    weight_decay: float = declared(
        defaults.WEIGHT_DECAY, "Decay of the weights in each step.", group=OPTIMIZER, range=WEIGHT_DECAY
    )
    clip_norm: float | None = declared(
        None,
        "Largest norm of a step's gradients; longer ones are scaled down.",
        group=OPTIMIZER,
        range=CLIP_NORM,
        default_text="no limit",
    )
    cache: str | Path | None = declared(
        None,
        "Directory of the feature cache.",
        group=MACHINE,
        kind="path",
        metavar="DIR",
        default_text="the user's cache directory",
    )
    resume: bool = declared(False, "Continue the run at --out, with the result of an uninterrupted one.")
    force: bool = declared(False, "Replace the run at --out.")
    callbacks: Sequence[Callback] = ()

    def chosen_optimizer(self) -> Optimizer:
        """Return the optimizer with its numbers.

        Raises:
            EdgetlError: it has no such number, or not that value.
        """
        numbers = dict(self.optimizer_args or {})
        if self.momentum is not None:
            if "momentum" in numbers:
                raise EdgetlError("the momentum is given twice: leave out --momentum or --optimizer-arg momentum")
            numbers["momentum"] = self.momentum
        optimizer = Optimizer(self.optimizer, numbers, self.weight_decay, self.clip_norm)
        optimizer.check()
        return optimizer

    def check_together(self) -> None:
        """Refuse values that do not go together, and what is not a callback.

        Raises:
            EdgetlError: it says which.
        """
        if self.resume and self.force:
            raise EdgetlError("resume continues a run and force replaces it: give one of them")
        for each in self.callbacks:
            if not isinstance(each, Callback):
                raise EdgetlError(f"{each!r:.60} is not an object of a class derived from Callback (docs/training.md)")
        self.chosen_optimizer()


def check_task(settings: TrainingSettings, task: str) -> None:
    """Refuse settings that do not go with the task, before anything is computed.

    Raises:
        RunError: it names the option.
    """
    if task != "classification" and (
        settings.label_smoothing or settings.class_weights or settings.init == "prototype"
    ):
        raise RunError(
            f"--label-smoothing, --class-weights and --init prototype are for one class per sample, not for {task}"
        )
    if settings.metric is not None and settings.metric not in metrics_of(task):
        raise RunError(
            f"--metric {settings.metric} is not measured of {task}: choose one of {', '.join(metrics_of(task))}"
        )


def choose_refit(refit: bool | None, samples: int, *, split: bool, pretrained: bool) -> bool:
    """Return whether the run ends with training on all samples: as it was asked for, or where few would be lost.

    Args:
        samples: how many train and validate.
        split: whether those that validate were taken from the training samples.
        pretrained: whether more than a head trains, so that it takes its time.
    """
    return split and (not pretrained or samples < defaults.REFIT_BELOW) if refit is None else refit
