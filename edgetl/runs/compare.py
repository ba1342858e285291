"""compare_runs(): what the runs below a directory were and achieved, best first."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.artifacts import BACKBONE, MANIFEST, PREPROCESS, TRAINABLE
from edgetl.errors import RunError
from edgetl.events import Note, OnEvent, ignore
from edgetl.files.kinds import RUNS, mistaken
from edgetl.runs.run import ARGS, EpochResult, Run, RunArgs
from edgetl.tasks.figures import best_epoch, demerit, leading


@dataclass(frozen=True)
class Origin:
    """What a run was trained from, as far as its prepared directory still tells.

    Attributes:
        model: where the pretrained model came from; the prepared directory's path if that is gone,
            or is another one by now.
        policy: what was asked to train; empty if unknown.
        trainable_parameters, frozen_parameters: their numbers.
        network_mb: size of preprocessing, frozen and trained part together, 10^6 bytes: what a
            deployed file takes.
    """

    model: str
    policy: tuple[str, ...] = ()
    trainable_parameters: int | None = None
    frozen_parameters: int | None = None
    network_mb: float | None = None


@dataclass(frozen=True)
class RunSummary:
    """One line of the comparison. What is unknown is None.

    Attributes:
        run: the run directory.
        name: its path below the directory that was searched.
        finished: whether training ended; if not, the figures are those of the epochs so far.
        epochs: finished ones, of `planned_epochs`.
        metric: by what the best epoch was chosen.
        val_figures: of the best epoch, by name; empty without validation data.
        seconds: from the start of the process to the end; of an unfinished run, its epochs alone.
    """

    run: str
    name: str
    finished: bool
    model: str
    policy: tuple[str, ...]
    epochs: int
    planned_epochs: int
    best_epoch: int | None
    task: str
    metric: str
    val_figures: dict[str, float | None]
    val_loss: float | None
    train_samples: int | None
    val_samples: int | None
    batch_size: int
    lr: float
    engine: str
    seconds: float | None


def compare_runs(directory: str | Path, *, sort: str = "metric", on_event: OnEvent = ignore) -> tuple[RunSummary, ...]:
    """Summarise the runs at and below `directory`, best first.

    A run that cannot be read is left out, and `on_event` is told so.

    Args:
        sort: one of `SORTS`. The metric counts from the best, epochs from the highest, loss and seconds
            from the lowest, names from A; runs that lack the figure come last.

    Raises:
        RunError: there is no such directory, or no run in it.
        ValueError: `sort` is none of `SORTS`.
    """
    root = Path(directory)
    if sort not in SORTS:
        raise ValueError(f"sort is {sort!r}: choose one of {', '.join(SORTS)}")
    if not root.is_dir():
        raise RunError(mistaken(root, RUNS))
    found = []
    for path in _find(root):
        try:
            found.append(_summarise(Run(path), root))
        except (RunError, OSError) as error:
            on_event(Note(f"left out {path}: {error}"))
    if not found and (root / MANIFEST).is_file():
        raise RunError(mistaken(root, RUNS))
    if not found:
        raise RunError(f"no run lies in {root} or below it: 'edgetl finetune … --out {root / 'NAME'}' makes one")
    found.sort(key=lambda run: run.name)
    return tuple(sorted(found, key=SORTS[sort]))


def origin_of(args: RunArgs) -> Origin:
    """Look into the prepared directory that a run was trained from; its hashes are not checked, but whose it is."""
    directory = Path(args.artifacts)
    unknown = Origin(args.artifacts)
    try:
        text = (directory / MANIFEST).read_bytes()
        if hashlib.sha256(text).hexdigest() != args.artifacts_sha256:
            return unknown
        # plainly as JSON: the manifest may be older or newer than what this version trains from
        manifest = json.loads(text)
        return Origin(
            model=str(manifest["source"]["spec"]),
            policy=tuple(manifest["policy"]),
            trainable_parameters=_count(manifest["trainable"]),
            frozen_parameters=_count(manifest["frozen"]),
            network_mb=sum(
                (directory / name).stat().st_size
                for name in (PREPROCESS, BACKBONE, TRAINABLE)
                if name in manifest["files"]
            )
            / 1e6,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return unknown


def best_result(
    results: tuple[EpochResult, ...], metric: str, metrics: dict[str, Any] | None = None
) -> EpochResult | None:
    """The line that training takes for the best (`edgetl.tasks.figures.best_epoch`).

    The lines are rounded, so the summary of a finished run, where it is given, decides between equals.
    """
    named = number(metrics, "best_epoch")
    if known := [result for result in results if result.epoch == named]:
        return known[0]
    return best_epoch(results, metric) if results else None


def is_finished(metrics: dict[str, Any] | None, results: tuple[EpochResult, ...]) -> bool:
    """Whether training ended: a run that is being continued has newer epochs than its summary."""
    if metrics is None:
        return False
    return not results or results[-1].epoch <= (number(metrics, "epochs") or 0)


def number(metrics: dict[str, Any] | None, name: str) -> float | None:
    """A figure of `metrics.json`; None where it is missing or no number."""
    value = (metrics or {}).get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _find(root: Path) -> list[Path]:
    found = []
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if ARGS in files:
            found.append(Path(directory))
            folders.clear()  # nothing in a run is another one
    return found


def _summarise(run: Run, root: Path) -> RunSummary:
    args, results, metrics, counts = run.read_args(), run.read_results(), run.read_metrics(), run.count_samples()
    finished = is_finished(metrics, results)
    best = best_result(results, args.metric, metrics if finished else None)
    origin = origin_of(args)
    epoch_seconds = [result.seconds for result in results if result.seconds is not None]
    return RunSummary(
        run=str(run.path),
        name=run.path.relative_to(root).as_posix() if run.path != root else root.resolve().name,
        finished=finished,
        model=origin.model,
        policy=origin.policy,
        epochs=results[-1].epoch if results else 0,
        planned_epochs=args.epochs,
        best_epoch=best.epoch if best else None,
        task=args.task,
        metric=args.metric,
        val_figures=best.val_figures if best else {},
        val_loss=best.val_loss if best else None,
        train_samples=counts["train"] if counts else None,
        val_samples=counts["val"] if counts else None,
        batch_size=args.batch_size,
        lr=args.lr,
        engine=args.engine,
        seconds=number(metrics, "seconds") if finished else math.fsum(epoch_seconds),
    )


def _count(tensors: list[dict[str, Any]]) -> int:
    return sum(math.prod(tensor["shape"]) for tensor in tensors)


def _by_metric(run: RunSummary) -> Any:
    lead = leading(run.task, run.metric)
    return lead, demerit(lead, run.val_figures.get(lead)), demerit("loss", run.val_loss)


SORTS: dict[str, Callable[[RunSummary], Any]] = {
    "metric": _by_metric,
    "loss": lambda run: demerit("loss", run.val_loss),
    "epochs": lambda run: -run.epochs,
    "seconds": lambda run: math.inf if run.seconds is None else run.seconds,
    "name": lambda run: run.name,
}
"""How runs can be sorted, and by what."""
