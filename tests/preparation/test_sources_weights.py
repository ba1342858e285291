"""Checkpoints as training scripts leave them: the features behind the new head are those of the network saved."""

import argparse
import copy
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edgetl import prepare
from edgetl.artifacts import BACKBONE
from edgetl.errors import ModelError
from edgetl.events import Note
from edgetl.preparation.sources.weights import load_weights

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.fc = nn.Linear(12, classes)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3)))

class Inside(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Net()

    def forward(self, x):
        return self.backbone(x)
"""
_SCOPE: dict[str, Any] = {"__name__": "nets_of_a_training_script"}
exec(SOURCE, _SCOPE)
Net = _SCOPE["Net"]


def trained(classes: int = 10) -> nn.Module:
    """Weights and statistics that no constructor makes."""
    torch.manual_seed(7)
    net: nn.Module = Net(classes)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.6)
    return net.eval()


def features(net: nn.Module, pixels: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return net.body(net.stem(pixels)).mean((2, 3)).numpy()


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


def compiled_inside(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("body.", "body._orig_mod."): value for name, value in state.items()}


def other_head(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    rest = {name: value for name, value in state.items() if not name.startswith("fc.")}
    return {**rest, "fc.1.weight": torch.ones(4, 12), "fc.1.bias": torch.ones(4), "fc.0.weight": torch.ones(12)}


OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(8)}}, "param_groups": [{"lr": 0.1}]}
FORMS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "plain": lambda state: state,
    "under model": lambda state: {"model": state, "optimizer": OPTIMIZER, "epoch": 3},
    "under net": lambda state: {"net": state, "acc": 91.2, "epoch": 3},
    "under model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": OPTIMIZER},
    "DataParallel": lambda state: prefixed("module.", state),
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled in part": compiled_inside,
    "DataParallel, compiled, in a part": lambda state: {"state_dict": prefixed("module._orig_mod.model.", state)},
    "Lightning": lambda state: {
        "state_dict": {**prefixed("model.", state), "loss.weight": torch.ones(10)},
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": argparse.Namespace(lr=0.1),
        "optimizer_states": [OPTIMIZER],
        "callbacks": {"best": np.float64(0.5)},
    },
    "timm train.py": lambda state: {
        "epoch": 3,
        "arch": "net",
        "state_dict": {name: torch.zeros_like(value) for name, value in state.items()},
        "state_dict_ema": state,
        "optimizer": OPTIMIZER,
        "args": argparse.Namespace(lr=0.1, output=pathlib.PurePosixPath("out")),
    },
    "an encoder with a projector": lambda state: {
        **prefixed("encoder.", state), "projector.0.weight": torch.ones(9, 9)
    },
    "a projector beside it": lambda state: {**state, "projector.0.weight": torch.ones(9, 9)},
    "a head of other layers": other_head,
    "no head": lambda state: {name: value for name, value in state.items() if not name.startswith("fc.")},
    "half precision": lambda state: {name: value.half() for name, value in state.items()},
    "counters of a profiler": lambda state: {**state, "total_ops": torch.ones(1), "stem.total_params": torch.ones(1)},
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(SOURCE)
    return tmp_path / "nets.py"


@pytest.mark.parametrize("classes", [10, 5])
@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_of_training_scripts(form: str, classes: int, tmp_path: Path) -> None:
    net = trained(classes)
    torch.save(FORMS[form](net.state_dict()), tmp_path / "w.pth")
    into = Net().eval()
    fit = load_weights(into, tmp_path / "w.pth")
    fit.check(set(into.state_dict()), ("fc.weight", "fc.bias"))
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    tolerance = 1e-2 if form == "half precision" else 1e-6
    np.testing.assert_allclose(features(into, pixels), features(net, pixels), rtol=tolerance)


def test_as_safetensors_and_below_a_module_of_the_network(source: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    net = trained(5)
    safetensors.save_file(prefixed("module.", net.state_dict()), tmp_path / "w.safetensors")
    prepare(f"{source}:Inside", out=tmp_path / "art", classes=2, weights=tmp_path / "w.safetensors",
            preprocessing={"size": 16})  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "art" / BACKBONE)
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    np.testing.assert_allclose(found.reshape(1, -1), features(net, pixels), rtol=1e-4)


def test_a_network_saved_whole_is_read_without_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("nets_of_a_training_script")
    module.Net = Net  # type: ignore[attr-defined]
    net = trained(5)
    with monkeypatch.context() as context:
        context.setitem(sys.modules, module.__name__, module)
        torch.save({"model": net, "ema": None, "train_args": {"imgsz": 16}}, tmp_path / "w.pt")
    into = Net().eval()
    load_weights(into, tmp_path / "w.pt").check(set(into.state_dict()), ("fc.weight", "fc.bias"))
    assert module.__name__ not in sys.modules
    pixels = torch.ones(1, 3, 16, 16)
    np.testing.assert_allclose(features(into, pixels), features(net, pixels), rtol=1e-6)


def without(*names: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda state: {name: value for name, value in state.items() if name not in names}


REFUSED: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "a layer is missing": (without("body.0.weight", "body.0.bias"), r"no weights for 2 of 16 tensors \(body.0.bias, "),
    "statistics are missing": (without("stem.1.running_mean"), r"no weights for 1 of 16 tensors \(stem.1.running_mean"),
    "grey": (
        lambda state: {**state, "stem.0.weight": state["stem.0.weight"][:, :1]},
        r"another size of stem.0.weight \(\[8, 1, 3, 3\], not \[8, 3, 3, 3\]\).*--channels 1",
    ),
    "a deeper network": (lambda state: {**state, "body.3.weight": torch.ones(9)}, "1 tensor .body.3.weight. for which"),
    "another network": (lambda state: {"conv1.weight": torch.ones(9, 3, 3, 3)}, "none of its 1 names .conv1.weight"),
    "no tensors": (lambda state: {"epoch": 3, "args": argparse.Namespace()}, "holds no weights"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_told_briefly(case: str, source: Path, tmp_path: Path) -> None:
    form, words = REFUSED[case]
    torch.save(form(trained().state_dict()), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=words) as caught:
        prepare(f"{source}:Net", out=tmp_path / "art", classes=2, weights=tmp_path / "w.pth",
                preprocessing={"size": 16})  # fmt: skip
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert not (tmp_path / "art").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(range(256)) * 9, "cut"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_what_is_not_a_checkpoint_is_one_sentence(content: Any, ending: str, source: Path, tmp_path: Path) -> None:
    file = tmp_path / f"w{ending}"
    if content == "cut":
        torch.save(trained().state_dict(), file)
        content = file.read_bytes()[:-100]
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"is not a checkpoint that can be read, or is damaged: give a file that"):
        prepare(f"{source}:Net", out=tmp_path / "art", classes=2, weights=file, preprocessing={"size": 16})


def test_what_is_chosen_and_left_out_is_told(source: Path, tmp_path: Path) -> None:
    state = trained().state_dict()
    torch.save({"state_dict": state, "model_ema": {**copy.deepcopy(state), "decoder.weight": torch.ones(3, 3)}},
               tmp_path / "w.pth")  # fmt: skip
    events: list[Any] = []
    prepare(f"{source}:Net", out=tmp_path / "art", classes=2, weights=tmp_path / "w.pth",
            preprocessing={"size": 16}, on_event=events.append)  # fmt: skip
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("took 'model_ema'; 'state_dict' would fit as well" in text for text in notes)
    assert any("1 tensor (decoder.weight)" in text for text in notes)
