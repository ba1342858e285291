"""What the training engine computes with a run's best weights, which the deployed file is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from edgetl import defaults
from edgetl.artifacts import Artifacts
from edgetl.data.dataset import Samples, open_training, wanted_by
from edgetl.data.sample import Reader
from edgetl.data.survey import survey, windows_of
from edgetl.engines.registry import resolve_engine
from edgetl.errors import DataError, DeployError, EngineError, RunError
from edgetl.events import Note, OnEvent, Stage, ignore
from edgetl.runs.compare import is_finished
from edgetl.runs.run import FINAL, LAST, Run, RunArgs, UsedSample, Validation
from edgetl.runtime.providers import Provider
from edgetl.training.features import decoder_of, extract_features
from edgetl.training.loop import Job, prove

if TYPE_CHECKING:
    from numpy.typing import NDArray


def proof_of(
    run: Run,
    args: RunArgs,
    prepared: Artifacts,
    parameters: Mapping[str, NDArray[np.float32]],
    threads: int,
    on_event: OnEvent,
) -> Validation:
    """Return what a finished run has kept; of one that is not finished it is computed here, and not kept.

    Args:
        parameters: those to deploy.

    Raises:
        RunError: it has finished no epoch, or lacks what it should have kept.
        DeployError: its samples are not what they were.
        EngineError: no engine is installed.
    """
    if is_finished(run.read_metrics(), run.read_results()):
        return run.read_validation()
    last = run.read_checkpoint(LAST, engine_state=False)
    if last is None:
        raise RunError(f"{run.path} has not finished an epoch: continue it with 'edgetl finetune … --resume'")
    on_event(
        Note(
            f"{run.path} is not finished (epoch {last.epoch} of {args.epochs}): its best epoch so far is deployed; "
            "'edgetl finetune … --resume' goes on"
        )
    )
    if run.is_proven():
        return run.read_validation()
    on_event(Stage("computing with the best epoch's weights"))
    held_out = run.read_best().parameters if run.deployed_weights() == FINAL else None
    return prove(_job(run, args, prepared, threads, on_event), parameters, held_out)


def _job(run: Run, args: RunArgs, prepared: Artifacts, threads: int, on_event: OnEvent) -> Job:
    """The samples that validate, or else some of those that train, as they were."""
    wanted = wanted_by(prepared.manifest, args.labels, args.input_columns, args.label_columns)
    try:
        opened = open_training(Path(args.data), Path(args.val) if args.val else None, wanted)
    except DataError as error:
        raise DeployError(f"the file cannot be verified, because the run's data cannot be read: {error}") from None
    everything = opened[0].samples + opened[1].samples if opened[1] else opened[0].samples
    everything = as_used(everything, args, prepared, threads)
    used = [sample for sample in run.read_samples() if sample.part == "val"]
    used = used or list(islice(run.read_samples(), defaults.PROOF_SAMPLES))
    features = extract_features(
        prepared,
        everything.take(_find(everything, used)),
        threads=threads,
        precision=args.cache_precision,
        pixel_range=args.pixel_range,
        decode=args.decode,
        on_event=on_event,
    )
    for item in features.rejected:
        raise _changed(f"{item.name} {item.reason}")
    kind = np.int64 if args.task == "classification" else np.float64
    rows = np.arange(len(features.samples))
    return Job(
        prepared=prepared,
        # weights of classes have no part in what is predicted
        args=replace(args, class_weights=None, engine=_engine(args.engine)),
        features=features,
        labels=np.array([sample.label for sample in features.samples], dtype=kind),
        train_rows=rows,
        val_rows=rows,
        recordings=rows,
        threads=threads,
        provider=Provider(),
        on_event=on_event,
    )


def as_used(samples: Samples, args: RunArgs, prepared: Artifacts, threads: int) -> Samples:
    """Return the samples of a run's data as the run used them: its windows of recordings, or as they are."""
    cut = windows_of(prepared.manifest.audio, args.window, args.hop)
    if cut is None:
        return samples
    return survey(samples, decoder_of(prepared), cut, threads=threads, on_event=ignore).samples


def _find(samples: Samples, used: Sequence[UsedSample]) -> NDArray[np.int64]:
    """Return where the samples that were used are now: known by their content, looked for by the ends of their paths.

    The beginnings of paths may be others, as seen from another working directory.
    """
    by_end: dict[str, list[int]] = {PurePath(one.name).name: [] for one in used}
    for index, sample in enumerate(samples):
        if (places := by_end.get(PurePath(sample.name).name)) is not None:
            places.append(index)
    digests: dict[int, str] = {}
    read = Reader()

    def digest(index: int) -> str:
        if index not in digests:
            try:
                digests[index] = read(samples[index])[1].hex()
            except DataError:
                digests[index] = ""
        return digests[index]

    found = []
    for one in used:
        same = [index for index in by_end[PurePath(one.name).name] if digest(index) == one.digest]
        if not same:
            raise _changed(f"{one.name} is gone from the run's data, or has changed")
        found.append(same[0])
    return np.array(found, dtype=np.int64)


def _engine(name: str) -> str:
    """The engine of the run, or else the one that is installed here: they compute the same."""
    try:
        return resolve_engine(name)
    except EngineError:
        return resolve_engine("auto")


def _changed(what: str) -> DeployError:
    return DeployError(
        f"the deployed file cannot be verified, because {what}: put it back, or run finetune again on the data as it "
        "is now"
    )
