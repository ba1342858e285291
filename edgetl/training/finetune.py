"""finetune(): open, extract, settle, fit, record, report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import edgetl
from edgetl.artifacts import Artifacts, load_artifacts
from edgetl.data.dataset import Dataset, open_training, wanted_by
from edgetl.data.decode import enough_pixels
from edgetl.data.memory import typical_mb
from edgetl.data.survey import Windows, windows_of
from edgetl.declaration import shared_fields, takes
from edgetl.errors import DataError, OutOfMemoryError
from edgetl.events import EpochEnd, Note, Stage
from edgetl.files import schema
from edgetl.losses.registry import losses_of
from edgetl.optimizers.registry import Optimizer
from edgetl.runs.outcome import concerns
from edgetl.runs.report.write import report_or_note
from edgetl.runs.run import LAST, UNCHOSEN, Run, RunArgs
from edgetl.runs.settings import TrainingSettings
from edgetl.runtime import process
from edgetl.runtime.machine import this_machine
from edgetl.tasks.figures import FIGURES, best_epoch
from edgetl.tasks.targets import OUTPUTS_ARE, answers, figures, scaling
from edgetl.training.loop import Job, default_learning_rate, find_learning_rate, initial_head, prove, train
from edgetl.training.loop import refit as train_on_all
from edgetl.training.resources import Resources, choose_resources, fit_memory
from edgetl.training.resume import begin, refuse_others, settle
from edgetl.training.samples import Extracted, extract
from edgetl.training.schedule import choose_schedule
from edgetl.training.settings import FinetuneSettings, check_task


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
        concerns: what did not go well, in sentences (`edgetl.runs.outcome`).
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


@takes(FinetuneSettings)
def finetune(settings: FinetuneSettings) -> FinetuneResult:
    """Train a prepared directory on labelled samples; torch is not needed.

    Raises:
        EdgetlError: with one sentence for each thing a user can cause.
    """
    started = time.monotonic()
    run = Run(Path(settings.out))
    refuse_others(run, resume=settings.resume, force=settings.force)
    opened = _open(settings)
    extracted = extract(settings, opened.prepared, opened.resources, opened.train_set, opened.val_set, opened.windows)
    process.return_memory()  # the frozen part's
    args = _args(settings, opened, extracted)
    with run.lock():
        args = settle(run, args, opened.prepared, largest=opened.largest, resume=settings.resume)
        job = _job(settings, opened, extracted, args)
        with _advising(job):
            fitted = _fit(settings, run, job, extracted)
            result = _record(run, opened, extracted, fitted, started)
            report_or_note(run, settings.on_event)
    return result


@dataclass(frozen=True)
class _Opened:
    """What a run starts from.

    Attributes:
        largest: the most samples that may be computed at once; None if nothing limits it.
    """

    prepared: Artifacts
    optimizer: Optimizer
    resources: Resources
    largest: int | None
    train_set: Dataset
    val_set: Dataset | None
    windows: Windows | None


def _open(settings: FinetuneSettings) -> _Opened:
    """Read the prepared directory and the lists of samples; see that they go together and fit the memory."""
    optimizer = settings.chosen_optimizer()
    resources = choose_resources(settings, optimizer)
    prepared = load_artifacts(Path(settings.artifacts))
    manifest = prepared.manifest
    check_task(settings, manifest.task)
    windows = windows_of(manifest.audio, settings.window, settings.hop)
    wanted = wanted_by(manifest, manifest.labels, settings.input_column, settings.label_column)
    val = Path(settings.val) if settings.val else None
    train_set, val_set = open_training(
        Path(settings.data), val, wanted, settings.on_event, keep_test=settings.keep_test
    )
    if len(train_set.labels) != manifest.outputs:
        raise DataError(
            f"{train_set.root} has {len(train_set.labels)} {OUTPUTS_ARE[manifest.task]}, but {prepared.path} was "
            f"prepared for {manifest.outputs}: prepare again with --labels-from this data"
        )
    everything = train_set.samples + val_set.samples if val_set else train_set.samples
    at_least = enough_pixels(manifest.preprocessing, settings.decode)
    decoding_mb = typical_mb(everything, manifest.preprocessing, at_least)
    # of each class at least one validates
    fewest = manifest.outputs if manifest.task == "classification" and settings.val_fraction else 0
    split = max(round(settings.val_fraction * len(train_set.samples)), fewest)
    validated = len(val_set.samples) if val_set else split
    resources, largest = fit_memory(resources, prepared, settings.micro_batch, decoding_mb, validated)
    return _Opened(prepared, optimizer, resources, largest, train_set, val_set, windows)


_SETTLED = {
    "batch_size",
    "lr",
    "schedule",
    "warmup",
    "views",
    "cache_precision",
    "engine",
    "pixel_range",
    "metric",
    "refit",
}
"""Settings whose final values `_args` gives."""


def _args(settings: FinetuneSettings, opened: _Opened, extracted: Extracted) -> RunArgs:
    """Return what the run's `args.yaml` will hold, but for what `settle` chooses."""
    prepared, resources, manifest = opened.prepared, opened.resources, opened.prepared.manifest
    labels = extracted.labels[extracted.train_rows]
    mean, std = scaling(labels) if manifest.task == "regression" else ((), ())
    schedule, warmup = choose_schedule(settings.schedule, settings.warmup, pretrained=manifest.trains_pretrained)
    return RunArgs(
        **shared_fields(settings, TrainingSettings, besides=_SETTLED),
        edgetl_version=edgetl.__version__,
        # not resolved: a link may lead to a newer version later, and the older one be removed
        artifacts=str(Path.cwd() / prepared.path),
        artifacts_sha256=prepared.sha256,
        data=str(Path(settings.data).resolve()),
        val=str(Path(settings.val).resolve()) if settings.val else None,
        labels=opened.train_set.labels,
        batch_size=resources.batch_size,
        lr=UNCHOSEN if isinstance(settings.lr, str) else settings.lr,
        schedule=schedule,
        warmup=warmup,
        views=settings.views if settings.augment else 0,
        cache_precision=resources.cache_precision,
        engine=resources.engine,
        optimizer=opened.optimizer,
        device=settings.device,
        provider=resources.provider.name,
        provider_options=dict(resources.provider.options),
        pixel_range=extracted.pixel_range,
        input_columns=opened.train_set.input_columns or tuple(settings.input_column),
        label_columns=tuple(settings.label_column),
        target_mean=mean,
        target_std=std,
        task=manifest.task,
        metric=settings.metric or FIGURES[manifest.task][0],
        modality=manifest.modality,
        refit=extracted.refits,
    )


def _job(settings: FinetuneSettings, opened: _Opened, extracted: Extracted, args: RunArgs) -> Job:
    return Job(
        prepared=opened.prepared,
        args=args,
        features=extracted.features,
        labels=extracted.labels,
        train_rows=extracted.train_rows,
        val_rows=extracted.val_rows,
        recordings=extracted.recordings,
        threads=opened.resources.threads,
        provider=opened.resources.provider,
        on_event=settings.on_event,
        callbacks=tuple(settings.callbacks),
    )


@dataclass(frozen=True)
class _Fitted:
    """What training gave.

    Attributes:
        figures: everything measured on the validation data with the best weights, by name.
        placement: each execution provider's share of a training step's time.
    """

    args: RunArgs
    history: tuple[EpochEnd, ...]
    figures: dict[str, float | None]
    concerns: tuple[str, ...]
    placement: dict[str, float]
    seconds: float


def _fit(settings: FinetuneSettings, run: Run, job: Job, extracted: Extracted) -> _Fitted:
    """Train, from the start or from the last checkpoint; prove what came of it."""
    settings.on_event(Stage("training"))
    started = time.monotonic()
    is_new = not (settings.resume and (run.path / LAST).is_file())
    initial = initial_head(job) if is_new else {}
    process.return_memory()
    if job.args.lr == UNCHOSEN:
        rate = find_learning_rate(job) if settings.lr == "search" else default_learning_rate(job)
        job = replace(job, args=replace(job.args, lr=rate))
    last = begin(run, job.args, partial(extracted.used, job.args), resume=settings.resume, force=settings.force)
    engine = job.open_engine(last.engine_state if last else None, initial)
    history = train(job, run, engine, last)
    placement = engine.placement
    del last, engine  # the proof opens another engine, and needs their memory
    process.return_memory()
    held_out = None
    if job.args.refit:
        settings.on_event(Stage(f"training on all {len(job.train_rows) + len(job.val_rows)} samples"))
        train_on_all(job, run, best_epoch(history, job.args.metric).epoch)
        held_out = run.read_best().parameters
        process.return_memory()
    proof = prove(job, run.deployed_parameters(), held_out)
    run.write_validation(proof)
    measured = answers(job.args.task, proof.unseen, job.encoder)
    plain = losses_of(job.args.task)[0] == job.prepared.manifest.loss
    weighted = bool(job.args.label_smoothing or job.args.class_weights or not plain)
    sentences = concerns(history, job.args.task, job.args.lr, proof.unseen, smoothed=weighted)
    for sentence in sentences:
        settings.on_event(Note(sentence))
    found = figures(job.args.task, proof.labels, measured) if len(job.val_rows) else {}
    return _Fitted(job.args, history, found, sentences, placement, time.monotonic() - started)


def _record(run: Run, opened: _Opened, extracted: Extracted, fitted: _Fitted, started: float) -> FinetuneResult:
    """Write `metrics.json`, whose presence says that training ended."""
    features, best = extracted.features, best_epoch(fitted.history, fitted.args.metric)
    result = FinetuneResult(
        run=str(run.path),
        task=fitted.args.task,
        epochs=fitted.history[-1].epoch,
        best_epoch=best.epoch,
        metric=best.metric,
        val_metric=best.val_metric,
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        val_figures=fitted.figures,
        lr=fitted.args.lr,
        refit=fitted.args.refit,
        train_samples=len(extracted.train_rows),
        val_samples=len(extracted.val_rows),
        duplicates=extracted.duplicates,
        features_computed=features.computed,
        features_reused=features.reused,
        feature_seconds=features.seconds,
        feature_ms_per_image=features.seconds / features.computed * 1e3 if features.computed else None,
        training_seconds=fitted.seconds,
        seconds=time.monotonic() - started,
        peak_rss_mb=process.peak_rss_mb(),
        engine=opened.resources.engine,
        placement={"features": features.placement, "training": fitted.placement},
        rejected=tuple((item.name, item.reason) for item in features.rejected),
        concerns=fitted.concerns,
    )
    run.write_metrics({**schema.to_json(result), "machine": schema.to_json(this_machine())})
    return result


@contextlib.contextmanager
def _advising(job: Job) -> Iterator[None]:
    """Let a lack of memory say how much less would do."""
    try:
        yield
    except (OutOfMemoryError, MemoryError) as error:
        at_once = min(job.at_once, len(job.train_rows))
        limits = [limit for limit in (process.memory_limit_mb(), process.address_space_mb()) if limit is not None]
        within = f" within {min(limits):.0f} MB" if limits else ""
        said = str(error) or "there was not enough memory"
        if at_once == 1:
            way = "let a smaller share of the network train"
        else:
            way = f"{at_once} samples were computed at once: start anew with --force --micro-batch {at_once // 2}"
        raise OutOfMemoryError(f"{said}{within}; {way}") from None
