"""Small networks: steps of the portable engine against onnxruntime-training's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgetl import prepare
from edgetl.artifacts import (
    ORT_TRAINING_MODEL,
    PORTABLE_EVAL_STEP,
    PORTABLE_PARAMETERS,
    PORTABLE_TRAIN_STEP,
    TRAINABLE,
    Artifacts,
    load_artifacts,
)
from edgetl.engines.registry import Engine, open_engine
from edgetl.errors import EngineError
from edgetl.gradients.lower.lower import write_portable
from edgetl.optimizers.registry import Optimizer
from edgetl.tasks.targets import TargetEncoder

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F


def seeded(function):
    def build():
        torch.manual_seed(0)
        network = function()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2)
        return network
    return build


def block(inputs, outputs, kernel, stride, groups, activation):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), activation)


@seeded
def mobile():
    class Squeeze(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)

        def forward(self, x):
            return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))

    return nn.Sequential(
        block(3, 8, 3, 2, 1, nn.Hardswish()), block(8, 16, 1, 1, 1, nn.ReLU6()), block(16, 16, 3, 1, 16, nn.ReLU6()),
        Squeeze(), block(16, 16, 5, 2, 16, nn.SiLU()), block(16, 12, 1, 1, 1, nn.Identity()),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 9))


@seeded
def residual():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = block(3, 8, 7, 2, 1, nn.ReLU())
            self.pool = nn.MaxPool2d(3, 2, 1)
            self.one, self.two = block(8, 16, 3, 2, 1, nn.ReLU()), block(16, 16, 3, 1, 4, nn.Identity())
            self.short = block(8, 16, 1, 2, 1, nn.Identity())
            self.fc = nn.Linear(16, 9)

        def forward(self, x):
            x = self.pool(self.stem(x))
            x = F.relu(self.two(self.one(x)) + self.short(x))
            return self.fc(F.avg_pool2d(x, 2).mean((2, 3)))

    return Residual()


@seeded
def attention():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 16, 8, 8)
            self.token, self.position = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
            self.bias = nn.Parameter(torch.randn(5, 2))
            self.norm, self.norm2, self.norm3 = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
            self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
            self.register_buffer("relative", torch.arange(17 * 17) % 5, persistent=False)
            self.head = nn.Linear(16, 9)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
            q, k, v = self.qkv(self.norm(x)).reshape(-1, 17, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
            scores = q @ k.transpose(-1, -2) * 8**-0.5 + self.bias[self.relative].reshape(17, 17, 2).permute(2, 0, 1)
            y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 17, 16)
            x = x + self.out(y)
            x = x + self.down(F.gelu(self.up(self.norm2(x))))
            return self.head(self.norm3(x)[:, 0])

    return Attention()


@seeded
def shuffle():
    class Shuffle(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, 2, 1)
            self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
            self.last, self.fc = nn.Conv2d(12, 8, 2, 2), nn.Linear(8, 9)

        def forward(self, x):
            x = F.leaky_relu(self.stem(x), 0.1)
            a, b = x.chunk(2, 1)
            x = torch.cat([a, torch.tanh(self.one(b))], 1)
            x = x.reshape(-1, 2, 4, 16, 16).transpose(1, 2).reshape(-1, 8, 16, 16)
            x = torch.cat([F.gelu(self.two(x), approximate="tanh"), x[:, 2:6]], 1)
            return self.fc(torch.sigmoid(self.last(x)).amax((2, 3)))

    return Shuffle()
"""


def prepared(name: str, directory: Path, train: str) -> Artifacts:
    (directory / "nets.py").write_text(SOURCE)
    out = directory / "art"
    spec = f"{directory / 'nets.py'}:{name}"
    prepare(spec, out=out, labels=list("abcde"), train=[train], preprocessing={"size": 32})
    artifacts = load_artifacts(out)
    manifest = artifacts.manifest
    training, trainable = onnx.load(out / ORT_TRAINING_MODEL), onnx.load(out / TRAINABLE)
    write_portable(out, training, trainable, manifest.trainable, manifest.loss, manifest.optimizer)
    return artifacts


Batch = tuple[list[np.ndarray], np.ndarray, np.ndarray]


def batches(artifacts: Artifacts, sizes: tuple[int, ...]) -> list[Batch]:
    rng = np.random.default_rng(0)
    shapes = [spec.shape for spec in artifacts.manifest.features]
    encode = TargetEncoder("classification", 5)
    return [
        ([rng.standard_normal((n, *shape)).astype(np.float32) for shape in shapes], *encode(rng.integers(0, 5, n)))
        for n in sizes
    ]


def opened(artifacts: Artifacts, state: bytes | None = None, engine: str = "portable", **settings: Any) -> Engine:
    return open_engine(engine, artifacts, state, threads=2, **settings)


@pytest.mark.parametrize("train", ["head", "all"])
@pytest.mark.parametrize("name", ["mobile", "residual", "attention", "shuffle"])
def test_steps_are_those_of_onnxruntime_training(name: str, train: str, tmp_path: Path) -> None:
    artifacts = prepared(name, tmp_path, train)
    for file in (PORTABLE_TRAIN_STEP, PORTABLE_EVAL_STEP):
        model = onnx.load(artifacts.file(file))
        assert {node.domain for node in model.graph.node} == {""}
        assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
        assert model.ir_version == 8
    one, two = opened(artifacts, engine="ort-training"), opened(artifacts)
    for batch in batches(artifacts, (6, 6, 4, 6)):
        loss, logits = one.evaluate(*batch)
        found, found_logits = two.evaluate(*batch)
        assert found == pytest.approx(loss, rel=1e-5, abs=1e-5)
        np.testing.assert_allclose(found_logits, logits, rtol=1e-4, atol=1e-4)
        assert two.train_step(*batch, 1e-3) == pytest.approx(one.train_step(*batch, 1e-3), rel=1e-4, abs=1e-5)
    expected, found_parameters = one.parameters(), two.parameters()
    assert list(found_parameters) == [spec.name for spec in artifacts.manifest.trainable]
    for key, value in found_parameters.items():
        # four steps move each element by about 4e-3; where a gradient is rounding noise Adam makes it a whole step
        differences = np.abs(value - expected[key])
        assert np.median(differences) <= 1e-6
        assert (differences > 1e-5).mean() < 0.02


def test_its_state_continues_exactly(tmp_path: Path) -> None:
    artifacts = prepared("mobile", tmp_path, "all")
    whole, broken = (opened(artifacts) for _ in range(2))
    first, second, third = batches(artifacts, (6, 3, 6))
    for engine in (whole, broken):
        engine.train_step(*first, 1e-3)
    state = broken.state()
    broken = opened(artifacts, state)
    assert broken.state() == state
    for batch in (second, third):
        assert whole.train_step(*batch, 1e-3) == broken.train_step(*batch, 1e-3)
    assert whole.state() == broken.state()


@pytest.mark.parametrize("engine", ["ort-training", "portable"])
@pytest.mark.parametrize("name", ["mobile", "attention"])
def test_parts_of_a_batch_give_the_same_step(name: str, engine: str, tmp_path: Path) -> None:
    artifacts = prepared(name, tmp_path, "all")
    sgd = Optimizer("sgd", weight_decay=0.0)  # whose steps are as exact as its gradients
    whole = opened(artifacts, engine=engine, optimizer=sgd)
    parts = opened(artifacts, engine=engine, optimizer=sgd, micro_batch=4)
    for batch in batches(artifacts, (9, 9, 3)):
        assert parts.train_step(*batch, 0.01) == pytest.approx(whole.train_step(*batch, 0.01), rel=1e-5)
    expected = whole.parameters()
    for key, value in parts.parameters().items():
        np.testing.assert_allclose(value, expected[key], atol=1e-6 * max(1, np.abs(expected[key]).max()))


def test_what_is_damaged_or_foreign_is_refused(tmp_path: Path) -> None:
    artifacts = prepared("shuffle", tmp_path, "head")
    engine = opened(artifacts)
    state = engine.state()
    content = engine.parameters()
    assert content["fc.weight"].shape == (5, 8)
    np.savez(tmp_path / "other.npz", step=np.array(1), **content)
    for damaged in (b"", b"damaged", state[: len(state) // 2], (tmp_path / "other.npz").read_bytes()):
        with pytest.raises(EngineError):
            opened(artifacts, damaged)
    artifacts.file(PORTABLE_PARAMETERS).write_bytes(b"damaged")
    with pytest.raises(EngineError):
        opened(artifacts)
    artifacts.file(PORTABLE_TRAIN_STEP).unlink()
    with pytest.raises(EngineError, match="ort-training"):
        opened(artifacts, state)
