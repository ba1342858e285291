"""What a run's files say, gathered for the page and the charts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.errors import RunError
from edgetl.runs.compare import Origin, best_result, is_finished, origin_of
from edgetl.runs.run import ARGS, VALIDATION, EpochResult, Run, RunArgs
from edgetl.tasks import metrics
from edgetl.tasks.figures import leading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetl.data.pixel_range import PixelRange


LARGEST_MATRIX = 500
"""Classes; of more the fields of a picture would be smaller than its pixels, and take memory by their square."""

_ROWS = 256
"""Samples whose probabilities are computed at once."""

MOST_MISTAKES = 24
"""How many are looked at one by one."""


@dataclass(frozen=True)
class Confusion:
    """Samples of class `truth` that were taken for `predicted`; `share` is of all samples of `truth`."""

    truth: int
    predicted: int
    count: int
    share: float


@dataclass(frozen=True)
class Mistake:
    """A sample that was not recognised.

    Attributes:
        truth, predicted: class indices.
        truth_probability, predicted_probability: what the model gave them.
    """

    path: str
    digest: str
    truth: int
    predicted: int
    truth_probability: float
    predicted_probability: float


@dataclass(frozen=True)
class Measured:
    """The best epoch on the validation samples.

    Attributes:
        matrix: `[classes, classes]` int64, truth in rows; None with more than `LARGEST_MATRIX` classes.
        confusions: every pair of classes that was confused, the most frequent first.
        mistakes: up to `MOST_MISTAKES` samples that were not recognised, the least probable truth first.
    """

    matrix: NDArray[np.int64] | None
    summary: metrics.Classification
    confusions: tuple[Confusion, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def wrong(self) -> int:
        """How many samples were not recognised."""
        return self.summary.samples - self.summary.correct


@dataclass(frozen=True)
class Findings:
    """A run as its directory tells it.

    Attributes:
        before: the state before the first step (epoch 0), if it was measured.
        best: the best epoch; None if no epoch was finished.
        measured: None without validation samples, before training has ended, and of tasks other than
            classification.
        train_count, val_count: how many samples train and validate; None before that is known.
        val_folder: what holds all of those that validate; empty if no folder does.
        weights_mb: size of the best weights' file, 10^6 bytes.
    """

    path: Path
    args: RunArgs
    train_count: int | None
    val_count: int | None
    val_folder: str
    results: tuple[EpochResult, ...]
    metrics: dict[str, Any] | None
    finished: bool
    before: EpochResult | None
    best: EpochResult | None
    measured: Measured | None
    origin: Origin
    weights_mb: float | None

    @property
    def name(self) -> str:
        """The run directory's own name."""
        return self.path.resolve().name

    @property
    def lead(self) -> str:
        """The figure that is shown first."""
        return leading(self.args.task, self.args.metric)

    @property
    def things(self) -> str:
        """What the samples are called."""
        if self.args.window is not None or self.args.hop is not None:
            return "windows"
        return {"image": "pictures", "audio": "recordings", "text": "texts"}.get(self.args.modality, "samples")


def gather(run: Run) -> Findings:
    """Read a run directory.

    Raises:
        RunError: it is no run, or a file of it is damaged.
    """
    args, results, figures, counts = run.read_args(), run.read_results(), run.read_metrics(), run.count_samples()
    finished = is_finished(figures, results)
    # without validation samples that file holds training samples, which say nothing about the model's worth;
    # of a run that is being continued it is of an earlier best epoch
    proven = finished and counts["val"] > 0 and (run.path / VALIDATION).is_file()
    validated = args.task == "classification" and proven
    weights = run.path / run.deployed_weights()
    return Findings(
        path=run.path,
        args=args,
        train_count=counts["train"] if counts else None,
        val_count=counts["val"] if counts else None,
        val_folder=_common_folder(sample.name for sample in run.read_samples() if sample.part == "val"),
        results=results,
        metrics=figures,
        finished=finished,
        before=next((result for result in results if result.epoch == 0), None),
        best=best_result(results, args.metric, figures if finished else None),
        measured=measure(run, len(args.labels)) if validated else None,
        origin=origin_of(args),
        weights_mb=weights.stat().st_size / 1e6 if weights.is_file() else None,
    )


def _common_folder(names: Iterable[str]) -> str:
    """The folder that holds all files, or nothing if only the root does."""
    common = ""
    for name in names:
        try:
            folder = str(PurePath(name).parent)
            common = os.path.commonpath([common, folder]) if common else folder
        except ValueError:  # on several drives
            return ""
    return "" if common == str(PurePath(common).parent) else common


def measure(run: Run, classes: int) -> Measured:
    """Count what was right and what was taken for what.

    Raises:
        RunError: the validation file is damaged, or is not of this run.
    """
    validation = run.read_validation()
    truth = validation.labels
    sizes = {len(truth), len(validation.paths), len(validation.digests), len(validation.unseen)}
    if sizes != {len(truth)} or validation.unseen.shape[1:] != (classes,) or not _within(truth, classes):
        raise RunError(
            f"{run.path / VALIDATION} does not fit the run's {ARGS}: repeat its finetune command with --resume"
        )
    predicted = validation.unseen.argmax(axis=1).astype(np.int64)
    wrong = np.flatnonzero(predicted != truth)
    given, said = _probabilities(validation.unseen, wrong, truth[wrong], predicted[wrong])
    # the names of windows have their times
    names = {sample.digest: sample.name for sample in run.read_samples()} if validation.spans else {}
    return Measured(
        matrix=metrics.confusion_matrix(truth, predicted, classes) if classes <= LARGEST_MATRIX else None,
        summary=metrics.classification(truth, predicted, classes),
        confusions=_confusions(truth, predicted, classes),
        mistakes=tuple(
            Mistake(
                path=names.get(validation.digests[row], validation.paths[row]),
                digest=validation.digests[row],
                truth=int(truth[row]),
                predicted=int(predicted[row]),
                truth_probability=float(given[place]),
                predicted_probability=float(said[place]),
            )
            for place, row in ((place, wrong[place]) for place in np.argsort(given, kind="stable")[:MOST_MISTAKES])
        ),
    )


def _probabilities(
    logits: NDArray[np.float32], rows: NDArray[np.int64], *columns: NDArray[np.int64]
) -> tuple[NDArray[np.float64], ...]:
    """Return the probabilities of one class in each of the rows, `[len(rows)]`, for each of the lists of classes."""
    found = tuple(np.empty(len(rows)) for _ in columns)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        some = logits[rows[part]].astype(np.float64)
        odds = np.exp(some - some.max(axis=1, keepdims=True))
        for values, classes in zip(found, columns, strict=True):
            values[part] = odds[np.arange(len(odds)), classes[part]] / odds.sum(axis=1)
    return found


def _within(indices: NDArray[np.int64], classes: int) -> bool:
    return len(indices) > 0 and bool(indices.min() >= 0) and bool(indices.max() < classes)


def _confusions(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> tuple[Confusion, ...]:
    support = np.bincount(truth, minlength=classes)
    pairs = (column.tolist() for column in metrics.confused(truth, predicted, classes))
    found = [Confusion(was, said, count, float(count / support[was])) for was, said, count in zip(*pairs, strict=True)]
    return tuple(sorted(found, key=lambda item: (-item.count, -item.share, item.truth, item.predicted)))


def thumbnail(mistake: Mistake, *, size: int, pixel_range: PixelRange | None = None) -> tuple[str, str]:
    """Return a picture as a data: URI, scaled down to fit a square of `size` pixels, or why there is none.

    Returns:
        (URI, ""), or ("", reason).
    """
    import base64
    import io

    from PIL import Image

    from edgetl.data.dataset import content_digest, read_rgb
    from edgetl.errors import DataError

    try:
        data = Path(mistake.path).read_bytes()
    except (OSError, ValueError):
        return "", "is no longer where it was"
    if content_digest(data).hex() != mistake.digest:
        return "", "has changed since the run"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about metadata
            picture = Image.fromarray(read_rgb(data, at_least=size, pixel_range=pixel_range))
    except DataError as error:
        return "", str(error)
    small = max(picture.size) <= size // 2
    picture.thumbnail((size, size))
    encoded = io.BytesIO()
    if small:  # a few pixels, each of which counts
        picture.save(encoded, "PNG", optimize=True)
    else:
        picture.save(encoded, "JPEG", quality=82, optimize=True)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(encoded.getvalue()).decode()}", ""
