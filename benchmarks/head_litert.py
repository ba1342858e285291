"""Competitor "litert" of finetune_head.py: `head_litert.py JOB`, where ai-edge-litert, NumPy and Pillow are installed.

The structure of TensorFlow's model personalisation: a file that computes features, once for each picture, kept in
memory, and a file whose signatures `train` and `infer` are a linear head with AdamW. Imports nothing of edgetl, so that
its environment needs none.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

SIDE = 224


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    size, threads = job["batch_size"], len(os.sched_getaffinity(0))
    backbone = open_model(job, "litert_features.tflite", threads)
    entry, result = backbone.get_input_details()[0]["index"], backbone.get_output_details()[0]["index"]
    backbone.resize_tensor_input(entry, [size, SIDE, SIDE, 3])
    backbone.allocate_tensors()

    def features(folder: str) -> tuple[Any, Any]:
        found, labels = [], []
        for pictures, classes in batches(Path(folder), size):
            backbone.set_tensor(entry, filled_up(pictures, size))
            backbone.invoke()
            found.append(backbone.get_tensor(result)[: len(classes)])
            labels.append(classes)
        return np.concatenate(found), np.concatenate(labels)

    x, y = features(job["train"])
    head = open_model(job, "litert_linear.tflite", threads)
    train, infer = head.get_signature_runner("train"), head.get_signature_runner("infer")
    random = np.random.default_rng(job["seed"])
    for _ in range(job["epochs"]):
        order = random.permutation(len(x))
        # the signature takes whole batches only
        for start in range(0, len(x) - size + 1, size):
            rows = order[start : start + size]
            train(x=x[rows], y=y[rows])
    print(json.dumps({"peak_rss_mb": peak_rss_mb()}), flush=True)

    x, y = features(job["test"])
    correct = 0
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        logits = infer(x=filled_up(x[rows], size))["logits"][: len(y[rows])]
        correct += int((logits.argmax(axis=1) == y[rows]).sum())
    print(json.dumps({"accuracy": correct / len(y)}), flush=True)


def open_model(job: dict[str, Any], name: str, threads: int) -> Any:
    return Interpreter(model_path=str(Path(job["litert_models"]) / name), num_threads=threads)


def batches(root: Path, size: int) -> Iterator[tuple[Any, Any]]:
    """Pictures `[n, 224, 224, 3]` float32 in -1..1 and their classes `[n]` int32, from one folder for each class."""
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    files = [(file, label) for label, folder in enumerate(folders) for file in sorted(folder.iterdir())]
    for start in range(0, len(files), size):
        chosen = files[start : start + size]
        yield np.stack([read(file) for file, _ in chosen]), np.array([label for _, label in chosen], np.int32)


def read(file: Path) -> Any:
    with Image.open(file) as image:
        resized = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32) / 127.5 - 1


def filled_up(rows: Any, size: int) -> Any:
    """Return a last, smaller batch with its first row repeated."""
    return rows if len(rows) == size else np.concatenate([rows, rows[:1].repeat(size - len(rows), 0)])


def peak_rss_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


if __name__ == "__main__":
    main()
