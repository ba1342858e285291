"""The main job on MobileNetV2 with ImageNet weights and CIFAR-10 pictures, as the README has it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HERE, SHARED
from torch import nn

from edgetl.artifacts import load_artifacts
from edgetl.data.dataset import open_folder
from edgetl.runs.run import Run
from edgetl.training.features import extract_features

WEIGHTS = SHARED / "pretrained" / "mobilenetv2_100_imagenet.safetensors"
CIFAR = SHARED / "datasets" / "cifar10"

pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS} is not here")


def edgetl(*arguments: object) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(HERE / "torchvision_standin")}
    command = [sys.executable, "-m", "edgetl", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_main_job_reaches_what_torch_reaches(tmp_path: Path) -> None:
    artifacts, run, model = tmp_path / "artifacts", tmp_path / "run", tmp_path / "model.onnx"
    edgetl(
        "prepare", "timm:mobilenetv2_100", "--weights", WEIGHTS, "--model-arg", "num_classes=1001",
        "--model-arg", "pad_type=same", "--model-arg", "bn_eps=0.001", "--labels-from", CIFAR / "train",
        "--out", artifacts,
    )  # fmt: skip
    found = edgetl("finetune", artifacts, CIFAR / "train", "--out", run, "--epochs", 30, "--init", "zero")
    assert found["features_computed"] == 1000
    deployed = edgetl("deploy", run, "--out", model)
    assert deployed["verified_samples"] == 200
    measured = edgetl("evaluate", model, CIFAR / "test")

    prepared = load_artifacts(artifacts)
    train = extract_features(prepared, open_folder(CIFAR / "train").samples)
    assert train.computed == 0, "the command left its features in the cache"
    test = extract_features(prepared, open_folder(CIFAR / "test").samples)
    inputs, targets = torch.from_numpy(train.batch(np.arange(1000))[0]), torch.tensor([s.label for s in train.samples])
    order = {train.digest(i): i for i in range(len(train.samples))}
    used = list(Run(run).read_samples())
    rows, held = (np.array([order[s.digest] for s in used if s.part == part]) for part in ("train", "val"))
    # the same split, order and rule for the best epoch, in torch
    head = nn.Linear(1280, 10)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    best = (0.0, 0.0, 0.0)
    x_test, y_test = torch.from_numpy(test.batch(np.arange(500))[0]), torch.tensor([s.label for s in test.samples])
    for epoch in range(1, 31):
        for batch in torch.from_numpy(np.random.default_rng([0, epoch]).permutation(rows)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(inputs[batch]), targets[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            scores = head(inputs[held])
            accuracy = (scores.argmax(1) == targets[held]).float().mean().item()
            loss = nn.functional.cross_entropy(scores, targets[held]).item()
            measured_by_torch = (head(x_test).argmax(1) == y_test).float().mean().item()
        best = max(best, (accuracy, -loss, measured_by_torch))
    assert abs(measured["accuracy"] - best[2]) <= 0.015
    assert measured["accuracy"] > 0.5
