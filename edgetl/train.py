"""finetune(): pictures to features, features to a trained head, everything into a run directory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import edgetl
from edgetl import defaults, runtime, schema, storage
from edgetl.artifacts import Artifacts, Manifest, Optimizer, load_artifacts
from edgetl.data.folder import Dataset, find_split, open_folder, split_stratified
from edgetl.engines import Engine, open_engine, resolve_engine
from edgetl.errors import DataError, RunError
from edgetl.events import EpochEnd, EpochProgress, Note, OnEvent, Stage, ignore
from edgetl.features import FeatureSet, Rejected, extract_features
from edgetl.machine import this_machine
from edgetl.providers import resolve_provider
from edgetl.report import report_or_note
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
    RunSamples,
    Validation,
)
from edgetl.targets import TargetEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FinetuneResult:
    """What a run achieved, where it lies and what it took.

    Attributes:
        run: the run directory.
        val_accuracy, val_loss: of the best epoch; None without validation data.
        feature_ms_per_image: wall-clock milliseconds per newly computed picture; None if all were
            in the cache.
        training_seconds: all epochs, validation and checkpoints included, of this call.
        peak_rss_mb: largest resident memory of this process, 10^6 bytes.
        placement: of the frozen part (`features`) and of the `training` step, each execution
            provider's share of the time; empty for what did not run.
        rejected: files left out, and why.
    """

    run: str
    epochs: int
    best_epoch: int
    val_accuracy: float | None
    val_loss: float | None
    train_samples: int
    val_samples: int
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


def finetune(
    artifacts: str | Path,
    data: str | Path,
    *,
    out: str | Path,
    val: str | Path | None = None,
    val_fraction: float = defaults.VAL_FRACTION,
    epochs: int = defaults.EPOCHS,
    batch_size: int = defaults.BATCH_SIZE,
    lr: float = defaults.LEARNING_RATE,
    seed: int = defaults.SEED,
    resume: bool = False,
    force: bool = False,
    engine: str = "auto",
    optimizer: str = "adamw",
    momentum: float = defaults.SGD_MOMENTUM,
    weight_decay: float = defaults.WEIGHT_DECAY,
    clip_norm: float | None = None,
    micro_batch: int | None = None,
    provider: str = "cpu",
    provider_options: Mapping[str, str] | None = None,
    allow_fallback: bool = False,
    cache: str | Path | None = None,
    threads: int | None = None,
    on_event: OnEvent = ignore,
) -> FinetuneResult:
    """Train a prepared directory on a folder of pictures; torch is not needed.

    Args:
        artifacts: a directory made by `prepare`.
        data: a folder with one folder per class, optionally under `train/` and `val/` or `test/`.
        out: the run directory to write.
        val: a folder to validate on; without it `val/` or `test/` of `data`, or `val_fraction` of
            the training samples, stratified and seeded.
        resume: continue the run at `out` from its last finished epoch (or begin, if there is none),
            with the same result as an uninterrupted one.
        force: replace the run at `out`.
        optimizer: `adamw`, or `sgd` with `momentum`; `weight_decay` is decoupled in both.
        clip_norm: largest norm of all gradients of a step together.
        micro_batch: most samples to compute at once; a batch in parts takes less memory and gives the
            same step but for rounding.
        provider: execution provider of ONNX Runtime (`edgetl.providers.PROVIDERS`) for the frozen part
            and, where it takes it, the training step; with `provider_options`.
        allow_fallback: use the CPU where the provider is missing or refuses.
        cache: where features are kept; default `edgetl.features.default_cache_directory()`.
        threads: how many cores to use; default all that this process may.
        on_event: receives progress (see `edgetl.events`).

    Raises:
        EdgetlError: with one sentence for each thing a user can cause.
    """
    started = time.monotonic()
    threads = threads or runtime.available_cores()
    run = Run(Path(out))
    if not resume:
        storage.refuse_existing(run.path, force=force, marker=ARGS, hint="--resume or --force", besides=LOCK)
    engine = resolve_engine(engine)
    where = resolve_provider(provider, provider_options, allow_fallback=allow_fallback, on_event=on_event)
    prepared = load_artifacts(Path(artifacts))
    train_set, val_set = _open_data(Path(data), Path(val) if val else None, prepared.manifest.labels)
    if len(train_set.labels) != prepared.manifest.outputs:
        raise DataError(
            f"{train_set.root} has {len(train_set.labels)} classes, but {prepared.path} was prepared for "
            f"{prepared.manifest.outputs}: prepare again with --labels-from this folder"
        )

    everything = train_set.samples + (val_set.samples if val_set else ())
    on_event(Stage("features"))
    features = extract_features(
        prepared,
        everything,
        cache=Path(cache) if cache else None,
        threads=threads,
        provider=where,
        on_event=on_event,
    )
    _report_rejected(features.rejected, on_event)
    train_rows, val_rows = _divide(features, train_set, val_set, val_fraction, seed)

    args = RunArgs(
        edgetl_version=edgetl.__version__,
        artifacts=str(prepared.path.resolve()),
        artifacts_sha256=prepared.sha256,
        data=str(Path(data).resolve()),
        val=str(Path(val).resolve()) if val else None,
        val_fraction=val_fraction,
        labels=train_set.labels,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        engine=engine,
        optimizer=Optimizer(
            name=optimizer,
            momentum=momentum,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
        ),
        micro_batch=micro_batch,
        provider=where.name,
        provider_options=dict(where.options),
    )
    samples = _describe(features, train_rows, val_rows)
    with run.lock():
        last = _begin(run, args, samples, resume=resume, force=force)
        session = open_engine(
            engine,
            prepared,
            last.engine_state if last else None,
            threads=threads,
            optimizer=args.optimizer,
            micro_batch=micro_batch,
            provider=where,
            on_event=on_event,
        )
        on_event(Stage("training"))
        training_started = time.monotonic()
        history = _train(run, session, prepared.manifest, args, features, train_rows, val_rows, last, on_event)
        best = _best(history)
        _prove(run, prepared, args, features, train_rows, val_rows, threads)
        result = FinetuneResult(
            run=str(run.path),
            epochs=len(history),
            best_epoch=best.epoch,
            val_accuracy=best.val_accuracy,
            val_loss=best.val_loss,
            train_samples=len(train_rows),
            val_samples=len(val_rows),
            features_computed=features.computed,
            features_reused=features.reused,
            feature_seconds=features.seconds,
            feature_ms_per_image=features.seconds / features.computed * 1e3 if features.computed else None,
            training_seconds=time.monotonic() - training_started,
            seconds=time.monotonic() - started,
            peak_rss_mb=runtime.peak_rss_mb(),
            engine=session.name,
            placement={"features": features.placement, "training": session.placement},
            rejected=tuple((str(item.path), item.reason) for item in features.rejected),
        )
        run.write_metrics({**schema.to_json(result), "machine": schema.to_json(this_machine())})
        report_or_note(run, on_event)
    return result


def _train(
    run: Run,
    engine: Engine,
    manifest: Manifest,
    args: RunArgs,
    features: FeatureSet,
    train_rows: NDArray[np.int64],
    val_rows: NDArray[np.int64],
    last: Checkpoint | None,
    on_event: OnEvent,
) -> tuple[EpochEnd, ...]:
    """The loop: epochs of steps, each epoch ended by validation and a checkpoint."""
    labels = np.array([sample.label for sample in features.samples], dtype=np.int64)
    encode = TargetEncoder(manifest.task, manifest.outputs)
    history = last.history if last else ()
    for epoch in range(len(history) + 1, args.epochs + 1):
        started = time.monotonic()
        # the order depends on seed and epoch alone, so a resumed run takes the same one
        order = np.random.default_rng([args.seed, epoch]).permutation(train_rows)
        batches = [order[i : i + args.batch_size] for i in range(0, len(order), args.batch_size)]
        total, seen = 0.0, 0
        for step, batch in enumerate(batches, start=1):
            loss = engine.train_step(features.batch(batch), *encode(labels[batch]), args.lr)
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss became {loss} in epoch {epoch}, step {step}: the last good epoch is kept in "
                    f"{run.path}; try a smaller --lr than {args.lr:g}"
                )
            total, seen = total + loss * len(batch), seen + len(batch)
            on_event(EpochProgress(epoch, args.epochs, step, len(batches), total / seen))
        val_loss, val_accuracy = _measure(engine, features, labels, encode, val_rows, args.batch_size)
        end = EpochEnd(epoch, args.epochs, total / len(order), time.monotonic() - started, val_loss, val_accuracy)
        history = (*history, end)
        checkpoint = Checkpoint(epoch, engine.parameters(), engine.state(), history)
        if _best(history) is end:
            run.write_checkpoint(BEST, checkpoint)
        run.write_checkpoint(LAST, checkpoint)
        run.write_results(history)
        on_event(end)
    return history


def _best(history: tuple[EpochEnd, ...]) -> EpochEnd:
    """The epoch of highest validation accuracy, then lowest loss, then the earliest; without validation the last."""
    if history[-1].val_accuracy is None:
        return history[-1]
    return min(history, key=lambda end: (-(end.val_accuracy or 0.0), end.val_loss, end.epoch))


def _measure(
    engine: Engine,
    features: FeatureSet,
    labels: NDArray[np.int64],
    encode: TargetEncoder,
    rows: NDArray[np.int64],
    batch_size: int,
) -> tuple[float | None, float | None]:
    """Mean loss and accuracy over `rows`; None and None if there are none."""
    if len(rows) == 0:
        return None, None
    loss = 0.0
    correct = 0
    for batch in _chunks(rows, batch_size):
        batch_loss, logits = engine.evaluate(features.batch(batch), *encode(labels[batch]))
        loss += batch_loss * len(batch)
        correct += int((logits.argmax(axis=1) == labels[batch]).sum())
    return loss / len(rows), correct / len(rows)


def _prove(
    run: Run,
    prepared: Artifacts,
    args: RunArgs,
    features: FeatureSet,
    train_rows: NDArray[np.int64],
    val_rows: NDArray[np.int64],
    threads: int,
) -> None:
    """Keep the engine's logits with the best weights, for deploy() to compare the deployed file with."""
    best = run.read_checkpoint(BEST)
    assert best is not None, "training wrote it"
    session = open_engine(args.engine, prepared, best.engine_state, threads=threads, optimizer=args.optimizer)
    encode = TargetEncoder(prepared.manifest.task, prepared.manifest.outputs)
    rows = val_rows if len(val_rows) else train_rows[: defaults.PROOF_SAMPLES]
    labels = np.array([sample.label for sample in features.samples], dtype=np.int64)
    logits = [
        session.evaluate(features.batch(batch), *encode(labels[batch]))[1] for batch in _chunks(rows, args.batch_size)
    ]
    run.write_validation(
        Validation(
            paths=tuple(str(features.samples[row].path.resolve()) for row in rows),
            digests=tuple(features.digests[row] for row in rows),
            labels=labels[rows],
            logits=np.concatenate(logits),
        )
    )


def _begin(run: Run, args: RunArgs, samples: RunSamples, *, resume: bool, force: bool) -> Checkpoint | None:
    """Make the run directory ready: new, or at the last checkpoint of the run to be resumed."""
    if resume and (run.path / ARGS).is_file():
        _check_same(run, run.read_args(), args, run.read_samples(), samples)
        last = run.read_checkpoint(LAST)
        if last is not None and last.epoch >= args.epochs:
            args = replace(args, epochs=last.epoch)
    else:
        if not resume:
            storage.refuse_existing(run.path, force=force, marker=ARGS, hint="--resume or --force", besides=LOCK)
        for name in (REPORT, CURVES, CONFUSION, METRICS, VALIDATION, LAST, BEST, RESULTS, SAMPLES, ARGS):
            (run.path / name).unlink(missing_ok=True)
        last = None
    run.write_samples(samples)
    run.write_args(args)
    return last


def _check_same(
    run: Run, before: RunArgs, now: RunArgs, samples_before: RunSamples | None, samples_now: RunSamples
) -> None:
    """Refuse to continue a run with other settings or other data."""
    for name in (
        "artifacts_sha256",
        "val_fraction",
        "batch_size",
        "lr",
        "seed",
        "engine",
        "optimizer",
        "micro_batch",
        "provider",
        "provider_options",
        "labels",
    ):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            what = "the artifacts differ" if name == "artifacts_sha256" else f"{name} was {old!r} and is now {new!r}"
            raise RunError(
                f"{run.path} cannot be resumed, because {what}: repeat the first command with --resume, "
                "or start anew with --force"
            )
    if samples_before is not None and replace(samples_before, val_paths=()) != replace(samples_now, val_paths=()):
        raise RunError(
            f"{run.path} cannot be resumed, because the pictures in {now.data} have changed since it began: "
            "start anew with --force (features of unchanged pictures are reused)"
        )


def _open_data(data: Path, val: Path | None, labels: tuple[str, ...]) -> tuple[Dataset, Dataset | None]:
    found = find_split(data)
    train_set = open_folder(found.train, labels)
    val_folder = find_split(val).train if val else found.val or found.test
    return train_set, open_folder(val_folder, train_set.labels) if val_folder else None


def _divide(
    features: FeatureSet, train_set: Dataset, val_set: Dataset | None, val_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the usable samples that train and of those that validate."""
    train_samples = set(train_set.samples)
    candidates = [i for i, sample in enumerate(features.samples) if sample in train_samples]
    counts = [0] * len(train_set.labels)
    for index in candidates:
        counts[features.samples[index].label] += 1
    if empty := [name for name, count in zip(train_set.labels, counts, strict=True) if count == 0]:
        raise DataError(
            f"no usable picture is left for {', '.join(map(repr, empty))} in {train_set.root}: "
            "replace the files named above"
        )
    if val_set is not None:
        val = [i for i, sample in enumerate(features.samples) if sample not in train_samples]
        if not val:
            raise DataError(f"no usable picture is left in {val_set.root}: replace the files named above")
        return np.array(candidates, dtype=np.int64), np.array(val, dtype=np.int64)
    train, val = split_stratified([features.samples[i].label for i in candidates], val_fraction, seed)
    picked = np.array(candidates, dtype=np.int64)
    return picked[train], picked[np.array(val, dtype=np.int64)]


def _describe(features: FeatureSet, train_rows: NDArray[np.int64], val_rows: NDArray[np.int64]) -> RunSamples:
    return RunSamples(
        train_digests=tuple(features.digests[row] for row in train_rows),
        train_labels=tuple(features.samples[row].label for row in train_rows),
        val_digests=tuple(features.digests[row] for row in val_rows),
        val_labels=tuple(features.samples[row].label for row in val_rows),
        val_paths=tuple(str(features.samples[row].path) for row in val_rows),
    )


def _report_rejected(rejected: tuple[Rejected, ...], on_event: OnEvent, limit: int = 20) -> None:
    for item in rejected[:limit]:
        on_event(Note(f"left out {item.path}: {item.reason}"))
    if len(rejected) > limit:
        on_event(Note(f"and {len(rejected) - limit} more files were left out; metrics.json names them all"))


def _chunks(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
