"""The deployed graph: preprocessing, backbone and trained part in one, in the precision asked for."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import edgetl
from edgetl import schema
from edgetl.artifacts import BACKBONE, BATCH_LOGITS, PREPROCESS, TOKENIZER, TRAINABLE, Artifacts
from edgetl.data.decode import enough_pixels
from edgetl.deployed import (
    LOGITS,
    METADATA_EDGETL,
    METADATA_NAMES,
    METADATA_PREPROCESS,
    METADATA_TOKENIZER,
    PROBABILITIES,
    VALUES,
)
from edgetl.errors import DeployError
from edgetl.events import EpochEnd, OnEvent, ignore
from edgetl.run import Run, RunArgs
from edgetl.runs import is_finished

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto

Feeds = Mapping[str, "NDArray[Any]"]


@dataclass(frozen=True)
class Form:
    """What kind of file is asked for.

    Attributes:
        precision: `float32`, `float16` or `int8`, of everything between preprocessing and logits.
        quantize_head: whether the classifier, too, is quantised.
        input: `raw`, one sample as it comes, or `tensor`, a batch of what the network takes.
        batch: how many samples a call takes, of `tensor`; None for any number.
    """

    precision: str = "float32"
    quantize_head: bool = False
    input: str = "raw"
    batch: int | None = None


def compose(
    prepared: Artifacts,
    parameters: Mapping[str, NDArray[np.float32]],
    args: RunArgs,
    form: Form,
    calibration: Callable[[], Iterator[Feeds]],
    on_event: OnEvent = ignore,
) -> ModelProto:
    """Join the parts and end them in logits and what they mean.

    Args:
        calibration: gives the inputs of the network for samples; called for int8 only.
        on_event: learns how near int8 comes.

    Raises:
        DeployError, ModelError: the precision cannot be had.
    """
    import onnx

    from edgetl import graphs

    trained = onnx.load(prepared.file(TRAINABLE), load_external_data=False)
    graphs.replace_parameters(trained.graph, parameters)
    parts = [trained.graph]
    if prepared.has_backbone:
        parts.insert(0, onnx.load(prepared.file(BACKBONE), load_external_data=False).graph)
    parts = _in_precision(parts, prepared, form, calibration, on_event)
    if form.input == "raw":
        parts.insert(0, onnx.load(prepared.file(PREPROCESS), load_external_data=False).graph)
    model = graphs.make_model(graphs.join([*parts, _ending(prepared, args, form)], "edgetl"))
    if form.batch is not None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].Clear()
            value.type.tensor_type.shape.dim[0].dim_value = form.batch
    onnx.checker.check_model(model)
    return model


def _in_precision(
    parts: list[GraphProto],
    prepared: Artifacts,
    form: Form,
    calibration: Callable[[], Iterator[Feeds]],
    on_event: OnEvent,
) -> list[GraphProto]:
    """Return one graph, or several in a row, from the network's inputs to `batch_logits`."""
    if form.precision == "float32":
        return parts
    from edgetl import graphs, quantization

    if prepared.manifest.backbone_precision != "float32":
        raise DeployError(
            f"{prepared.path} has a backbone in {prepared.manifest.backbone_precision} already, and the run was "
            "trained on its features: deploy it with --precision float32, which leaves it as it is"
        )
    network = graphs.make_model(graphs.join(parts, "network"))
    if form.precision == "float16":
        return [quantization.to_float16(network).graph]
    names = [spec.name for spec in prepared.manifest.trainable]
    keep = () if form.quantize_head else quantization.classifier_nodes(network.graph, names)
    return [quantization.to_int8(network, calibration, keep=keep, on_event=on_event).graph]


def _ending(prepared: Artifacts, args: RunArgs, form: Form) -> GraphProto:
    from onnx import TensorProto, helper

    from edgetl import graphs

    task = prepared.manifest.task
    op = graphs.Nodes("edgetl/ending")
    shape: list[int | str] = [len(args.labels)]
    if form.input == "raw":
        op.Reshape(BATCH_LOGITS, np.array([-1]), out=LOGITS)
    else:
        op.Identity(BATCH_LOGITS, out=LOGITS)
        shape.insert(0, "batch")
    answer = VALUES if task == "regression" else PROBABILITIES
    if task == "classification":
        op.Softmax(LOGITS, out=answer, axis=-1)
    elif task == "multilabel":
        op.Sigmoid(LOGITS, out=answer)
    else:
        scaled = op.Mul(LOGITS, np.array(args.target_std, np.float32))
        op.Add(scaled, np.array(args.target_mean, np.float32), out=answer)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (answer, LOGITS)]
    return helper.make_graph(op.nodes, "ending", [], outputs, initializer=op.initializers)


_RAW_INPUTS = {
    "image": (
        "uint8 RGB picture of any size, upright, [height, width, 3]; of one of more than 8 bits 'pixel_range' in 256 "
        "equal steps"
    ),
    "audio": "float32 recording of one channel, full scale ±1, at the sample rate of 'audio', [samples]",
    "array": "float32, of the shape of 'inputs'",
    "text": "int64 ids of a text's tokens and their mask, as 'inputs' lists them; -1 is the text's own length",
}
_TENSOR_INPUT = (
    "a batch, [batch, …], of what 'inputs' lists: samples prepared as 'preprocessing', 'audio' or 'text' says, or by "
    "the ONNX model in the metadata 'preprocess.onnx' (base64), which takes one sample as it comes"
)


def describe(
    model: ModelProto,
    prepared: Artifacts,
    args: RunArgs,
    run: Run,
    best: EpochEnd,
    form: Form,
    tokenizer_file: str | None,
) -> None:
    """Write the metadata.

    Args:
        best: the epoch of the weights.
        tokenizer_file: the name of the file beside the model that holds the tokenizer, if the model does not.
    """
    from onnx import helper

    manifest = prepared.manifest
    held = {}
    if manifest.text is not None and tokenizer_file is None:
        held[METADATA_TOKENIZER] = prepared.file(TOKENIZER).read_text(encoding="utf-8")
    if form.input == "tensor":
        held[METADATA_PREPROCESS] = base64.b64encode(prepared.file(PREPROCESS).read_bytes()).decode("ascii")
    provenance: dict[str, Any] = {
        "edgetl_version": edgetl.__version__,
        "labels": args.labels,
        "task": manifest.task,
        "modality": manifest.modality,
        "input": _RAW_INPUTS[manifest.modality] if form.input == "raw" else _TENSOR_INPUT,
        "input_kind": form.input,
        "batch": form.batch,
        "precision": form.precision,
        "backbone_precision": manifest.backbone_precision,
        "inputs": schema.to_json(manifest.inputs if manifest.text is None else manifest.text.inputs),
        "preprocessing": schema.to_json(manifest.preprocessing),
        "pixel_range": args.pixel_range,
        "audio": schema.to_json(manifest.audio),
        "text": schema.to_json(manifest.text),
        "tokenizer_file": tokenizer_file,
        "tokenizer_sha256": manifest.files.get(TOKENIZER),
        "input_columns": args.input_columns,
        "label_columns": args.label_columns,
        "decode": args.decode,
        "at_least": enough_pixels(manifest.preprocessing, args.decode),
        "source": schema.to_json(manifest.source),
        "policy": manifest.policy,
        "artifacts_sha256": prepared.sha256,
        "run_sha256": run_hash(run),
        "samples_sha256": samples_hash(run),
        "training": {
            name: getattr(args, name) for name in ("epochs", "batch_size", "lr", "seed", "engine", "window", "hop")
        },
        "epoch": best.epoch,
        "run_finished": is_finished(run.read_metrics(), run.read_results()),
        "val_accuracy": best.val_figures.get("accuracy"),
        "val_figures": best.val_figures,
    }
    helper.set_model_props(
        model,
        {
            METADATA_NAMES: repr(dict(enumerate(args.labels))),
            "task": "classify" if manifest.task == "classification" else manifest.task,
            METADATA_EDGETL: schema.json_text(provenance),
            **held,
        },
    )


def run_hash(run: Run) -> str:
    """A hash of a run's settings and of its weights to deploy."""
    found = hashlib.sha256(json.dumps(schema.to_json(run.read_args()), sort_keys=True).encode())
    found.update((run.path / run.deployed_weights()).read_bytes())
    return found.hexdigest()


def samples_hash(run: Run) -> str:
    """A hash of what trained and validated: contents and labels, but not where the files lay."""
    found = hashlib.sha256()
    for sample in run.read_samples():
        found.update(repr((sample.part, sample.digest, sample.label)).encode())
    return found.hexdigest()


__all__ = ["Form", "compose", "describe", "run_hash", "samples_hash"]
