"""What a run's files say, gathered for the page and the plots."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import metrics
from edgetl.errors import RunError
from edgetl.run import ARGS, BEST, VALIDATION, EpochResult, Run, RunArgs, RunSamples
from edgetl.runs import Origin, best_result, is_finished, origin_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Confusion:
    """Pictures of class `truth` that were taken for `predicted`; `share` is of all pictures of `truth`."""

    truth: int
    predicted: int
    count: int
    share: float


@dataclass(frozen=True)
class Mistake:
    """A picture that was not recognised.

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
    """The best epoch on the validation pictures.

    Attributes:
        matrix: `[classes, classes]` int64, truth in rows.
        confusions: every pair of classes that was confused, the most frequent first.
        mistakes: every picture that was not recognised, the least probable truth first.
    """

    matrix: NDArray[np.int64]
    summary: metrics.Classification
    confusions: tuple[Confusion, ...]
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class Findings:
    """A run as its directory tells it.

    Attributes:
        before: the state before the first step (epoch 0), if it was measured.
        best: the best epoch; None if no epoch was finished.
        measured: None without validation pictures, before training has ended, and of tasks other than
            classification.
        weights_mb: size of the best weights' file, 10^6 bytes.
    """

    path: Path
    args: RunArgs
    samples: RunSamples | None
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
    def val_count(self) -> int:
        """How many pictures were kept for validation."""
        return len(self.samples.val_digests) if self.samples else 0


def gather(run: Run) -> Findings:
    """Read a run directory.

    Raises:
        RunError: it is no run, or a file of it is damaged.
    """
    args, samples, results, figures = run.read_args(), run.read_samples(), run.read_results(), run.read_metrics()
    finished = is_finished(figures, results)
    # without validation samples that file holds training samples, which say nothing about the model's worth;
    # of a run that is being continued it is of an earlier best epoch
    proven = finished and bool(samples and samples.val_digests) and (run.path / VALIDATION).is_file()
    validated = args.task == "classification" and proven
    weights = run.path / BEST
    return Findings(
        path=run.path,
        args=args,
        samples=samples,
        results=results,
        metrics=figures,
        finished=finished,
        before=next((result for result in results if result.epoch == 0), None),
        best=best_result(results, figures if finished else None),
        measured=measure(run, len(args.labels)) if validated else None,
        origin=origin_of(args),
        weights_mb=weights.stat().st_size / 1e6 if weights.is_file() else None,
    )


def measure(run: Run, classes: int) -> Measured:
    """Count what was right and what was taken for what.

    Raises:
        RunError: the validation file is damaged, or is not of this run.
    """
    validation = run.read_validation()
    truth = validation.labels
    sizes = {len(truth), len(validation.paths), len(validation.digests), len(validation.logits)}
    if sizes != {len(truth)} or validation.logits.shape[1:] != (classes,) or not _within(truth, classes):
        raise RunError(f"{run.path / VALIDATION} does not fit the run's {ARGS}: start the run anew with --force")
    logits = validation.logits.astype(np.float64)
    predicted = logits.argmax(axis=1).astype(np.int64)
    matrix = metrics.confusion_matrix(truth, predicted, classes)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    wrong = np.flatnonzero(predicted != truth)
    given = probabilities[wrong, truth[wrong]]
    return Measured(
        matrix=matrix,
        summary=metrics.classification(matrix),
        confusions=_confusions(matrix),
        mistakes=tuple(
            Mistake(
                path=validation.paths[row],
                digest=validation.digests[row],
                truth=int(truth[row]),
                predicted=int(predicted[row]),
                truth_probability=float(probabilities[row, truth[row]]),
                predicted_probability=float(probabilities[row, predicted[row]]),
            )
            for row in wrong[np.argsort(given, kind="stable")]
        ),
    )


def _within(indices: NDArray[np.int64], classes: int) -> bool:
    return len(indices) > 0 and bool(indices.min() >= 0) and bool(indices.max() < classes)


def _confusions(matrix: NDArray[np.int64]) -> tuple[Confusion, ...]:
    support = matrix.sum(axis=1)
    wrong = matrix - np.diag(matrix.diagonal())
    found = [
        Confusion(
            int(truth), int(predicted), int(wrong[truth, predicted]), float(wrong[truth, predicted] / support[truth])
        )
        for truth, predicted in np.argwhere(wrong)
    ]
    return tuple(sorted(found, key=lambda item: (-item.count, -item.share, item.truth, item.predicted)))


def thumbnail(mistake: Mistake, *, size: int) -> tuple[str, str]:
    """Return a picture as a data: URI, scaled down to fit a square of `size` pixels, or why there is none.

    Returns:
        (URI, ""), or ("", reason).
    """
    import base64
    import io

    from PIL import Image

    from edgetl.data import content_digest, read_rgb
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
            picture = Image.fromarray(read_rgb(data, at_least=size))
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
