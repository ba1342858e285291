"""deploy(): a run to one self-contained ONNX file that has proved to agree with the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetl import defaults
from edgetl.artifacts import PREPROCESS, TOKENIZER, Artifacts, load_artifacts
from edgetl.data.dataset import Dataset, Sample, open_training, wanted_by
from edgetl.data.decode import enough_pixels
from edgetl.declaration import takes
from edgetl.deployment.compose import Feeds, Form, compose, describe
from edgetl.deployment.deployed import DeployedModel
from edgetl.deployment.deployed import logits_of as deployed_logits
from edgetl.deployment.gate import Comparison, compare
from edgetl.deployment.ort_format import to_ort
from edgetl.deployment.proof import as_used, proof_of
from edgetl.deployment.settings import DeploySettings
from edgetl.errors import DataError, DeployError, RunError, one_sentence
from edgetl.events import Note, OnEvent, Stage
from edgetl.files import storage
from edgetl.files.seal import seal_model
from edgetl.runs.run import Run, RunArgs, Validation
from edgetl.runtime import process, sessions
from edgetl.tasks.figures import called, shown
from edgetl.tasks.targets import TargetEncoder, answers, figures
from edgetl.training.features import decoder_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_EMBEDDED_TOKENIZER = 4_000_000
"""Bytes; a tokenizer that is larger (those of many languages are) is written beside the model."""

RELATIVE_TOLERANCE = 1e-4
"""Largest difference allowed between deployed and trained logits, relative to the largest logit (at least 1)."""

ROUNDED_TOLERANCE = 5e-3
"""The same where the run was trained on features of a float16 cache. Each of them is rounded by up to 2⁻¹¹ of itself,
which sums with signs of both kinds make larger; the file computes them exactly."""


@dataclass(frozen=True)
class DeployResult:
    """The file that was written and how it was verified.

    Attributes:
        precision: of everything between preprocessing and logits; but the backbone's may be
            `backbone_precision`.
        largest_difference: between the file's logits and the training engine's, over
            `verified_samples` samples.
        figures: of the file on those samples (the run's validation data), by name; `figures_before` are
            those of the training engine's logits.
        held_out: whether those samples did not train. After training on all samples they did, and the figures
            tell what the file has lost, not how good it is; that is in the run.
        drop: what the task's first figure lost, in points (hundredths); negative where it gained.
        compared: answer by answer with the training engine's.
        accuracy: the accuracy among the figures, if there is one.
    """

    model: str
    format: str
    precision: str
    backbone_precision: str
    size_mb: float
    labels: tuple[str, ...]
    opset: int
    ir_version: int
    verified_samples: int
    largest_difference: float
    figures: dict[str, float | None]
    figures_before: dict[str, float | None]
    held_out: bool
    drop: float | None
    compared: Comparison
    accuracy: float | None
    ms_per_image: float
    seconds: float
    peak_rss_mb: float


@takes(DeploySettings)
def deploy(settings: DeploySettings) -> DeployResult:
    """Write the run's best model as one ONNX file and verify it on the run's validation data.

    The file takes one sample as it comes: `image`, `[height, width, 3]` uint8 RGB of any size; `audio`,
    `[samples]` float32; or `array`, float32. It gives `probabilities`, of regression `values`, and
    `logits`, `[outputs]` float32. Of texts it takes `input_ids` and `attention_mask` (and
    `token_type_ids`, if the network does), int64, and holds the tokenizer in its metadata. It is written
    aside and takes its name only after its logits have been compared with those of the training engine.

    Raises:
        DeployError: the logits differ by more than `RELATIVE_TOLERANCE` (or `ROUNDED_TOLERANCE`), or, of a file with
            quantised parts, the figure drops by more than `max_drop`, and by more than chance explains; nothing is left
            behind.
        RunError, ArtifactsError, DataError: a part is missing, altered or unfinished.
    """
    started = time.monotonic()
    on_event, precision, max_drop = settings.on_event, settings.precision, settings.max_drop
    threads = process.usable_threads(settings.threads, on_event)
    source, target = Run(Path(settings.run)), Path(settings.out)
    form = Form(precision, settings.quantize_head, settings.input, settings.batch)
    format = settings.format or ("ort" if target.suffix == ".ort" else "onnx")
    args = source.read_args()
    best, parameters = source.read_best(), source.deployed_parameters()
    prepared = load_artifacts(Path(settings.artifacts or args.artifacts))
    if prepared.sha256 != args.artifacts_sha256:
        raise RunError(f"{prepared.path} is not the prepared directory that {source.path} was trained from")
    validation = proof_of(source, args, prepared, parameters, threads, on_event)
    sessions.utf8_path(target)
    if target.is_dir():
        raise DeployError(f"{target} is a folder: give --out the name of a file, such as {target / 'model.onnx'}")

    on_event(Stage("composing" if precision != "int8" else "composing and quantising"))
    with one_sentence(DeployError, f"the graphs of {prepared.path} cannot be composed, prepare it anew"):
        model = compose(prepared, parameters, args, form, partial(_calibration, prepared, args, validation), on_event)
    tokenizer_file = None
    if prepared.manifest.text is not None and prepared.file(TOKENIZER).stat().st_size > MAX_EMBEDDED_TOKENIZER:
        tokenizer_file = f"{target.stem}.{TOKENIZER}"
        storage.write_bytes(target.parent / tokenizer_file, prepared.file(TOKENIZER).read_bytes())
    describe(model, prepared, args, source, best.history[-1], form, tokenizer_file)
    with storage.written_aside(target) as aside:
        aside.write_bytes(seal_model(to_ort(model) if format == "ort" else model.SerializeToString()))
        del model
        on_event(Stage("verifying"))
        compared_started = time.monotonic()
        samples = _validation_samples(prepared, args, validation)
        logits = _logits(DeployedModel(aside), samples, validation, threads)
        compared_seconds = time.monotonic() - compared_started
        task = prepared.manifest.task
        encoder = TargetEncoder(task, prepared.manifest.outputs, mean=args.target_mean, std=args.target_std)
        given = [answers(task, values, encoder) for values in (validation.logits, logits)]
        before, measured = (figures(task, validation.labels, each) for each in given)
        compared = compare(task, validation.labels, *given, max_drop=max_drop)
        if form.precision == prepared.manifest.backbone_precision == "float32":
            rounded = args.cache_precision == "float16"
            _check_equal(logits, validation.logits, ROUNDED_TOLERANCE if rounded else RELATIVE_TOLERANCE)
        else:
            _check_drop(compared, before, measured, max_drop, form, on_event)
        size = aside.stat().st_size
    return DeployResult(
        model=str(target),
        format=format,
        precision=precision,
        backbone_precision=prepared.manifest.backbone_precision,
        size_mb=size / 1e6,
        labels=args.labels,
        opset=defaults.OPSET,
        ir_version=defaults.IR_VERSION,
        verified_samples=len(validation.paths),
        largest_difference=float(np.abs(logits - validation.logits).max()),
        figures=measured,
        figures_before=before,
        held_out=validation.held_out is None,
        drop=compared.drop,
        compared=compared,
        accuracy=measured.get("accuracy"),
        ms_per_image=compared_seconds / len(validation.paths) * 1e3,
        seconds=time.monotonic() - started,
        peak_rss_mb=process.peak_rss_mb(),
    )


def _calibration(prepared: Artifacts, args: RunArgs, validation: Validation) -> Iterator[Feeds]:
    """Inputs of the network for samples that trained."""
    from edgetl.quantization.quantize import calibration

    manifest = prepared.manifest
    (train, _), held_out = _opened(prepared, args, "quantised"), set(validation.paths)
    used = as_used(train.samples, args, prepared, process.available_cores())
    samples = [sample for sample in used if sample.place not in held_out] or list(used)
    decode = decoder_of(prepared, args.pixel_range, enough_pixels(manifest.preprocessing, args.decode))
    names = [spec.name for spec in manifest.inputs]
    return calibration(samples, decode, prepared.file(PREPROCESS), names, seed=args.seed)


def _opened(prepared: Artifacts, args: RunArgs, what: str) -> tuple[Dataset, Dataset | None]:
    wanted = wanted_by(prepared.manifest, args.labels, args.input_columns, args.label_columns)
    try:
        return open_training(Path(args.data), Path(args.val) if args.val else None, wanted)
    except DataError as error:
        raise DeployError(f"the file cannot be {what}, because the run's data cannot be read: {error}") from None


def _validation_samples(prepared: Artifacts, args: RunArgs, validation: Validation) -> list[Sample]:
    """Find the samples again: files where they lay, others by their names in the run's data."""
    manifest = prepared.manifest
    if manifest.modality in ("image", "audio"):
        spans = validation.spans or (None,) * len(validation.paths)
        return [Sample(path, None, Path(path), span) for path, span in zip(validation.paths, spans, strict=True)]
    opened = _opened(prepared, args, "verified")
    by_place = {sample.place: sample for dataset in opened if dataset is not None for sample in dataset.samples}
    if gone := [place for place in validation.paths if place not in by_place]:
        raise DeployError(
            f"the deployed file cannot be verified, because {gone[0]} is gone from the run's data: put it back, or "
            "run finetune again on the data as it is now"
        )
    return [by_place[place] for place in validation.paths]


def _logits(
    deployed: DeployedModel, samples: list[Sample], validation: Validation, threads: int
) -> NDArray[np.float32]:
    try:
        return np.stack(deployed_logits(deployed, samples, validation.digests, threads=threads))
    except DataError as error:
        raise DeployError(
            f"the deployed file cannot be verified, because a sample of the run's validation data is gone: {error}. "
            "Put it back, or run finetune again on the data as it is now"
        ) from None


def _check_equal(logits: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> None:
    difference = float(np.abs(logits - expected).max())
    allowed = tolerance * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:
        raise DeployError(
            f"the deployed file's logits differ from the run's by {difference:.3g} (allowed {allowed:.3g}), "
            "so it was not written: this is an error in edgetl, please report the model"
        )


def _check_drop(
    compared: Comparison,
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    max_drop: float,
    form: Form,
    on_event: OnEvent,
) -> None:
    name = compared.metric
    if before.get(name) is None or after.get(name) is None:
        raise DeployError(
            f"what {form.precision} costs cannot be measured, because the validation data give no {called(name)}: run "
            "finetune again with data whose labels vary, or deploy with --precision float32"
        )
    if compared.p_value is None:
        return
    falls = (
        f"in {form.precision}, validation {called(name)} falls from {shown(name, before[name])} to "
        f"{shown(name, after[name])}, by {compared.drop:.1f} points where {max_drop:g} are allowed "
        f"(of {compared.samples} samples, {compared.worse} are answered worse and {compared.better} better"
    )
    if not compared.is_refused(max_drop):
        on_event(Note(f"{falls}; chance may explain it, p = {compared.p_value:.2g}): the file is written nevertheless"))
        return
    ways = "give a larger --max-drop"
    if form.precision == "int8":
        ways = (
            "deploy with --precision float16, prepare with --backbone int8, so that the head is trained on the "
            f"quantised network's features, or {ways}"
        )
    raise DeployError(f"{falls}; p = {compared.p_value:.2g}), so the file was not written: {ways}")
