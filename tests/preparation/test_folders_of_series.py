"""Files of numbers in a folder for each class, from prepare to predict, with nothing said of their shape."""

from pathlib import Path

import numpy as np
import pytest

from edgetl import deploy, evaluate, finetune, predict, prepare
from edgetl.artifacts import load_artifacts
from edgetl.events import Event, Note

SOURCE = """
import torch
from torch import nn

def channels_first():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(16, 5))

def rows_first():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Flatten(), nn.Linear(160, 5))

def as_picture():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
"""


@pytest.mark.parametrize(
    ("name", "shape"), [("channels_first", (3, 20)), ("rows_first", (20, 3)), ("as_picture", (1, 20, 3))]
)
def test_from_prepare_to_predict(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(SOURCE)
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    for part, count in (("train", 8), ("test", 4)):
        for label, kind in enumerate(("rest", "wave")):
            (data / part / kind).mkdir(parents=True)
            for number in range(count):
                rows = 20 - number % 3
                values = 0.1 * rng.standard_normal((rows, 3)) + label * np.sin(np.arange(rows))[:, None]
                lines = ["aX,aY,aZ", *(",".join(f"{value:.4f}" for value in row) for row in values)]
                (data / part / kind / f"{number}.csv").write_text("\n".join(lines) + "\n")
    notes: list[Event] = []
    prepare(f"{tmp_path / 'nets.py'}:{name}", out=tmp_path / "art", labels_from=data, on_event=notes.append)
    manifest = load_artifacts(tmp_path / "art").manifest
    assert (manifest.modality, manifest.labels, manifest.inputs[0].shape) == ("array", ("rest", "wave"), shape)
    given = ",".join(map(str, shape))
    assert any(isinstance(note, Note) and note.text.endswith(f"--input-shape {given}") for note in notes)
    finetune(tmp_path / "art", data, out=tmp_path / "run", epochs=20, lr=1e-2, on_event=notes.append)
    assert any(isinstance(note, Note) and "10 are shorter" in note.text for note in notes)
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    measured = evaluate(tmp_path / "model.onnx", data)
    assert (measured.samples, measured.accuracy) == (8, 1)
    (told,) = predict(tmp_path / "model.onnx", [data / "test" / "wave" / "1.csv"])
    assert told.label == "wave"
    assert len(predict(tmp_path / "model.onnx", [data / "test"])) == 8
