"""The programs that the documentation shows for recordings and texts do what `edgetl predict` does."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import save
from recordings import tone, wav

from edgetl import deploy, finetune, predict, prepare

DOCS = Path(__file__).parents[2] / "docs"
SOUNDS = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(32, 3))
"""


def snippet(file: str, *holding: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / file).read_text(encoding="utf-8"), re.M | re.S)
    (found,) = [block for block in blocks if all(word in block for word in holding)]
    return str(found)


def test_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, hertz in (("low", 300.0), ("high", 2200.0)):
        Path("data", name).mkdir(parents=True)
        for number in range(6):
            values = tone(8000, hertz * (1 + 0.02 * number), 16000)
            Path("data", name, f"{number}.wav").write_bytes(wav(values, 2, 16000))
    Path("nets.py").write_text(SOUNDS)
    fields = {"sample_rate": 16000, "seconds": 0.5, "mels": 24}
    prepare("nets.py:build", out="art", labels_from="data", modality="audio", audio=fields)
    finetune("art", "data", out="run", epochs=5, lr=1e-2)
    deploy("run", out="sounds.onnx")
    stereo = np.stack([tone(7000, 2200, 16000), 0.3 * tone(7000, 300, 16000)], axis=1)
    Path("new.wav").write_bytes(wav(stereo, 2, 16000))
    held: dict[str, Any] = {}
    exec(snippet("deploy.md", "wave.open"), held)
    (told,) = predict("sounds.onnx", ["new.wav"])
    assert held["about"]["labels"][held["probabilities"].argmax()] == told.label
    assert held["probabilities"].max() == pytest.approx(told.probability, abs=1e-5)


def test_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(f"{word} {rest}", word) for word in ("good", "bad") for rest in ("book", "film", "pan", "shoe", "day")]
    with open("reviews.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    save("bert", Path("encoder"))
    prepare("hf:encoder", out="art", labels_from="reviews.csv")
    finetune("art", "reviews.csv", out="run", epochs=2)
    deploy("run", out="reviews.onnx")
    code = snippet("text.md", "tokenizers.Tokenizer")
    (length,) = set(re.findall(r"enable_truncation\((\d+)\)", code))
    held: dict[str, Any] = {}
    # the encoder of the test takes shorter texts than the one of the documentation
    exec(code.replace(length, str(longest("art"))), held)
    (told,) = predict("reviews.onnx", ["cheap, but it broke on the first day"])
    assert held["probabilities"].max() == pytest.approx(told.probability, abs=1e-5)


def longest(artifacts: str) -> int:
    from edgetl.artifacts import load_artifacts

    text = load_artifacts(Path(artifacts)).manifest.text
    assert text is not None
    return text.max_length
