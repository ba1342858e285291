"""From labelled data to rows that train and rows that validate, with their features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.artifacts import ARRAY, IMAGE, Artifacts
from edgetl.data.augment import Views
from edgetl.data.checks import contradictions, missing, odd_columns
from edgetl.data.dataset import Dataset, split_stratified, strata
from edgetl.data.depth import find_pixel_range
from edgetl.data.memory import Budget
from edgetl.data.pixel_range import PixelRange, check_pixel_range
from edgetl.data.survey import Windows, survey
from edgetl.errors import DataError
from edgetl.events import Note, OnEvent, Stage
from edgetl.runs.run import RunArgs, UsedSample
from edgetl.training.features import FeatureSet, Rejected, alike, decoder_of, extract_features, extract_views
from edgetl.training.resources import Resources
from edgetl.training.settings import FinetuneSettings, choose_refit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS_FROM = 2000
"""Samples in which columns of numbers are looked at."""


@dataclass(frozen=True)
class Extracted:
    """Usable samples with their features, and which of them train.

    Attributes:
        labels: of `features.samples`: `[N]` int64 class indices, or `[N, K]` float64.
        train_rows, val_rows: indices of the samples that train and of those that validate.
        recordings: of `features.samples`: `[N]`, which recording each is a window of.
        refits: whether the run ends with training on all of them.
        duplicates: how many validation samples have the content of a sample that trains.
        pixel_range: of pictures of more than 8 bits; None if there are none.
    """

    features: FeatureSet
    labels: NDArray[Any]
    train_rows: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    recordings: NDArray[np.int64]
    refits: bool
    duplicates: int
    pixel_range: PixelRange | None

    def used(self, args: RunArgs) -> Iterator[UsedSample]:
        """Yield the lines of `samples.csv`."""
        for part, rows in (("train", self.train_rows), ("val", self.val_rows)):
            for row in rows:
                label = self.labels[row].tolist()
                known = args.labels[label] if args.task == "classification" else " ".join(map(repr, label))
                yield UsedSample(part, self.features.digest(row), known, self.features.samples[row].name)


def extract(
    settings: FinetuneSettings,
    prepared: Artifacts,
    found: Resources,
    train_set: Dataset,
    val_set: Dataset | None,
    windows: Windows | None,
) -> Extracted:
    """Compute the features of all samples, divide them, and tell what the user should know of them.

    Raises:
        DataError: a class has no usable sample, or nothing validates that should.
    """
    manifest, on_event = prepared.manifest, settings.on_event
    on_event(Stage("features"))
    values = None if settings.pixel_range is None else check_pixel_range(settings.pixel_range)
    if values is None and manifest.modality == IMAGE:
        budget = Budget(found.decoding_mb)
        values = find_pixel_range(train_set.samples, threads=found.threads, budget=budget, on_event=on_event)
    everything = train_set.samples + val_set.samples if val_set else train_set.samples
    surveyed = survey(everything, decoder_of(prepared), windows, threads=found.threads, on_event=on_event, trains=True)
    features = extract_features(
        prepared,
        surveyed.samples,
        cache=Path(settings.cache) if settings.cache else None,
        threads=found.threads,
        provider=found.provider,
        precision=found.cache_precision,
        pixel_range=values,
        decode=settings.decode,
        decoding_mb=found.decoding_mb,
        on_event=on_event,
    )
    _tell_rejected(features.rejected, on_event)
    labels = _labels(manifest.task, features)
    origins = surveyed.origins[features.positions]
    train_rows, val_rows = _divide(
        origins, labels, manifest.task, train_set, val_set, settings.val_fraction, settings.seed
    )
    split = val_set is None and len(val_rows) > 0
    refits = (
        choose_refit(settings.refit, len(features.samples), split=split, pretrained=manifest.trains_pretrained)
        and len(val_rows) > 0
    )
    if settings.augment is not None:
        on_event(Stage(f"{settings.views} views of each"))
        seen = np.sort(np.concatenate([train_rows, val_rows])) if refits else train_rows
        views = Views(settings.augment, settings.views, settings.seed, settings.flip)
        features = extract_views(features, seen, views, on_event)
    duplicates = _tell_duplicates(features, train_rows, val_rows, on_event)
    _tell_labels(train_set.labels, labels, manifest.task, features, val_rows, on_event)
    if manifest.modality == ARRAY and len(manifest.inputs[0].shape) == 1:
        _tell_columns(prepared, features, train_rows, train_set.input_columns, on_event)
    if sentence := alike(features, train_rows, labels):
        on_event(Note(sentence))
    if manifest.task == "multilabel":
        _tell_never(train_set.labels, labels[train_rows], on_event)
    if manifest.task == "regression":
        _refuse_huge(train_set.labels, labels, features)
    return Extracted(features, labels, train_rows, val_rows, origins, refits, duplicates, values)


def _labels(task: str, features: FeatureSet) -> NDArray[Any]:
    """`[N]` int64 class indices, or `[N, K]` float64."""
    kind = np.int64 if task == "classification" else np.float64
    return np.array([sample.label for sample in features.samples], dtype=kind)


def _divide(
    origins: NDArray[np.int64],
    labels: NDArray[Any],
    task: str,
    train_set: Dataset,
    val_set: Dataset | None,
    val_fraction: float,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the usable samples that train and of those that validate; windows of one recording stay together.

    Args:
        origins: of each usable sample, the index of the training or validation data's sample that it is part of.
    """
    trains = origins < len(train_set.samples)
    candidates, others = np.flatnonzero(trains), np.flatnonzero(~trains)
    left = set(labels[candidates].tolist()) if task == "classification" else {0} if len(candidates) else set()
    names = train_set.labels if task == "classification" else ("training",)
    if empty := [name for index, name in enumerate(names) if index not in left]:
        raise DataError(
            f"no usable sample is left for {', '.join(map(repr, empty))} in {train_set.root}: "
            "add some, or replace what was left out"
        )
    if val_set is not None:
        if len(others) == 0:
            raise DataError(f"no usable sample is left in {val_set.root}: replace those named above")
        return candidates, others
    _, first, whole = np.unique(origins[candidates], return_index=True, return_inverse=True)
    _, val = split_stratified(strata(task, labels[candidates[first]]), val_fraction, seed)
    validates = np.isin(whole, val)
    return candidates[~validates], candidates[validates]


def _tell_duplicates(
    features: FeatureSet, train_rows: NDArray[np.int64], val_rows: NDArray[np.int64], on_event: OnEvent
) -> int:
    """Count and name validation samples whose content also trains; they make the figures too good."""
    digests = features.digests.view("V16")[:, 0]
    found = val_rows[np.isin(digests[val_rows], digests[train_rows])]
    if len(found):
        named = [features.samples[row].name for row in found[:3]]
        twins = [features.samples[train_rows[digests[train_rows] == digests[row]][-1]].name for row in found[:3]]
        shown = "; ".join(f"{name} is {twin}" for name, twin in zip(named, twins, strict=True))
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        on_event(
            Note(
                f"{len(found)} of {len(val_rows)} validation samples have the same content as training samples, which "
                f"makes the validation figures too good ({shown}{more})"
            )
        )
    return len(found)


def _tell_labels(
    names: tuple[str, ...],
    labels: NDArray[Any],
    task: str,
    features: FeatureSet,
    val_rows: NDArray[np.int64],
    on_event: OnEvent,
) -> None:
    """Name labels that contradict each other, and those that the validation cannot measure."""
    digests = [digest.tobytes() for digest in features.digests]
    found = [contradictions(digests, labels, names, lambda index: features.samples[index].name)]
    if task != "regression" and len(val_rows):
        found.append(missing(names, labels[val_rows], "validation sample"))
    for sentence in found:
        if sentence is not None:
            on_event(Note(sentence))


def _tell_columns(
    prepared: Artifacts, features: FeatureSet, rows: NDArray[np.int64], names: Sequence[str], on_event: OnEvent
) -> None:
    """Name columns of numbers that tell nothing or drown the others; up to `_COLUMNS_FROM` samples are looked at."""
    decode = decoder_of(prepared)
    some = rows[:: -(-len(rows) // _COLUMNS_FROM)]
    values = np.stack([decode(features.samples[row].read())[ARRAY].reshape(-1) for row in some])
    for sentence in odd_columns(values.min(0), values.max(0), names):
        on_event(Note(sentence))


def _refuse_huge(names: tuple[str, ...], labels: NDArray[np.float64], features: FeatureSet) -> None:
    """Refuse numbers that the network could not give.

    Raises:
        DataError: there are such.
    """
    largest = float(np.finfo(np.float32).max) / 100  # so that scaled ones have room around them
    if len(found := np.argwhere(np.abs(labels) > largest)):
        row, column = found[0].tolist()
        raise DataError(
            f"{features.samples[row].name}: {names[column]} is {labels[row, column]:.3g}, too large for numbers of 32 "
            "bits: scale it, or give its logarithm"
        )


def _tell_never(names: tuple[str, ...], labels: NDArray[Any], on_event: OnEvent) -> None:
    never = [repr(name) for name, count in zip(names, labels.sum(axis=0).tolist(), strict=True) if count == 0]
    if never:
        on_event(Note(f"no training sample has the label {', '.join(never)}: it cannot be learned"))


def _tell_rejected(rejected: tuple[Rejected, ...], on_event: OnEvent, limit: int = 20) -> None:
    for item in rejected[:limit]:
        on_event(Note(f"left out {item.name}: {item.reason}"))
    if len(rejected) > limit:
        on_event(Note(f"and {len(rejected) - limit} more samples were left out; metrics.json names them all"))
