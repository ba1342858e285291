"""Competitor "onnxruntime-training" of finetune_head.py: `head_onnxruntime_training.py JOB`.

`Module` and `Optimizer` as ONNX Runtime's documentation shows them, over artifacts of the whole
network (see head_prepare.py); pictures are decoded and resized with Pillow. Runs without torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from head_job import Job, report_accuracy, report_trained
from numpy.typing import NDArray
from PIL import Image

from edgetl.artifacts import Preprocessing
from edgetl.data.folder import Sample, open_folder
from edgetl.engines.ort_training import import_training_api
from edgetl.runtime.process import available_cores

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]


def main() -> None:
    job = Job.load(sys.argv[1])
    spec = job.preprocessing()
    assert spec.resize == "crop", "what timm's configuration of this network says"
    module, optimizer = open_artifacts(Path(job.unsplit))
    optimizer.set_learning_rate(job.lr)
    samples = open_folder(Path(job.train)).samples
    random = np.random.default_rng(job.seed)
    for _ in range(job.epochs):
        shuffled = [samples[i] for i in random.permutation(len(samples))]
        for pictures, targets in batches(shuffled, spec, job.batch_size):
            module.train()
            module(pictures, targets)
            optimizer.step()
            module.lazy_reset_grad()
    report_trained()

    module.eval()
    test = open_folder(Path(job.test)).samples
    correct = 0
    for pictures, targets in batches(test, spec, job.batch_size):
        _, logits = module(pictures, targets)
        correct += int((logits.argmax(axis=1) == targets).sum())
    report_accuracy(correct, len(test))


def open_artifacts(directory: Path) -> tuple[Any, Any]:
    """Return ONNX Runtime's module and optimizer; the number of threads is its only setting."""
    # the documented `import onnxruntime.training.api` needs torch to be installed
    api = import_training_api()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    state = api.CheckpointState.load_checkpoint(os.fspath(directory / "checkpoint"))
    module = api.Module(
        os.fspath(directory / "training_model.onnx"),
        state,
        os.fspath(directory / "eval_model.onnx"),
        session_options=options,
    )
    return module, api.Optimizer(os.fspath(directory / "optimizer_model.onnx"), module)


def batches(samples: Sequence[Sample], spec: Preprocessing, size: int) -> Iterator[Batch]:
    """Read pictures, `[N, 3, H, W]` float32, and their classes, `[N]` int64."""
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        pictures = np.stack([read_picture(sample.path, spec) for sample in part])
        yield pictures, np.array([sample.label for sample in part], dtype=np.int64)


def read_picture(path: Path, spec: Preprocessing) -> NDArray[np.float32]:
    """Decode, resize, crop and normalise one picture, as torchvision's transforms do it with Pillow."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    shorter = min(image.size)
    width, height = (spec.resize_size * side // shorter for side in image.size)
    image = image.resize((width, height), Image.Resampling[spec.interpolation.upper()])
    left, top = round((width - spec.width) / 2), round((height - spec.height) / 2)
    pixels = np.asarray(image.crop((left, top, left + spec.width, top + spec.height)), dtype=np.float32)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    return ((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1)


if __name__ == "__main__":
    main()
