"""The training loop: where a head begins, at which rate, epochs of steps, and the proof for deploy()."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults
from edgetl.artifacts import ARRAY, Artifacts
from edgetl.engines.registry import Engine, open_engine, step_threads
from edgetl.errors import RunError
from edgetl.events import EpochEnd, EpochProgress, Note, OnEvent
from edgetl.runs.run import BEST, FINAL, LAST, Checkpoint, Run, RunArgs, Validation
from edgetl.runtime.process import return_memory
from edgetl.runtime.providers import Provider
from edgetl.tasks.figures import best_epoch
from edgetl.tasks.targets import TargetEncoder, answers, balanced_weights, figures
from edgetl.training.callbacks import Callback, EarlyStopping
from edgetl.training.features import FeatureSet, decoder_of
from edgetl.training.initialization import head_inputs, prototype, ridge
from edgetl.training.rate import LEFT_OUT, TRIAL_STEPS, UNRULED, find_rate, head_rate, pretrained_rate
from edgetl.training.schedule import learning_rate

if TYPE_CHECKING:
    from numpy.typing import NDArray


EXTREME = 1e9
"""Size of features from which on they are named where training fails, in place of the rate."""


@dataclass(frozen=True)
class Job:
    """What is to be trained, on what.

    Attributes:
        labels: of `features.samples`: `[N]` int64 class indices, or `[N, K]` float64.
        train_rows, val_rows: indices of the samples that train and of those that validate.
        recordings: of `features.samples`: `[N]`, which recording each is a window of.
    """

    prepared: Artifacts
    args: RunArgs
    features: FeatureSet
    labels: NDArray[Any]
    train_rows: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    recordings: NDArray[np.int64]
    threads: int
    provider: Provider
    on_event: OnEvent
    callbacks: tuple[Callback, ...] = ()

    @property
    def at_once(self) -> int:
        """How many samples are computed at once."""
        return self.args.micro_batch or self.args.batch_size

    @property
    def encoder(self) -> TargetEncoder:
        """Labels to targets, as the run's settings have it."""
        manifest, args = self.prepared.manifest, self.args
        balanced = args.class_weights == "balanced"
        return TargetEncoder(
            task=manifest.task,
            outputs=manifest.outputs,
            label_smoothing=args.label_smoothing,
            class_weights=balanced_weights(self.labels[self.train_rows], manifest.outputs) if balanced else None,
            mean=args.target_mean,
            std=args.target_std,
        )

    def open_engine(
        self, state: bytes | None = None, initial: Mapping[str, NDArray[np.float32]] | None = None
    ) -> Engine:
        """Open the run's engine; see `edgetl.engines.registry.open_engine`."""
        return open_engine(
            self.args.engine,
            self.prepared,
            state,
            threads=step_threads(self.prepared.manifest, self.at_once, self.threads),
            initial=initial,
            optimizer=self.args.optimizer,
            micro_batch=self.args.micro_batch,
            provider=self.provider,
            on_event=self.on_event,
        )


def initial_head(job: Job) -> dict[str, NDArray[np.float32]]:
    """Return the head's parameters in closed form; empty for a head of zeros, as it was prepared.

    Raises:
        EngineError: the head is not a single linear layer.
    """
    if job.args.init == "zero":
        return {}
    enter, encode = head_inputs(job.prepared, job.threads), job.encoder
    plain = TargetEncoder(encode.task, encode.outputs, mean=encode.mean, std=encode.std)
    order = np.random.default_rng(job.args.seed).permutation(job.train_rows)
    # one window of each recording before the second ones, so that the first samples stand for all recordings
    order = order[np.argsort(_turns(job.recordings[order]), kind="stable")]

    def batches() -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        for batch in _chunks(order, defaults.INIT_BATCH):
            entering = [enter(job.features.batch(part)) for part in _chunks(batch, job.at_once)]
            yield np.concatenate(entering), plain(job.labels[batch])[0]

    smoothing = job.args.label_smoothing
    recordings = job.recordings[order]
    if job.args.init == "prototype":
        found = prototype(batches, smoothing, recordings)
    else:
        found = ridge(batches, encode.task, smoothing, recordings)
    head = job.prepared.manifest.head
    assert head is not None, "head_inputs refuses others"
    return {head.weight: found.weight, head.bias: found.bias}


def _turns(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each number came before."""
    order = np.argsort(numbers, kind="stable")
    _, starts, counts = np.unique(numbers[order], return_index=True, return_counts=True)
    turns = np.empty(len(numbers), np.int64)
    turns[order] = np.arange(len(numbers)) - np.repeat(starts, counts)
    return turns


def default_learning_rate(job: Job) -> float:
    """Return the rate that suits what trains (`edgetl.training.rate`)."""
    manifest = job.prepared.manifest
    if not job.args.optimizer.rule.moves_by_rate:
        return UNRULED
    if manifest.trains_pretrained:
        return pretrained_rate(len(job.train_rows), manifest.modality)
    if manifest.head is None:
        return UNRULED
    enter = head_inputs(job.prepared, job.threads)
    some = _chunks(job.train_rows[: defaults.INIT_BATCH], job.at_once)
    return head_rate(np.concatenate([enter(job.features.batch(rows)) for rows in some]))


def find_learning_rate(job: Job) -> float:
    """Try rates from the start that training will have, on some training samples; see `edgetl.training.rate`."""
    rng = np.random.default_rng([job.args.seed, 0])
    order, recordings = rng.permutation(job.train_rows), rng.permutation(np.unique(job.recordings[job.train_rows]))
    kept = max(1, round(len(recordings) * (1 - LEFT_OUT)))
    # the head must not have seen what judges it, nor other windows of the same recordings
    judges = np.isin(job.recordings[order], recordings[kept:])
    part = replace(job, train_rows=order[~judges], val_rows=order[judges] if judges.any() else order)
    initial = initial_head(part)
    batches = list(_chunks(part.train_rows, job.args.batch_size))
    steps = min(TRIAL_STEPS, len(batches) * max(job.args.epochs, 1))
    encode = job.encoder

    def trial(rate: float) -> float:
        engine = part.open_engine(initial=initial)
        for step in range(steps):
            batch = batches[step % len(batches)]
            loss = engine.train_step(job.features.batch(batch), *encode(job.labels[batch]), rate)
            if not math.isfinite(loss):
                return math.inf
        return _evaluate(part, engine, part.val_rows)[0]

    rate = find_rate(trial)
    job.on_event(Note(f"learning rate {rate:g}, from short trials"))
    return rate


def train(job: Job, run: Run, engine: Engine, last: Checkpoint | None) -> tuple[EpochEnd, ...]:
    """The loop: epochs of steps, each ended by validation and a checkpoint; epoch 0 is the start.

    Raises:
        RunError: the loss or a parameter is no longer a finite number; what was finished stays.
    """
    args = job.args
    history = last.history if last else ()
    callbacks = job.callbacks
    if args.patience is not None:
        callbacks = (EarlyStopping(args.patience, args.metric), *callbacks)

    def finish(epoch: int, train_loss: float | None, started: float) -> None:
        nonlocal history
        loss, measured = measure(job, engine)
        _check(job, run, history, engine, loss, "the validation loss", f"after epoch {epoch}")
        end = EpochEnd(epoch, args.epochs, train_loss, time.monotonic() - started, loss, measured, args.metric)
        history = (*history, end)
        _write_checkpoints(run, engine, args, history)
        return_memory()
        run.write_results(history)
        job.on_event(end)
        for each in callbacks:
            each.epoch_ended(end)

    if history:
        run.write_results(history)  # the run may have died between the checkpoint and its line
    else:
        finish(0, None, time.monotonic())
    for epoch in range(history[-1].epoch + 1, args.epochs + 1):
        if reason := next((why for each in callbacks if (why := each.why_stop(history))), None):
            job.on_event(Note(f"{reason}: stopped before epoch {epoch}"))
            break
        started = time.monotonic()
        finish(epoch, _steps(job, run, engine, epoch, args.epochs, history), started)
    return history


def refit(job: Job, run: Run, epochs: int) -> None:
    """Train anew on all samples, those that validated included, for as many epochs as were best; write `FINAL`.

    Each epoch ends with a checkpoint, from which an interrupted call goes on.

    Raises:
        RunError: as `train`.
    """
    everything = replace(job, train_rows=np.sort(np.concatenate([job.train_rows, job.val_rows])))
    last = run.read_checkpoint(FINAL)
    if last is not None and last.history[-1].epochs != epochs:
        last = None  # the run went on, and another epoch is the best
    initial = initial_head(everything) if last is None else {}
    engine = everything.open_engine(last.engine_state if last else None, initial)
    history = last.history if last else ()

    def finish(epoch: int, loss: float | None, started: float) -> None:
        nonlocal history
        end = EpochEnd(epoch, epochs, loss, time.monotonic() - started, None, metric=job.args.metric)
        history = (*history, end)
        run.write_checkpoint(FINAL, Checkpoint(epoch, engine.parameters(), engine.state(), history))
        return_memory()

    if not history:
        finish(0, None, time.monotonic())
    for epoch in range(history[-1].epoch + 1, epochs + 1):
        started = time.monotonic()
        finish(epoch, _steps(everything, run, engine, epoch, epochs, history), started)


def _steps(job: Job, run: Run, engine: Engine, epoch: int, epochs: int, history: tuple[EpochEnd, ...]) -> float:
    """The steps of an epoch; return their mean loss. The schedule is that of the run's own number of epochs."""
    args, encode = job.args, job.encoder
    per_epoch = -(-len(job.train_rows) // args.batch_size)
    # the order depends on seed and epoch alone, so a resumed run takes the same one
    rng = np.random.default_rng([args.seed, epoch])
    order = rng.permutation(job.train_rows)
    total, seen = 0.0, 0.0
    for step, batch in enumerate(_chunks(order, args.batch_size)):
        before = (epoch - 1) * per_epoch + step
        rate = learning_rate(args.lr, args.schedule, args.warmup, before, args.epochs * per_epoch)
        loss = engine.train_step(job.features.batch(batch, rng), *encode(job.labels[batch]), rate)
        _check(job, run, history, engine, loss, "the loss", f"in epoch {epoch}, step {step + 1}")
        mass = encode.mass(job.labels[batch])
        total, seen = total + loss * mass, seen + mass
        job.on_event(EpochProgress(epoch, epochs, step + 1, per_epoch, total / seen))
    return total / seen


def _check(
    job: Job, run: Run, history: tuple[EpochEnd, ...], engine: Engine, loss: float | None, what: str, when: str
) -> None:
    if loss is not None and not math.isfinite(loss):
        raise RunError(f"{what} became {loss} {when}: {_what_to_try(job, run, history)}")
    if not engine.is_finite():
        raise RunError(f"a parameter became infinite or no number {when}: {_what_to_try(job, run, history)}")


def _what_to_try(job: Job, run: Run, history: tuple[EpochEnd, ...]) -> str:
    args = job.args
    if extreme := _extreme(job):
        return extreme
    if not history:
        return "look for extreme values among the samples, or begin at other weights"
    last = history[-1].epoch
    again = f"start anew with --force and a smaller --lr than {args.lr:g}, or with --clip-norm 1"
    if last == 0 or args.schedule != "constant" or args.warmup:
        return f"the last good epoch, {last}, is kept in {run.path}; {again}"
    return f"the last good epoch is kept in {run.path}: end there with --resume --epochs {last}, or {again}"


def _extreme(job: Job) -> str:
    """Return which sample gives what trains the largest number, and what to do, if no rate suits such numbers."""
    largest, found = EXTREME, -1
    for rows in _chunks(job.train_rows, job.at_once):
        for tensor in job.features.batch(rows):
            sizes = np.abs(tensor.reshape(len(rows), -1)).max(axis=1, initial=0)
            if sizes.max() > largest:
                largest, found = float(sizes.max()), int(rows[sizes.argmax()])
    if found < 0:
        return ""
    sample, where = job.features.samples[found], ""
    if job.prepared.manifest.modality == ARRAY:
        values = decoder_of(job.prepared)(sample.read())[ARRAY]
        column = int(np.abs(values).argmax())
        names = job.args.input_columns
        if values.ndim == 1:
            where = f" in column {names[column] if len(names) == len(values) else column + 1}"
    return (
        f"numbers are too large to train on, up to {largest:.3g} for {sample.name}{where}: scale them in the data, or "
        "leave out what holds them"
    )


def _write_checkpoints(run: Run, engine: Engine, args: RunArgs, history: tuple[EpochEnd, ...]) -> None:
    checkpoint = Checkpoint(history[-1].epoch, engine.parameters(), engine.state(), history)
    if best_epoch(history, args.metric) is history[-1]:
        run.write_checkpoint(BEST, checkpoint)
    run.write_checkpoint(LAST, checkpoint)


def measure(job: Job, engine: Engine) -> tuple[float | None, dict[str, float | None]]:
    """Mean loss and the task's figures on the validation samples; None and nothing if there are none."""
    if len(job.val_rows) == 0:
        return None, {}
    encode = job.encoder
    loss, logits = _evaluate(job, engine, job.val_rows)
    return loss, figures(encode.task, job.labels[job.val_rows], answers(encode.task, logits, encode))


def prove(
    job: Job, parameters: Mapping[str, NDArray[np.float32]], held_out: Mapping[str, NDArray[np.float32]] | None = None
) -> Validation:
    """Return the engine's logits with these weights, for deploy() to compare the deployed file with.

    Args:
        held_out: weights that the validation samples did not train, where `parameters` are others.
    """
    rows = job.val_rows if len(job.val_rows) else job.train_rows[: defaults.PROOF_SAMPLES]
    _, logits = _evaluate(job, job.open_engine(initial=parameters), rows)
    unseen = None if held_out is None else _evaluate(job, job.open_engine(initial=held_out), rows)[1]
    samples = [job.features.samples[row] for row in rows]
    return Validation(
        paths=tuple(sample.place for sample in samples),
        digests=tuple(job.features.digest(row) for row in rows),
        labels=job.labels[rows],
        logits=logits,
        spans=tuple(sample.span for sample in samples if sample.span is not None),
        held_out=unseen,
    )


def _evaluate(job: Job, engine: Engine, rows: NDArray[np.int64]) -> tuple[float, NDArray[np.float32]]:
    """Return mean loss, weighted as the classes are, and logits `[len(rows), K]`."""
    encode = job.encoder
    loss = 0.0
    logits = np.empty((len(rows), encode.outputs), np.float32)  # of many classes the largest array there is
    for start, batch in zip(range(0, len(rows), job.at_once), _chunks(rows, job.at_once), strict=True):
        batch_loss, batch_logits = engine.evaluate(job.features.batch(batch), *encode(job.labels[batch]))
        loss += batch_loss * encode.mass(job.labels[batch])
        logits[start : start + len(batch)] = batch_logits
    return loss / encode.mass(job.labels[rows]), logits


def _chunks(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


__all__ = [
    "Job",
    "default_learning_rate",
    "find_learning_rate",
    "initial_head",
    "measure",
    "prove",
    "refit",
    "train",
]
