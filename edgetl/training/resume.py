"""Begin a run, or go on with one that was interrupted: nothing but what may change has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import zip_longest

from edgetl.artifacts import Artifacts
from edgetl.declaration import declarations
from edgetl.engines.registry import choose_micro_batch
from edgetl.errors import RunError
from edgetl.files import storage
from edgetl.runs.run import (
    ARGS,
    BEST,
    CONFUSION,
    CURVES,
    FINAL,
    LAST,
    LOCK,
    METRICS,
    REPORT,
    RESULTS,
    SAMPLES,
    UNCHOSEN,
    VALIDATION,
    Checkpoint,
    Run,
    RunArgs,
    UsedSample,
)
from edgetl.runs.settings import TrainingSettings
from edgetl.runtime import process


def settle(run: Run, args: RunArgs, prepared: Artifacts, *, largest: int | None, resume: bool) -> RunArgs:
    """Settle what the user left open, by the artifacts, or as the run to be resumed has it.

    Args:
        largest: micro-batch that fits the device; None if none was named.

    Raises:
        RunError: the settings of the run to be resumed are damaged.
    """
    if args.init == "auto":
        args = replace(args, init="zero" if prepared.manifest.head is None else "ridge")
    before = run.read_args() if resume and (run.path / ARGS).is_file() else None
    if args.lr == UNCHOSEN and before is not None:
        args = replace(args, lr=before.lr)
    if args.micro_batch is None:
        chosen = choose_micro_batch(prepared.manifest, args.batch_size, process.available_memory_mb())
        if largest is not None and (chosen or args.batch_size) > largest:
            chosen = largest
        args = replace(args, micro_batch=before.micro_batch if before is not None else chosen)
    return args


def refuse_others(run: Run, *, resume: bool, force: bool) -> None:
    """Refuse a directory that is there and that a new run may not take the place of.

    Raises:
        EdgetlError: it says what may be done.
    """
    if resume and (run.path / ARGS).is_file():
        return
    left = {LOCK, SAMPLES} if resume else {LOCK}  # by a run that was interrupted before it had begun
    storage.refuse_existing(run.path, force=force or resume, marker=ARGS, hint="add --resume or --force", besides=left)


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
            (run.path / METRICS).unlink(missing_ok=True)  # it goes on, so what this says does not hold any more
    else:
        refuse_others(run, resume=resume, force=force)
        for name in (REPORT, CURVES, CONFUSION, METRICS, VALIDATION, LAST, BEST, FINAL, RESULTS, SAMPLES, ARGS):
            (run.path / name).unlink(missing_ok=True)
        last = None
    storage.sweep(run.path)
    run.write_samples(samples())
    run.write_args(replace(args, samples_sha256=storage.sha256_file(run.path / SAMPLES)))
    return last


_MAY_DIFFER = {
    *(each.name for each, known in declarations(TrainingSettings) if known.may_change),
    *("edgetl_version", "artifacts", "data", "val", "device"),
    # follow from the samples, which are compared by their content
    *("input_columns", "label_columns", "target_mean", "target_std", "samples_sha256"),
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
            if name == "engine":
                raise RunError(
                    f"{run.path} was begun with the engine {old}, and only that one goes on with it: resume it where "
                    f"{old} is installed, with --engine {old}, or start anew with --force"
                )
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
