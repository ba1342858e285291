"""Gradients of every parameter against torch.autograd's, and frozen batch normalisation."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cells import Training, with_random_head
from onnx import numpy_helper
from torch import nn

from edgetl import deploy, finetune, prepare
from edgetl.artifacts import Preprocessing
from edgetl.gradients import ort_artifacts
from edgetl.optimizers.registry import Optimizer
from edgetl.preparation import policy, split
from edgetl.preparation.heads import replace_head
from edgetl.preparation.sources.export import export


def tiny(name: str) -> tuple[nn.Module, int]:
    import timm

    torch.manual_seed(0)
    arguments = {
        "vit_tiny_patch16_224": {"img_size": 32, "depth": 2, "embed_dim": 48},
        "convnext_atto": {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
        "swin_tiny_patch4_window7_224": {"img_size": 56, "depths": (1, 2), "num_heads": (2, 4), "embed_dim": 24},
    }[name]
    module = timm.create_model(name, num_classes=5, **arguments).eval()
    # away from the values at which gradients vanish or are equal by symmetry
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module, int(arguments.get("img_size", 64))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_gradients_are_torchs(name: str, tmp_path: Path) -> None:
    module, side = tiny(name)
    image = Preprocessing(side, side, resize_size=side)
    model, parameters = export(module, image.inputs)
    network = with_random_head(replace_head(model, 5, parameters))
    trainable = policy.trainable_parameters(network, ["all"])
    assert {n for n, _ in module.named_parameters()} == set(trainable)
    head = {t.name: numpy_helper.to_array(t) for t in network.model.graph.initializer if t.name in network.head}
    with torch.no_grad():
        for key, value in head.items():
            module.get_parameter(key).copy_(torch.from_numpy(value.copy()))

    parts = split.split(network, trainable)
    assert parts.backbone is None
    ort_artifacts.generate(parts.trainable, trainable, "cross_entropy", Optimizer(), tmp_path)
    pictures, targets = torch.randn(3, 3, side, side), torch.tensor([1, 4, 0])
    loss = nn.functional.cross_entropy(module(pictures), targets)
    loss.backward()
    found_loss, found = Training(tmp_path).gradients([pictures.numpy()], targets.numpy())
    assert found_loss == pytest.approx(loss.item(), rel=1e-5)
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None
        expected = parameter.grad.numpy()
        difference = np.linalg.norm(found[key] - expected) / max(1e-6, np.linalg.norm(expected))
        assert difference < 1e-4, f"{key}: {difference:.2e}"


SOURCE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6),
                        nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 9))
    for layer in net:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return net
"""


def test_training_everything_keeps_running_statistics_bit_for_bit(tmp_path: Path) -> None:
    from conftest import write_pictures

    (tmp_path / "nets.py").write_text(SOURCE)
    spec = f"{tmp_path / 'nets.py'}:build"
    prepare(spec, out=tmp_path / "art", labels=["a", "b"], train=["all"], preprocessing={"size": 12})
    data = write_pictures(tmp_path / "data", {"a": 8, "b": 8}, size=12)
    finetune(tmp_path / "art", data, out=tmp_path / "run", epochs=3, lr=1e-2)
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")

    namespace: dict[str, object] = {}
    exec(SOURCE, namespace)
    module = namespace["build"]()  # type: ignore[operator]
    after = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.BatchNorm2d):
            continue
        inverse = 1 / np.sqrt(layer.running_var.numpy().astype(np.float64) + layer.eps)
        offset = -layer.running_mean.numpy().astype(np.float64) * inverse
        kept = [value for value in after.values() if value.shape == inverse.shape]
        assert any((value == inverse.astype(np.float32)).all() for value in kept)
        assert any((value == offset.astype(np.float32)).all() for value in kept)
        # while scale and bias have moved
        assert (after[f"{name}.weight"] != 1).all()
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(tmp_path / "model.onnx").graph.node)
