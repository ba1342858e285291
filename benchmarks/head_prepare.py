"""What finetune_head.py does before the clock runs: `head_prepare.py JOB` on the workstation, with torch.

Writes edgetl's prepared directories and, for the competitor "onnxruntime-training", the artifacts of
the whole network, of which only the classifier trains.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import onnx
import torch
from head_job import MODEL, MODEL_ARGS, Job
from head_pytorch import load_network
from onnxruntime.training import artifacts

import edgetl
from edgetl.artifacts import Preprocessing

LITERT_PREPROCESSING = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "crop_pct": 1.0}
HEAD = ("classifier.weight", "classifier.bias")
ONNXRUNTIME_TRAINING_IR_VERSION = 10  # the newest that its last release reads


def main() -> None:
    job = Job.load(sys.argv[1])
    prepare = partial(
        edgetl.prepare,
        f"timm:{MODEL}",
        labels_from=job.train,
        weights=job.weights,
        model_args=MODEL_ARGS,
        preprocessing=LITERT_PREPROCESSING if job.litert_models else None,
    )
    prepared = prepare(out=job.artifacts)
    if job.artifacts_int8:
        prepare(out=job.artifacts_int8, backbone="int8", calibration=job.train)
    directory = Path(job.unsplit)
    directory.mkdir()
    model = export_whole_network(job, prepared.outputs, prepared.preprocessing, directory / "network.onnx")
    generate_artifacts(model, directory)


def export_whole_network(job: Job, classes: int, spec: Preprocessing, file: Path) -> onnx.ModelProto:
    """Export the network with a new classifier, with a batch of any size.

    The documentation asks for an export in training mode; in evaluation mode the exporter folds
    batch normalisation away, which is faster, and what a frozen backbone wants.
    """
    torch.manual_seed(job.seed)
    network = load_network(job)
    network.reset_classifier(classes)
    torch.onnx.export(
        network.eval(),
        (torch.randn(2, spec.channels, spec.height, spec.width),),
        file,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        input_names=["input"],
        output_names=["logits"],
        opset_version=18,
        external_data=False,
    )
    return onnx.load(file)


def generate_artifacts(model: onnx.ModelProto, directory: Path) -> None:
    """Call ONNX Runtime's function with the classifier trainable and every other parameter frozen."""
    weights = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and t.dims]
    artifacts.generate_artifacts(
        model,
        requires_grad=list(HEAD),
        frozen_params=[name for name in weights if name not in HEAD],
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.AdamW,
        artifact_directory=directory,
        additional_output_names=["logits"],
    )
    for file in directory.glob("*_model.onnx"):
        written = onnx.load(file)
        written.ir_version = min(written.ir_version, ONNXRUNTIME_TRAINING_IR_VERSION)
        onnx.save(written, file)


if __name__ == "__main__":
    main()
