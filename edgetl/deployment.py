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
from edgetl.artifacts import BACKBONE, PREPROCESS, TRAINABLE, Artifacts, load_artifacts
from edgetl.deployed import IMAGE, LOGITS, METADATA_EDGETL, METADATA_NAMES, PROBABILITIES, DeployedModel
from edgetl.deployed import logits_of as deployed_logits
from edgetl.errors import DataError, DeployError, RunError
from edgetl.events import OnEvent, Stage, ignore
from edgetl.run import BEST, Run, RunArgs, Validation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

RELATIVE_TOLERANCE = 1e-4
"""Largest difference allowed between deployed and trained logits, relative to the largest logit (at least 1)."""


@dataclass(frozen=True)
class DeployResult:
    """The file that was written and how it was verified.

    Attributes:
        largest_difference: between the file's logits and the training engine's, over
            `verified_samples` pictures.
        accuracy: of the file on those pictures (the run's validation data).
    """

    model: str
    size_mb: float
    labels: tuple[str, ...]
    opset: int
    ir_version: int
    verified_samples: int
    largest_difference: float
    accuracy: float
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

    The file takes `image`, `[height, width, 3]` uint8 RGB of any size, and gives `probabilities`
    and `logits`, `[classes]` float32. It is written aside and takes its name only after its logits
    have been compared with those of the training engine.

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
    model = _compose(prepared, best.parameters, args.labels)
    _describe(model, prepared, args, source, best.epoch)
    with storage.written_aside(target) as aside:
        aside.write_bytes(model.SerializeToString())
        del model
        on_event(Stage("verifying"))
        compared_started = time.monotonic()
        difference, accuracy = _compare(DeployedModel(aside), validation, threads)
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
        accuracy=accuracy,
        ms_per_image=compared_seconds / len(validation.paths) * 1e3,
        seconds=time.monotonic() - started,
        peak_rss_mb=runtime.peak_rss_mb(),
    )


def _compose(prepared: Artifacts, parameters: dict[str, NDArray[np.float32]], labels: tuple[str, ...]) -> ModelProto:
    """Join preprocessing, backbone and trained part, and end them in one picture's logits and probabilities."""
    import onnx
    from onnx import TensorProto, helper

    from edgetl import graphs

    names = [PREPROCESS, *([BACKBONE] if prepared.has_backbone else []), TRAINABLE]
    parts = [onnx.load(prepared.file(name)).graph for name in names]
    graphs.replace_parameters(parts[-1], parameters)
    batched = parts[-1].output[0].name
    flat = "edgetl/flat"
    ending = helper.make_graph(
        [
            helper.make_node("Reshape", [batched, flat], [LOGITS]),
            helper.make_node("Softmax", [LOGITS], [PROBABILITIES], axis=-1),
        ],
        "ending",
        [],
        [
            helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [len(labels)]),
            helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [len(labels)]),
        ],
        initializer=[helper.make_tensor(flat, TensorProto.INT64, [1], [-1])],
    )
    model = graphs.make_model(graphs.join([*parts, ending], "edgetl"))
    assert model.graph.input[0].name == IMAGE, "preprocess.onnx names its input so"
    onnx.checker.check_model(model)
    return model


def _describe(model: ModelProto, prepared: Artifacts, args: RunArgs, run: Run, epoch: int) -> None:
    from onnx import helper

    metrics = run.read_metrics() or {}
    manifest = prepared.manifest
    provenance: dict[str, Any] = {
        "edgetl_version": edgetl.__version__,
        "labels": args.labels,
        "task": manifest.task,
        "input": "uint8 RGB picture of any size, upright, [height, width, 3]",
        "preprocessing": schema.to_json(manifest.preprocessing),
        "source": schema.to_json(manifest.source),
        "policy": manifest.policy,
        "artifacts_sha256": prepared.sha256,
        "samples_sha256": hashlib.sha256(repr(run.read_samples()).encode()).hexdigest(),
        "training": {name: getattr(args, name) for name in ("epochs", "batch_size", "lr", "seed", "engine")},
        "epoch": epoch,
        "val_accuracy": metrics.get("val_accuracy"),
    }
    helper.set_model_props(
        model,
        {
            METADATA_NAMES: repr(dict(enumerate(args.labels))),
            "task": "classify",
            METADATA_EDGETL: json.dumps(provenance, ensure_ascii=False),
        },
    )


def _compare(deployed: DeployedModel, validation: Validation, threads: int) -> tuple[float, float]:
    """Return the largest difference of logits and the deployed file's accuracy."""
    try:
        logits = np.stack(deployed_logits(deployed, [Path(path) for path in validation.paths], threads=threads))
    except DataError as error:
        raise DeployError(
            f"the deployed file cannot be verified, because a picture of the run's validation data is gone: {error}. "
            "Put it back, or run finetune again on the data as it is now"
        ) from None
    difference = float(np.abs(logits - validation.logits).max())
    allowed = RELATIVE_TOLERANCE * max(1.0, float(np.abs(validation.logits).max()))
    if not difference <= allowed:
        raise DeployError(
            f"the deployed file's logits differ from the run's by {difference:.3g} (allowed {allowed:.3g}), "
            "so it was not written: were the validation pictures changed since the run?"
        )
    return difference, float((logits.argmax(axis=1) == validation.labels).mean())
