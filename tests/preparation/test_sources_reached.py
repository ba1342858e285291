"""Names that do not exist, packages that are not installed, and servers that do not answer: one sentence each."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetl import prepare
from edgetl.errors import EdgetlError, ModelError
from edgetl.preparation.sources import hub

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("timm:mobilnetv2_100", "timm has no model 'mobilnetv2_100'; did you mean 'mobilenetv2_100'"),
        ("timm:test_resnet.r160_in1", "timm:test_resnet has no weights 'r160_in1'; did you mean 'r160_in1k'"),
        ("mobilenetv2_100", "names no source; did you mean 'timm:mobilenetv2_100'"),
        ("resnet18", "did you mean 'timm:resnet18'.*'torchvision:resnet18'"),
        ("squeezenet1_1", "'torchvision:squeezenet1_1'"),
        ("tim:resnet18", "there is no module tim; did you mean 'timm:resnet18'"),
        ("torchvison:resnet18", "there is no module torchvison; did you mean 'torchvision:resnet18'"),
        ("torchvision:resnet81", "no classifier 'resnet81'; did you mean 'resnet"),
        ("net.py:biuld", "net.py has no function 'biuld'; did you mean 'build'"),
        ("net.py:zzz", "net.py has no function 'zzz': choose from build"),
        ("nets.py:build", "nets.py does not exist; did you mean 'net.py'"),
        ("net.py", "net.py is a Python file, not a network to prepare: name its function"),
        ("god.onnx", "god.onnx does not exist; did you mean 'good.onnx'"),
        ("weights.pth", "weights.pth is a file of weights.*--weights weights.pth"),
        ("vit", "vit is a model folder of Transformers, not a network to prepare: .* hf:vit"),
        ("model.tflite", "model.tflite is not a network to prepare: give timm:NAME"),
        ("zzzzz", "zzzzz does not exist: give timm:NAME"),
    ],
)
def test_misspelt_names_and_forgotten_prefixes(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    for name in ("good.onnx", "weights.pth", "model.tflite"):
        Path(name).write_bytes(b"")
    Path("vit").mkdir()
    Path("vit/config.json").write_text("{}")
    with pytest.raises(ModelError, match=words):
        prepare(source, out="art", classes=2)


@pytest.mark.parametrize(
    ("train", "words"), [("hed", "did you mean 'head'"), ("last3", "did you mean 'last:3"), ("0.wieght", "'0.weight'")]
)
def test_misspelt_policies(train: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    with pytest.raises(ModelError, match=words):
        prepare(f"{tmp_path / 'net.py'}:build", out=tmp_path / "art", classes=2, train=[train],
                preprocessing={"size": 12})  # fmt: skip


@pytest.mark.parametrize(
    ("package", "source", "words"),
    [
        *(
            ("torch", source, "prepare needs PyTorch: run it on a workstation, pip install 'edgetl.prepare.'")
            for source in (
                "timm:resnet18",
                "torchvision:resnet18",
                "hf:x",
                "net.py:build",
                "a.onnx",
                "a.pt2",
                "a.keras",
            )
        ),
        ("onnxscript", "net.py:build", "prepare needs onnxscript: .*edgetl.prepare."),
        ("onnx", "net.py:build", "prepare needs onnx: .*edgetl.prepare."),
        ("timm", "timm:resnet18", "timm: needs timm, which is not installed: pip install 'edgetl.zoo.'"),
        ("torchvision", "torchvision:resnet18", "needs torchvision, which is not installed: .*zoo"),
        ("transformers", "hf:x", "needs transformers, which is not installed: .*zoo"),
        ("keras", "a.keras", "needs keras, which is not installed: .*zoo"),
        ("safetensors", "net.py:build --weights w.safetensors", "needs safetensors, which is not installed: .*zoo"),
    ],
)
def test_packages_that_are_not_installed(package: str, source: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    for name in ("a.onnx", "a.pt2", "a.keras", "w.safetensors"):
        (tmp_path / name).write_bytes(b"")
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from edgetl.cli import main\n"
        f"main(['prepare', *{source.split()!r}, '--classes', '2', '--out', 'art'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    import re

    assert re.search(words, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("source", ["timm:test_resnet", "hf:google/vit-base-patch16-224"])
@pytest.mark.parametrize("answers", ["refuses", "never"])
def test_a_hub_that_does_not_answer(
    answers: str, source: str, silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("huggingface_hub")
    address = silent_server if answers == "never" else "http://127.0.0.1:9"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "_PATIENCE", 0.5)
    hub._silence.cache_clear()
    started = time.monotonic()
    with pytest.raises(EdgetlError, match=rf"{address} does not answer \(.*\); give .*, or go online"):
        prepare(source, out=tmp_path / "art", classes=2)
    assert time.monotonic() - started < 20
    assert "Retrying" not in "".join(capfd.readouterr())
