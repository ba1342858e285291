"""finetune(): samples to features, features to a trained head, everything into a run directory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgetl
from edgetl import defaults, runtime, schema
from edgetl.artifacts import Artifacts, Optimizer, load_artifacts
from edgetl.data import Dataset, open_training, split_stratified, strata, wanted_by
from edgetl.data.augment import Views
from edgetl.data.checks import contradictions, missing, odd_columns
from edgetl.data.decode import ARRAY, IMAGE, enough_pixels
from edgetl.data.depth import check_pixel_range, find_pixel_range
from edgetl.data.memory import Budget, typical_mb
from edgetl.data.survey import survey, windows_of
from edgetl.errors import DataError, OutOfMemoryError
from edgetl.events import Note, OnEvent, Stage, ignore
from edgetl.features import FeatureSet, Rejected, alike, decoder_of, extract_features, extract_views
from edgetl.figures import FIGURES, best_epoch
from edgetl.loop import Job, default_learning_rate, find_learning_rate, initial_head, prove, train
from edgetl.loop import refit as train_on_all
from edgetl.machine import this_machine
from edgetl.outcome import concerns
from edgetl.report import report_or_note
from edgetl.run import LAST, Run, RunArgs, UsedSample
from edgetl.settings import (
    begin,
    check_options,
    check_task,
    choose_refit,
    choose_schedule,
    fit,
    refuse_others,
    resources,
    settle,
)
from edgetl.targets import OUTPUTS_ARE, answers, figures, scaling

if TYPE_CHECKING:
    from numpy.typing import NDArray


_COLUMNS_FROM = 2000
"""Samples in which columns of numbers are looked at."""


@dataclass(frozen=True)
class FinetuneResult:
    """What a run achieved, where it lies and what it took.

    Attributes:
        run: the run directory.
        metric: what decides which epoch is the best: a figure of the task, or `loss`.
        val_metric, val_loss: of the best epoch; None without validation data.
        val_accuracy: None where it is not measured, for other tasks than classification too.
        val_figures: everything measured on the validation data with the best weights, by name.
        lr: the learning rate, the schedule's largest.
        refit: whether what is deployed was trained on all samples in the end, those that validated included;
            what was measured is of the weights before.
        duplicates: how many validation samples have the content of a sample that trains.
        feature_ms_per_image: wall-clock milliseconds per newly computed picture; None if all were
            in the cache.
        training_seconds: all epochs, validation and checkpoints included, of this call.
        peak_rss_mb: largest resident memory of this process, 10^6 bytes.
        placement: of the frozen part (`features`) and of the `training` step, each execution
            provider's share of the time; empty for what did not run.
        rejected: samples left out, and why.
        concerns: what did not go well, in sentences (`edgetl.outcome`).
    """

    run: str
    task: str
    epochs: int
    best_epoch: int
    metric: str
    val_metric: float | None
    val_accuracy: float | None
    val_loss: float | None
    val_figures: dict[str, float | None]
    lr: float
    refit: bool
    train_samples: int
    val_samples: int
    duplicates: int
    features_computed: int
    features_reused: int
    feature_seconds: float
    feature_ms_per_image: float | None
    training_seconds: float
    seconds: float
    peak_rss_mb: float
    engine: str
    placement: dict[str, dict[str, float]]
    rejected: tuple[tuple[str, str], ...]
    concerns: tuple[str, ...]


def finetune(
    artifacts: str | Path,
    data: str | Path,
    *,
    out: str | Path,
    val: str | Path | None = None,
    val_fraction: float = defaults.VAL_FRACTION,
    keep_test: bool = False,
    input_column: Sequence[str] = (),
    label_column: Sequence[str] = (),
    window: float | None = None,
    hop: float | None = None,
    epochs: int = defaults.EPOCHS,
    batch_size: int | None = None,
    lr: float | str = defaults.RATE,
    init: str = defaults.INIT,
    schedule: str = defaults.SCHEDULE,
    warmup: float | None = None,
    metric: str | None = None,
    refit: bool | None = None,
    patience: int | None = None,
    label_smoothing: float = 0.0,
    class_weights: str | None = None,
    augment: str | None = None,
    views: int = defaults.VIEWS,
    flip: bool = True,
    seed: int = defaults.SEED,
    resume: bool = False,
    force: bool = False,
    engine: str = "auto",
    optimizer: str = "adamw",
    momentum: float = defaults.SGD_MOMENTUM,
    weight_decay: float = defaults.WEIGHT_DECAY,
    clip_norm: float | None = None,
    micro_batch: int | None = None,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
    allow_fallback: bool = False,
    cache: str | Path | None = None,
    cache_precision: str | None = None,
    pixel_range: Sequence[float] | None = None,
    decode: str = defaults.DECODE,
    threads: int | None = None,
    device: str | None = None,
    memory_mb: float | None = None,
    on_event: OnEvent = ignore,
) -> FinetuneResult:
    """Train a prepared directory on labelled samples; torch is not needed.

    Args:
        artifacts: a directory made by `prepare`.
        data: a folder with one folder per class, a table or an archive of arrays, optionally with the
            parts `train` and `val` or `test` (see docs/data.md).
        out: the run directory to write.
        val: data to validate on; without it the part `val` or `test` of `data`, or `val_fraction` of the
            training samples, stratified and seeded.
        keep_test: whether the part `test` of `data` is left alone, so that it can be evaluated at the end; where there
            is no `val`, `val_fraction` of the training samples validates.
        input_column, label_column: of a table, where they have other names than usual; several for
            arrays, and for several labels or numbers.
        window, hop: of recordings, the length in seconds of the windows that are samples, and the time from
            one to the next; either may be left out (`edgetl.data.survey.windows_of`). Without both, a longer
            recording is one sample: its middle. Windows of one recording all train or all validate, and
            silent ones are left out where others are not.
        epochs: 0 gives what `init` gives.
        lr: the largest learning rate of the schedule. `auto` chooses it for what trains, `search` tries
            several on the training data and takes the best (`edgetl.rate`).
        init: how a new head begins: `zero`, or in closed form from the features, `prototype` or `ridge`
            (`edgetl.initialization`); `auto` is `ridge`, or `zero` where the head is not a linear layer.
        schedule: how the learning rate changes, one of `edgetl.choices.AUTO_SCHEDULES`, behind `warmup`, a share of
            all steps. `auto` is `constant` for a head alone; where pretrained layers train, it is `linear`
            behind a warm-up of `edgetl.rate.PRETRAINED_WARMUP`.
        metric: by what the best epoch is chosen, one of `edgetl.figures.metrics_of(task)`; default the first.
        refit: whether training ends with all samples, those that validated included, from the start and for as
            many epochs as were best; the result is what is deployed. None does so for a head alone, and for fewer
            than `edgetl.defaults.REFIT_BELOW` samples, unless validation data are given.
        patience: stop after so many epochs in a row without a better one.
        label_smoothing: see `edgetl.targets.TargetEncoder`; for classification.
        class_weights: `balanced` lets every class count alike, however many samples it has; for
            classification.
        augment: `light` or `strong`: `views` other views of each training sample are put into the cache,
            and every epoch draws one of them, or the sample itself (`edgetl.data.augment`); `flip` says
            whether pictures may be mirrored.
        resume: continue the run at `out` from its last finished epoch (or begin, if there is none),
            with the same result as an uninterrupted one.
        force: replace the run at `out`.
        optimizer: `adamw`, or `sgd` with `momentum`; `weight_decay` is decoupled in both.
        clip_norm: largest norm of all gradients of a step together.
        micro_batch: most samples to compute at once; a batch in parts takes less memory and gives the
            same step but for rounding. None chooses by what a step of these artifacts takes
            (`edgetl.engines.base.choose_micro_batch`).
        provider: execution provider of ONNX Runtime (`edgetl.providers.PROVIDERS`) for the frozen part
            and, where it takes it, the training step; with `provider_options`.
        allow_fallback: use the CPU where the provider is missing or refuses.
        cache: where features are kept; default `edgetl.features.default_cache_directory()`.
        cache_precision: `float16` halves the cache and rounds the features.
        pixel_range: of pictures of more than 8 bits, the values that become black and white, such as
            `(0, 1023)`; default as `edgetl.data.depth.find_pixel_range` finds it in the training samples.
        decode: `scaled` decodes a JPEG at a half, a quarter or an eighth of its size where both sides are then still
            twice as long as what they are resized to; `full` decodes all of it.
        threads: how many cores to use, at most all that this process may, which is the default.
        device: a profile (`edgetl.devices`) that chooses engine, provider, threads, batch size and cache
            precision where they are not given, and whose memory for training the run keeps to.
        memory_mb: what the process may take, 10^6 bytes, in place of the device's.
        on_event: receives progress (see `edgetl.events`).

    Raises:
        EdgetlError: with one sentence for each thing a user can cause.
    """
    started = time.monotonic()
    given = dict(locals())
    check_options(given)
    run = Run(Path(out))
    refuse_others(run, resume=resume, force=force)
    found = resources(given, on_event)
    prepared = load_artifacts(Path(artifacts))
    manifest = prepared.manifest
    check_task(given, manifest.task)
    cut = windows_of(manifest.audio, window, hop)
    wanted = wanted_by(manifest, manifest.labels, input_column, label_column)
    train_set, val_set = open_training(Path(data), Path(val) if val else None, wanted, on_event, keep_test=keep_test)
    if len(train_set.labels) != manifest.outputs:
        raise DataError(
            f"{train_set.root} has {len(train_set.labels)} {OUTPUTS_ARE[manifest.task]}, but {prepared.path} was "
            f"prepared for {manifest.outputs}: prepare again with --labels-from this data"
        )

    everything = train_set.samples + val_set.samples if val_set else train_set.samples
    at_least = enough_pixels(manifest.preprocessing, decode)
    decoding_mb = typical_mb(everything, manifest.preprocessing, at_least)
    # of each class at least one validates
    classes = manifest.outputs if manifest.task == "classification" and val_fraction else 0
    validated = len(val_set.samples) if val_set else max(round(val_fraction * len(train_set.samples)), classes)
    found, largest = fit(found, prepared, micro_batch, decoding_mb, validated)
    on_event(Stage("features"))
    values = None if pixel_range is None else check_pixel_range(pixel_range)
    if values is None and manifest.modality == IMAGE:
        budget = Budget(found.decoding_mb)
        values = find_pixel_range(train_set.samples, threads=found.threads, budget=budget, on_event=on_event)
    surveyed = survey(everything, decoder_of(prepared), cut, threads=found.threads, on_event=on_event, trains=True)
    features = extract_features(
        prepared,
        surveyed.samples,
        cache=Path(cache) if cache else None,
        threads=found.threads,
        provider=found.provider,
        precision=found.cache_precision,
        pixel_range=values,
        decode=decode,
        decoding_mb=found.decoding_mb,
        on_event=on_event,
    )
    _report_rejected(features.rejected, on_event)
    labels = _labels(manifest.task, features)
    origins = surveyed.origins[features.positions]
    train_rows, val_rows = _divide(origins, labels, manifest.task, train_set, val_set, val_fraction, seed)
    split = val_set is None and len(val_rows) > 0
    refits = choose_refit(refit, len(features.samples), split=split, pretrained=manifest.trains_pretrained)
    refits = refits and len(val_rows) > 0
    if augment is not None:
        on_event(Stage(f"{views} views of each"))
        seen = np.sort(np.concatenate([train_rows, val_rows])) if refits else train_rows
        features = extract_views(features, seen, Views(augment, views, seed, flip), on_event)
    duplicates = _report_duplicates(features, train_rows, val_rows, on_event)
    _report_labels(train_set.labels, labels, manifest.task, features, val_rows, on_event)
    if manifest.modality == ARRAY and len(manifest.inputs[0].shape) == 1:
        _report_columns(prepared, features, train_rows, train_set.input_columns, on_event)
    if sentence := alike(features, train_rows, labels):
        on_event(Note(sentence))
    if manifest.task == "multilabel":
        _report_never(train_set.labels, labels[train_rows], on_event)
    if manifest.task == "regression":
        _refuse_huge(train_set.labels, labels, features)
    mean, std = scaling(labels[train_rows]) if manifest.task == "regression" else ((), ())

    runtime.return_memory()  # the frozen part's
    schedule, warmup = choose_schedule(schedule, warmup, pretrained=manifest.trains_pretrained)
    args = RunArgs(
        edgetl_version=edgetl.__version__,
        # not resolved: a link may lead to a newer version later, and the older one be removed
        artifacts=str(Path.cwd() / prepared.path),
        artifacts_sha256=prepared.sha256,
        data=str(Path(data).resolve()),
        val=str(Path(val).resolve()) if val else None,
        val_fraction=val_fraction,
        keep_test=keep_test,
        labels=train_set.labels,
        epochs=epochs,
        batch_size=found.batch_size,
        lr=0.0 if isinstance(lr, str) else lr,
        init=init,
        schedule=schedule,
        warmup=warmup,
        patience=patience,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        augment=augment,
        views=views if augment else 0,
        flip=flip,
        cache_precision=found.cache_precision,
        decode=decode,
        seed=seed,
        engine=found.engine,
        optimizer=Optimizer(
            name=optimizer,
            momentum=momentum,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
        ),
        micro_batch=micro_batch,
        provider=found.provider.name,
        provider_options=dict(found.provider.options),
        device=device,
        pixel_range=values,
        input_columns=train_set.input_columns or tuple(input_column),
        label_columns=tuple(label_column),
        window=window,
        hop=hop,
        target_mean=mean,
        target_std=std,
        task=manifest.task,
        metric=metric or FIGURES[manifest.task][0],
        modality=manifest.modality,
        refit=refits,
    )
    samples = partial(_used, features, labels, args, train_rows, val_rows)
    with run.lock():
        args = settle(run, args, prepared, largest=largest, resume=resume)
        job = Job(
            prepared, args, features, labels, train_rows, val_rows, origins, found.threads, found.provider, on_event
        )
        with _advising(job):
            on_event(Stage("training"))
            training_started = time.monotonic()
            is_new = not (resume and (run.path / LAST).is_file())
            initial = initial_head(job) if is_new else {}
            runtime.return_memory()
            if args.lr == 0:
                rate = find_learning_rate(job) if lr == "search" else default_learning_rate(job)
                job = replace(job, args=replace(args, lr=rate))
            last = begin(run, job.args, samples, resume=resume, force=force)
            session = job.open_engine(last.engine_state if last else None, initial)
            history = train(job, run, session, last)
            placement = {"features": features.placement, "training": session.placement}
            del last, session  # the proof opens another engine, and needs their memory
            runtime.return_memory()
            best = best_epoch(history, job.args.metric)
            held_out = None
            if args.refit:
                on_event(Stage(f"training on all {len(train_rows) + len(val_rows)} samples"))
                train_on_all(job, run, best.epoch)
                held_out = run.read_best().parameters
                runtime.return_memory()
            proof = prove(job, run.deployed_parameters(), held_out)
            run.write_validation(proof)
            measured = answers(manifest.task, proof.unseen, job.encoder)
            weighted = bool(job.args.label_smoothing or job.args.class_weights)
            sentences = concerns(history, manifest.task, job.args.lr, proof.unseen, smoothed=weighted)
            for sentence in sentences:
                on_event(Note(sentence))
            result = FinetuneResult(
                run=str(run.path),
                task=manifest.task,
                epochs=history[-1].epoch,
                best_epoch=best.epoch,
                metric=best.metric,
                val_metric=best.val_metric,
                val_accuracy=best.val_accuracy,
                val_loss=best.val_loss,
                val_figures=figures(manifest.task, proof.labels, measured) if len(val_rows) else {},
                lr=job.args.lr,
                refit=args.refit,
                train_samples=len(train_rows),
                val_samples=len(val_rows),
                duplicates=duplicates,
                features_computed=features.computed,
                features_reused=features.reused,
                feature_seconds=features.seconds,
                feature_ms_per_image=features.seconds / features.computed * 1e3 if features.computed else None,
                training_seconds=time.monotonic() - training_started,
                seconds=time.monotonic() - started,
                peak_rss_mb=runtime.peak_rss_mb(),
                engine=found.engine,
                placement=placement,
                rejected=tuple((item.name, item.reason) for item in features.rejected),
                concerns=sentences,
            )
            run.write_metrics({**schema.to_json(result), "machine": schema.to_json(this_machine())})
            del proof, measured  # the report reads them again
            report_or_note(run, on_event)
    return result


@contextlib.contextmanager
def _advising(job: Job) -> Iterator[None]:
    """Let a lack of memory say how much less would do."""
    try:
        yield
    except (OutOfMemoryError, MemoryError) as error:
        at_once = min(job.at_once, len(job.train_rows))
        limits = [limit for limit in (runtime.memory_limit_mb(), runtime.address_space_mb()) if limit is not None]
        within = f" within {min(limits):.0f} MB" if limits else ""
        said = str(error) or "there was not enough memory"
        if at_once == 1:
            way = "let a smaller share of the network train"
        else:
            way = f"{at_once} samples were computed at once: start anew with --force --micro-batch {at_once // 2}"
        raise OutOfMemoryError(f"{said}{within}; {way}") from None


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


def _report_duplicates(
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


def _report_labels(
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


def _report_columns(
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


def _report_never(names: tuple[str, ...], labels: NDArray[Any], on_event: OnEvent) -> None:
    never = [repr(name) for name, count in zip(names, labels.sum(axis=0).tolist(), strict=True) if count == 0]
    if never:
        on_event(Note(f"no training sample has the label {', '.join(never)}: it cannot be learned"))


def _used(
    features: FeatureSet,
    labels: NDArray[Any],
    args: RunArgs,
    train_rows: NDArray[np.int64],
    val_rows: NDArray[np.int64],
) -> Iterator[UsedSample]:
    for part, rows in (("train", train_rows), ("val", val_rows)):
        for row in rows:
            label = labels[row].tolist()
            known = args.labels[label] if args.task == "classification" else " ".join(map(repr, label))
            yield UsedSample(part, features.digest(row), known, features.samples[row].name)


def _report_rejected(rejected: tuple[Rejected, ...], on_event: OnEvent, limit: int = 20) -> None:
    for item in rejected[:limit]:
        on_event(Note(f"left out {item.name}: {item.reason}"))
    if len(rejected) > limit:
        on_event(Note(f"and {len(rejected) - limit} more samples were left out; metrics.json names them all"))
