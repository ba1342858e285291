"""The deployed file in use: evaluate() and predict() need it, onnxruntime and Pillow, and nothing else."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults, runtime
from edgetl.data.folder import find_split, open_folder
from edgetl.data.images import read_rgb
from edgetl.errors import DataError, DeployError, EngineError
from edgetl.events import FeatureProgress, Note, OnEvent, Stage, ignore
from edgetl.providers import Provider, open_placed, resolve_provider

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE = "image"
LOGITS = "logits"
PROBABILITIES = "probabilities"
METADATA_NAMES = "names"
METADATA_EDGETL = "edgetl"


class DeployedModel:
    """A model written by `deploy`: an upright RGB picture of any size in, probabilities and logits out.

    Attributes:
        path: the file.
        labels: class names in the order of the outputs.
        provenance: what `deploy` wrote about the model's making.

    Raises:
        DeployError: the file is missing, no ONNX model, or not one that edgetl deployed.
        EngineError: onnxruntime is not installed, or the provider refuses the model.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 1,
        provider: Provider | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DeployError(f"{self.path} does not exist: write it with 'edgetl deploy RUN --out {self.path}'")
        provider = provider or Provider()
        runtime.import_onnxruntime()
        try:
            self._session = open_placed(self.path, provider, threads=threads, what=str(self.path), on_event=on_event)
        except EngineError as error:
            if not provider.is_cpu:
                raise
            raise DeployError(f"this is not an ONNX model that onnxruntime can load: {error}") from None
        metadata = self._session.metadata
        if METADATA_EDGETL not in metadata:
            raise DeployError(f"{self.path} is an ONNX model, but none that 'edgetl deploy' wrote")
        try:
            self.provenance: dict[str, Any] = json.loads(metadata[METADATA_EDGETL])
            self.labels = tuple(str(label) for label in self.provenance["labels"])
        except (ValueError, KeyError, TypeError):
            raise DeployError(f"{self.path} has damaged metadata: deploy it again") from None

    @property
    def placement(self) -> dict[str, float]:
        """Each execution provider's share of the first picture's time; empty before it."""
        return self._session.placement or {}

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Classify one picture `[height, width, 3]` uint8 RGB; return probabilities and logits, `[classes]` each."""
        probabilities, logits = self._session.run([PROBABILITIES, LOGITS], {IMAGE: pixels})
        return probabilities, logits


@dataclass(frozen=True)
class Evaluation:
    """How a deployed model does on labelled pictures.

    Attributes:
        recall: share of each class that is recognised.
        ms_per_image: wall-clock milliseconds, decoding included, with `threads` threads.
        placement: each execution provider's share of the time, as seen at the first picture.
    """

    model: str
    data: str
    accuracy: float
    correct: int
    samples: int
    recall: dict[str, float]
    seconds: float
    ms_per_image: float
    peak_rss_mb: float
    threads: int
    placement: dict[str, float]
    rejected: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, best first."""

    input: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class _Outcome:
    logits: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None
    reason: str


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    threads: int | None = None,
    provider: str = "cpu",
    provider_options: Mapping[str, str] | None = None,
    allow_fallback: bool = False,
    on_event: OnEvent = ignore,
) -> Evaluation:
    """Measure a deployed model on a folder with one folder per class.

    Of a data set in parts, `test/` is measured, or else `val/`. `provider`, `provider_options` and
    `allow_fallback` are as in `finetune`.

    Raises:
        DataError, DeployError, EngineError: see the message.
    """
    started = time.monotonic()
    threads = threads or runtime.available_cores()
    where = resolve_provider(provider, provider_options, allow_fallback=allow_fallback, on_event=on_event)
    deployed = DeployedModel(model, provider=where, on_event=on_event)
    found = find_split(Path(data))
    dataset = open_folder(found.test or found.val or found.train, deployed.labels)
    on_event(Stage("evaluating"))
    loop_started = time.monotonic()
    correct = np.zeros(len(dataset.labels), dtype=np.int64)
    total = np.zeros(len(dataset.labels), dtype=np.int64)
    rejected: list[tuple[str, str]] = []
    paths = [sample.path for sample in dataset.samples]
    for done, (sample, outcome) in enumerate(
        zip(dataset.samples, _run_all(deployed, paths, threads), strict=True), start=1
    ):
        if outcome.logits is None:
            rejected.append((str(sample.path), outcome.reason))
            on_event(Note(f"left out {sample.path}: {outcome.reason}"))
        else:
            total[sample.label] += 1
            correct[sample.label] += int(outcome.logits.argmax()) == sample.label
        on_event(FeatureProgress(done, len(paths), 0))
    seconds = time.monotonic() - loop_started
    if empty := [name for name, count in zip(dataset.labels, total, strict=True) if count == 0]:
        raise DataError(f"no usable picture is left for {', '.join(map(repr, empty))} in {dataset.root}")
    return Evaluation(
        model=str(model),
        data=str(dataset.root),
        accuracy=float(correct.sum() / total.sum()),
        correct=int(correct.sum()),
        samples=int(total.sum()),
        recall={name: float(c / t) for name, c, t in zip(dataset.labels, correct, total, strict=True)},
        seconds=time.monotonic() - started,
        ms_per_image=seconds / len(paths) * 1e3,
        peak_rss_mb=runtime.peak_rss_mb(),
        threads=threads,
        placement=deployed.placement,
        rejected=tuple(rejected),
    )


def predict(
    model: str | Path,
    inputs: Sequence[str | Path],
    *,
    top: int = defaults.TOP,
    threads: int | None = None,
    provider: str = "cpu",
    provider_options: Mapping[str, str] | None = None,
    allow_fallback: bool = False,
    on_event: OnEvent = ignore,
) -> list[Prediction]:
    """Classify picture files (or all files of a folder).

    Raises:
        DataError: an input does not exist, or none is a picture; single bad files of several are
            reported as notes.
    """
    where = resolve_provider(provider, provider_options, allow_fallback=allow_fallback, on_event=on_event)
    deployed = DeployedModel(model, provider=where, on_event=on_event)
    paths: list[Path] = []
    for item in map(Path, inputs):
        if item.is_dir():
            paths.extend(p for p in sorted(item.rglob("*")) if p.is_file() and not p.name.startswith("."))
        elif item.is_file():
            paths.append(item)
        else:
            raise DataError(f"{item} does not exist: give picture files, or a folder of them")
    predictions: list[Prediction] = []
    reasons: list[str] = []
    for path, outcome in zip(paths, _run_all(deployed, paths, threads or runtime.available_cores()), strict=True):
        if outcome.probabilities is None:
            reasons.append(f"{path} {outcome.reason}")
            on_event(Note(f"left out {path}: {outcome.reason}"))
            continue
        order = np.argsort(-outcome.probabilities, kind="stable")[: max(top, 1)]
        best = tuple((deployed.labels[i], float(outcome.probabilities[i])) for i in order)
        predictions.append(Prediction(str(path), best[0][0], best[0][1], best))
    if not predictions:
        raise DataError(reasons[0] if len(reasons) == 1 else "none of the inputs is a picture that can be read")
    return predictions


def logits_of(deployed: DeployedModel, paths: Sequence[Path], *, threads: int) -> list[NDArray[np.float32]]:
    """Return a deployed model's logits, `[classes]`, for each picture file.

    Raises:
        DataError: a file cannot be read.
    """
    found = []
    for path, outcome in zip(paths, _run_all(deployed, paths, threads), strict=True):
        if outcome.logits is None:
            raise DataError(f"{path} {outcome.reason}")
        found.append(outcome.logits)
    return found


def _run_all(deployed: DeployedModel, paths: Sequence[Path], threads: int) -> Sequence[_Outcome] | Any:
    def run(path: Path) -> _Outcome:
        try:
            probabilities, logits = deployed(read_rgb(path.read_bytes()))
        except DataError as error:
            return _Outcome(None, None, str(error))
        except OSError as error:
            return _Outcome(None, None, f"cannot be read ({error.strerror})")
        return _Outcome(logits, probabilities, "")

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield from runtime.map_in_order(run, paths, threads=threads)
