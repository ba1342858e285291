"""deploy(): a run to one self-contained ONNX file that has proved to agree with the run."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgetl
from edgetl import defaults, runtime, schema, storage
from edgetl.artifacts import BACKBONE, PREPROCESS, TOKENIZER, TRAINABLE, Artifacts, load_artifacts
from edgetl.data import Sample, open_training, wanted_by
from edgetl.deployed import (
    LOGITS,
    METADATA_EDGETL,
    METADATA_NAMES,
    METADATA_TOKENIZER,
    PROBABILITIES,
    VALUES,
    DeployedModel,
)
from edgetl.deployed import logits_of as deployed_logits
from edgetl.errors import DataError, DeployError, RunError
from edgetl.events import OnEvent, Stage, ignore
from edgetl.run import BEST, Run, RunArgs, Validation
from edgetl.targets import TargetEncoder, answers, figures

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

MAX_EMBEDDED_TOKENIZER = 4_000_000
"""Bytes; a tokenizer that is larger (those of many languages are) is written beside the model."""

RELATIVE_TOLERANCE = 1e-4
"""Largest difference allowed between deployed and trained logits, relative to the largest logit (at least 1)."""


@dataclass(frozen=True)
class DeployResult:
    """The file that was written and how it was verified.

    Attributes:
        largest_difference: between the file's logits and the training engine's, over
            `verified_samples` samples.
        figures: of the file on those samples (the run's validation data), by name.
        accuracy: the accuracy among them, if there is one.
    """

    model: str
    size_mb: float
    labels: tuple[str, ...]
    opset: int
    ir_version: int
    verified_samples: int
    largest_difference: float
    figures: dict[str, float | None]
    accuracy: float | None
    ms_per_image: float
    seconds: float
    peak_rss_mb: float


def deploy(
    run: str | Path,
    *,
    out: str | Path,
    artifacts: str | Path | None = None,
    threads: int | None = None,
    on_event: OnEvent = ignore,
) -> DeployResult:
    """Write the run's best model as one ONNX file and verify it on the run's validation data.

    The file takes one sample as it comes: `image`, `[height, width, 3]` uint8 RGB of any size; `audio`,
    `[samples]` float32; or `array`, float32. It gives `probabilities`, of regression `values`, and
    `logits`, `[outputs]` float32. It is written aside and takes its name only after its logits have been
    compared with those of the training engine. Of texts it takes `input_ids` and `attention_mask` (and
    `token_type_ids`, if the network does), int64, and holds the tokenizer in its metadata.

    Args:
        artifacts: where the prepared directory lies now; default where it lay during training.

    Raises:
        DeployError: the logits differ by more than `RELATIVE_TOLERANCE`; nothing is left behind.
        RunError, ArtifactsError, DataError: a part is missing, altered or unfinished.
    """
    started = time.monotonic()
    threads = threads or runtime.available_cores()
    source, target = Run(Path(run)), Path(out)
    args = source.read_args()
    validation = source.read_validation()
    best = source.read_checkpoint(BEST)
    if best is None:
        raise RunError(f"{source.path} holds no {BEST}: continue the run with 'edgetl finetune … --resume'")
    prepared = load_artifacts(Path(artifacts or args.artifacts))
    if prepared.sha256 != args.artifacts_sha256:
        raise RunError(f"{prepared.path} is not the prepared directory that {source.path} was trained from")
    if target.is_dir():
        raise DeployError(f"{target} is a folder: give --out the name of a file, such as {target / 'model.onnx'}")

    on_event(Stage("composing"))
    model = _compose(prepared, best.parameters, args)
    beside = None
    if prepared.manifest.text is not None and prepared.file(TOKENIZER).stat().st_size > MAX_EMBEDDED_TOKENIZER:
        beside = f"{target.stem}.{TOKENIZER}"
        storage.write_bytes(target.parent / beside, prepared.file(TOKENIZER).read_bytes())
    _describe(model, prepared, args, source, best.epoch, beside)
    with storage.written_aside(target) as aside:
        aside.write_bytes(model.SerializeToString())
        del model
        on_event(Stage("verifying"))
        compared_started = time.monotonic()
        samples = _validation_samples(prepared, args, validation)
        difference, measured = _compare(DeployedModel(aside), samples, validation, prepared, args, threads)
        compared_seconds = time.monotonic() - compared_started
        size = aside.stat().st_size
    return DeployResult(
        model=str(target),
        size_mb=size / 1e6,
        labels=args.labels,
        opset=defaults.OPSET,
        ir_version=defaults.IR_VERSION,
        verified_samples=len(validation.paths),
        largest_difference=difference,
        figures=measured,
        accuracy=measured.get("accuracy"),
        ms_per_image=compared_seconds / len(validation.paths) * 1e3,
        seconds=time.monotonic() - started,
        peak_rss_mb=runtime.peak_rss_mb(),
    )


_INPUTS = {
    "image": "uint8 RGB picture of any size, upright, [height, width, 3]",
    "audio": "float32 recording of one channel, full scale ±1, at the sample rate of 'audio', [samples]",
    "array": "float32, of the shape of 'inputs'",
    "text": "int64 ids of a text's tokens and their mask, as 'inputs' lists them; -1 is the text's own length",
}


def _compose(prepared: Artifacts, parameters: dict[str, NDArray[np.float32]], args: RunArgs) -> ModelProto:
    """Join preprocessing, backbone and trained part, and end them in one sample's logits and what they mean."""
    import onnx
    from onnx import TensorProto, helper

    from edgetl import graphs

    names = [PREPROCESS, *([BACKBONE] if prepared.has_backbone else []), TRAINABLE]
    parts = [onnx.load(prepared.file(name)).graph for name in names]
    graphs.replace_parameters(parts[-1], parameters)
    task, outputs = prepared.manifest.task, len(args.labels)
    op = graphs.Nodes("edgetl/ending")
    op.Reshape(parts[-1].output[0].name, np.array([-1]), out=LOGITS)
    answer = VALUES if task == "regression" else PROBABILITIES
    if task == "classification":
        op.Softmax(LOGITS, out=answer, axis=-1)
    elif task == "multilabel":
        op.Sigmoid(LOGITS, out=answer)
    else:
        scaled = op.Mul(LOGITS, np.array(args.target_std, np.float32))
        op.Add(scaled, np.array(args.target_mean, np.float32), out=answer)
    ending = helper.make_graph(
        op.nodes,
        "ending",
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [outputs]) for name in (answer, LOGITS)],
        initializer=op.initializers,
    )
    model = graphs.make_model(graphs.join([*parts, ending], "edgetl"))
    onnx.checker.check_model(model)
    return model


def _describe(model: ModelProto, prepared: Artifacts, args: RunArgs, run: Run, epoch: int, beside: str | None) -> None:
    """Write the metadata; `beside` is the name of the file that holds the tokenizer, if the model does not."""
    from onnx import helper

    tokenizer = {}
    if prepared.manifest.text is not None and beside is None:
        tokenizer[METADATA_TOKENIZER] = prepared.file(TOKENIZER).read_text(encoding="utf-8")
    metrics = run.read_metrics() or {}
    manifest = prepared.manifest
    provenance: dict[str, Any] = {
        "edgetl_version": edgetl.__version__,
        "labels": args.labels,
        "task": manifest.task,
        "modality": manifest.modality,
        "input": _INPUTS[manifest.modality],
        "inputs": schema.to_json(manifest.inputs if manifest.text is None else manifest.text.inputs),
        "preprocessing": schema.to_json(manifest.preprocessing),
        "audio": schema.to_json(manifest.audio),
        "text": schema.to_json(manifest.text),
        "tokenizer_file": beside,
        "tokenizer_sha256": manifest.files.get(TOKENIZER),
        "input_columns": args.input_columns,
        "label_columns": args.label_columns,
        "source": schema.to_json(manifest.source),
        "policy": manifest.policy,
        "artifacts_sha256": prepared.sha256,
        "samples_sha256": _samples_hash(run),
        "training": {name: getattr(args, name) for name in ("epochs", "batch_size", "lr", "seed", "engine")},
        "epoch": epoch,
        "val_accuracy": metrics.get("val_accuracy"),
        "val_figures": metrics.get("val_figures"),
    }
    helper.set_model_props(
        model,
        {
            METADATA_NAMES: repr(dict(enumerate(args.labels))),
            "task": "classify" if manifest.task == "classification" else manifest.task,
            METADATA_EDGETL: json.dumps(provenance, ensure_ascii=False),
            **tokenizer,
        },
    )


def _samples_hash(run: Run) -> str:
    """A hash of what trained and validated: contents and labels, but not where the files lay."""
    found = hashlib.sha256()
    for sample in run.read_samples():
        found.update(repr((sample.part, sample.digest, sample.label)).encode())
    return found.hexdigest()


def _validation_samples(prepared: Artifacts, args: RunArgs, validation: Validation) -> list[Sample]:
    """Find the samples again: files where they lay, others by their names in the run's data."""
    manifest = prepared.manifest
    if manifest.modality in ("image", "audio"):
        return [Sample(path, None, Path(path)) for path in validation.paths]
    wanted = wanted_by(manifest, args.labels, args.input_columns, args.label_columns)
    try:
        opened = open_training(Path(args.data), Path(args.val) if args.val else None, wanted)
    except DataError as error:
        raise DeployError(
            f"the deployed file cannot be verified, because the run's data cannot be read: {error}"
        ) from None
    by_place = {sample.place: sample for dataset in opened if dataset is not None for sample in dataset.samples}
    if gone := [place for place in validation.paths if place not in by_place]:
        raise DeployError(
            f"the deployed file cannot be verified, because {gone[0]} is gone from the run's data: put it back, or "
            "run finetune again on the data as it is now"
        )
    return [by_place[place] for place in validation.paths]


def _compare(
    deployed: DeployedModel,
    samples: list[Sample],
    validation: Validation,
    prepared: Artifacts,
    args: RunArgs,
    threads: int,
) -> tuple[float, dict[str, float | None]]:
    """Return the largest difference of logits, and the deployed file's figures."""
    try:
        logits = np.stack(deployed_logits(deployed, samples, validation.digests, threads=threads))
    except DataError as error:
        raise DeployError(
            f"the deployed file cannot be verified, because a sample of the run's validation data is gone: {error}. "
            "Put it back, or run finetune again on the data as it is now"
        ) from None
    difference = float(np.abs(logits - validation.logits).max())
    allowed = RELATIVE_TOLERANCE * max(1.0, float(np.abs(validation.logits).max()))
    if not difference <= allowed:
        raise DeployError(
            f"the deployed file's logits differ from the run's by {difference:.3g} (allowed {allowed:.3g}), "
            "so it was not written: this is an error in edgetl, please report the model"
        )
    task = prepared.manifest.task
    encoder = TargetEncoder(task, prepared.manifest.outputs, mean=args.target_mean, std=args.target_std)
    return difference, figures(task, validation.labels, answers(task, logits, encoder))
