"""The settings of a run: checked, settled, and compared with those of a run that is to be resumed."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import zip_longest
from typing import Any

from edgetl import defaults, runtime, storage
from edgetl.artifacts import Artifacts
from edgetl.choices import (
    CACHE_PRECISIONS,
    CLASS_WEIGHTS,
    INITIALIZATIONS,
    OPTIMIZERS,
    SCHEDULES,
    STRENGTHS,
    check_choice,
    check_range,
)
from edgetl.engines import choose_micro_batch
from edgetl.errors import RunError
from edgetl.figures import metrics_of
from edgetl.run import (
    ARGS,
    BEST,
    CONFUSION,
    CURVES,
    LAST,
    LOCK,
    METRICS,
    REPORT,
    RESULTS,
    SAMPLES,
    VALIDATION,
    Checkpoint,
    Run,
    RunArgs,
    UsedSample,
)


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse arguments of `finetune`, by name, that the command line would not let through.

    Raises:
        EdgetlError: a word is none of the choices, or a number out of range.
    """
    for name, choices in (
        ("optimizer", OPTIMIZERS),
        ("schedule", SCHEDULES),
        ("init", INITIALIZATIONS),
        ("cache_precision", CACHE_PRECISIONS),
    ):
        check_choice(name, given[name], choices)
    for name, some in (("class_weights", CLASS_WEIGHTS), ("augment", STRENGTHS)):
        if given[name] is not None:
            check_choice(name, given[name], some)
    below_one, positive, finite = 1 - 1e-9, sys.float_info.min, sys.float_info.max
    for name, low, high in (
        ("val_fraction", 0, below_one),
        ("epochs", 0, math.inf),
        ("batch_size", 1, math.inf),
        ("lr", positive, finite),
        ("momentum", 0, below_one),
        ("weight_decay", 0, finite),
        ("clip_norm", positive, finite),
        ("warmup", 0, 1),
        ("label_smoothing", 0, below_one),
        ("patience", 1, math.inf),
        ("micro_batch", 1, math.inf),
        ("views", 1, math.inf),
        ("seed", 0, math.inf),
        ("threads", 1, math.inf),
    ):
        if given[name] is not None:
            check_range(name, given[name], low, high)


def check_task(given: Mapping[str, Any], task: str) -> None:
    """Refuse arguments of `finetune`, by name, that do not go with the task, before anything is computed.

    Raises:
        RunError: it names the option.
    """
    if task != "classification" and (
        given["label_smoothing"] or given["class_weights"] or given["init"] == "prototype"
    ):
        raise RunError(
            f"--label-smoothing, --class-weights and --init prototype are for one class per sample, not for {task}"
        )
    if given["metric"] is not None and given["metric"] not in metrics_of(task):
        raise RunError(
            f"--metric {given['metric']} is not measured of {task}: choose one of {', '.join(metrics_of(task))}"
        )


def settle(run: Run, args: RunArgs, prepared: Artifacts, samples: int, *, resume: bool) -> RunArgs:
    """Settle what the user left open, by the artifacts, or as the run to be resumed has it.

    Args:
        samples: how many train.

    Raises:
        RunError: the settings of the run to be resumed are damaged.
    """
    if args.init == "auto":
        args = replace(args, init=_best_initialization(prepared, args, samples))
    before = run.read_args() if resume and (run.path / ARGS).is_file() else None
    if args.lr == 0 and before is not None:
        args = replace(args, lr=before.lr)
    if args.micro_batch is None:
        chosen = choose_micro_batch(prepared.manifest, args.batch_size, runtime.available_memory_mb())
        args = replace(args, micro_batch=before.micro_batch if before is not None else chosen)
    return args


def _best_initialization(prepared: Artifacts, args: RunArgs, samples: int) -> str:
    """Return the initialization that benchmarks/initialization.py found best for so many training samples."""
    if prepared.manifest.head is None:
        return "zero"
    few = samples < defaults.RIDGE_FROM * prepared.manifest.outputs
    return "prototype" if few and args.task == "classification" else "ridge"


def begin(
    run: Run, args: RunArgs, samples: Callable[[], Iterator[UsedSample]], *, resume: bool, force: bool
) -> Checkpoint | None:
    """Make the run directory ready: new, or at the last checkpoint of the run to be resumed.

    Raises:
        RunError: there is a run that must not be replaced, or that had other settings or data.
    """
    if resume and (run.path / ARGS).is_file():
        _check_same(run, run.read_args(), args, samples())
        last = run.read_checkpoint(LAST)
        if last is not None and last.epoch >= args.epochs:
            args = replace(args, epochs=last.epoch)
    else:
        if not resume:
            storage.refuse_existing(run.path, force=force, marker=ARGS, hint="--resume or --force", besides=LOCK)
        for name in (REPORT, CURVES, CONFUSION, METRICS, VALIDATION, LAST, BEST, RESULTS, SAMPLES, ARGS):
            (run.path / name).unlink(missing_ok=True)
        last = None
    run.write_samples(samples())
    run.write_args(args)
    return last


_MAY_DIFFER = {
    *("edgetl_version", "artifacts", "data", "val", "epochs"),
    # follow from the samples, which are compared by their content
    *("input_columns", "label_columns", "target_mean", "target_std"),
}


def _check_same(run: Run, before: RunArgs, now: RunArgs, samples: Iterator[UsedSample]) -> None:
    """Refuse to continue a run with other settings or other data."""
    if now.epochs != before.epochs and (now.schedule != "constant" or now.warmup):
        raise RunError(
            f"{run.path} cannot be resumed for {now.epochs} epochs, because its learning rate follows a schedule "
            f"of {before.epochs}: repeat the first command with --resume, or start anew with --force"
        )
    for name in (field.name for field in fields(RunArgs) if field.name not in _MAY_DIFFER):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            what = "the artifacts differ" if name == "artifacts_sha256" else f"{name} was {old!r} and is now {new!r}"
            raise RunError(
                f"{run.path} cannot be resumed, because {what}: repeat the first command with --resume, "
                "or start anew with --force"
            )
    # the names may be others: a sample is known by its content
    pairs = zip_longest(run.read_samples(), samples) if (run.path / SAMPLES).is_file() else ()
    if any(old is None or new is None or old[:-1] != new[:-1] for old, new in pairs):
        raise RunError(
            f"{run.path} cannot be resumed, because the data in {now.data} have changed since it began: "
            "start anew with --force (features of unchanged samples are reused)"
        )
