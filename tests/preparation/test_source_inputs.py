"""What enters a network: channels and sizes of pictures, arrays and recordings, told by the source or by the data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import write_pictures
from PIL import Image

from edgetl import prepare
from edgetl.artifacts import PREPROCESS, load_artifacts
from edgetl.cli.main import main
from edgetl.data.kind import Kind, kind_of
from edgetl.errors import EdgetlError, ModelError
from edgetl.events import Note
from edgetl.graph.execute import run_graph
from edgetl.preparation.sources.channels import picture_channels
from edgetl.preparation.sources.overrides import unknown, with_channels

NETS = """
import torch
from torch import nn

def pictures(channels=1, declared=None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    if declared:
        net.pretrained_cfg = {"input_size": (declared, 20, 20), "mean": (0.2, 0.4, 0.6), "std": (0.1, 0.2, 0.3),
                              "interpolation": "bilinear", "crop_pct": 1.0}
    return net

def windows():
    return nn.Sequential(nn.Conv1d(6, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))

def rows():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))

class Checked(nn.Module):
    def __init__(self, check):
        super().__init__()
        self.check = check
        self.layers = pictures(3)

    def forward(self, x):
        self.check(x)
        return self.layers(x.expand(-1, 3, -1, -1))

def one_channel(x):
    assert x.shape[1] == 1

def says_one_channel(x):
    if x.shape[1] != 1:
        raise ValueError(f"expected grey pictures, got {x.shape[1]} channels")

def one_size(x):
    assert x.shape[2:] == (96, 96), "pictures of 96x96"

def one_shape(x):
    assert x.shape[1:] == (1, 28, 28)

def oblong(x):
    assert x.shape[2:] == (60, 80)

def checked(check):
    return Checked(globals()[check])

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 3))

def tokens():
    return nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(8, 3))
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "nets.py"


def written(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_grey_networks_get_pictures_in_grey(nets: Path, tmp_path: Path) -> None:
    prepare(f"{nets}:pictures", out=tmp_path / "art", classes=2, preprocessing={"size": 20})
    own = load_artifacts(tmp_path / "art").manifest.preprocessing
    assert own is not None
    assert (own.channels, own.mean, own.std) == (1, (0.5,), (0.5,))
    colours = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    import onnx

    (found,) = run_graph(onnx.load(tmp_path / "art" / PREPROCESS), ["input"], {"image": colours})
    grey = np.asarray(Image.fromarray(colours).convert("L"), np.float32)
    np.testing.assert_allclose(found[0, 0], grey / 255 / 0.5 - 1, atol=1e-5)


@pytest.mark.parametrize("check", ["one_channel", "says_one_channel", "one_shape"])
def test_networks_that_check_their_input_get_pictures_in_grey(check: str, nets: Path, tmp_path: Path) -> None:
    """Their first convolution takes three channels; forward passes tell."""
    size = {"preprocessing": {"size": 28}}
    prepare(f"{nets}:checked", out=tmp_path / "art", classes=2, model_args={"check": check}, **size)
    own = load_artifacts(tmp_path / "art").manifest.preprocessing
    assert own is not None
    assert own.channels == 1


def test_a_record_of_colours_is_averaged_for_grey(nets: Path, tmp_path: Path) -> None:
    prepare(f"{nets}:pictures", out=tmp_path / "art", classes=2, model_args={"declared": 3})
    own = load_artifacts(tmp_path / "art").manifest.preprocessing
    assert own is not None
    np.testing.assert_allclose([own.channels, *own.mean, *own.std], [1, 0.4, 0.2])


def test_a_first_convolution_behind_another_arrangement_does_not_mislead() -> None:
    class Split(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each = torch.nn.Conv2d(1, 4, 3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            red, green, blue = pixels.split(1, dim=1)
            return self.each(red) + self.each(green) + self.each(blue)

    assert picture_channels(Split(), unknown(3)) == 3
    assert with_channels(unknown(3), 3) == unknown(3)


@pytest.mark.parametrize(
    ("net", "options", "words"),
    [
        ("pictures", {"model_args": {"channels": 4}}, "takes 4 channels, and pictures have 1 or 3: .*--input-shape 4,"),
        ("pictures", {"preprocessing": {"channels": 3}}, r"takes 1 channels?: give --channels 1"),
        ("pictures", {"preprocessing": {"channels": 2}}, r"--channels must be 1 \(grey\) or 3 \(colour\), not 2"),
        ("windows", {}, "sequences of 6 channels: give --modality array --input-shape 6,LENGTH"),
        ("rows", {}, "--modality array --input-shape 5$"),
        ("checked", {"model_args": {"check": "one_channel"}, "preprocessing": {"channels": 3}}, "give --channels 1$"),
        ("checked", {"model_args": {"check": "one_size"}}, r"\(pictures of 96x96\): give --size 96$"),
        ("checked", {"model_args": {"check": "one_shape"}}, r"\(assert .* 28\)\): give --channels 1 --size 28$"),
        ("checked", {"model_args": {"check": "oblong"}}, r"\(assert .* 80\)\): set --size HEIGHT,WIDTH"),
        ("flat", {}, "--input-shape 784; for pictures give --channels 1 --size 28$"),
        ("tokens", {}, "token ids.*hf:ID_OR_DIR"),
        ("windows", {"modality": "array"}, "--modality array needs --input-shape"),
        ("windows", {"modality": "image", "input_shape": [6, 50]}, "--input-shape belongs to --modality array, not to"),
        ("windows", {"input_shape": [6, 0]}, "positive sizes such as 6,128, not 6,0"),
        ("windows", {"input_shape": [5, 50]}, "to have 6 channels.*--input-shape 6,LENGTH"),
    ],
)
def test_the_way_on_is_that_of_the_network(net: str, options: Any, words: str, nets: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=words):
        prepare(f"{nets}:{net}", out=tmp_path / "art", classes=3, **options)


def test_archives_tell_modality_and_shape(nets: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "w.npz", x=np.zeros((6, 6, 50), np.float32), y=np.arange(6) % 3)
    events: list[Any] = []
    prepare(f"{nets}:windows", out=tmp_path / "art", labels_from=data, on_event=events.append)
    manifest = load_artifacts(tmp_path / "art").manifest
    assert (manifest.modality, manifest.inputs[0].shape, manifest.labels) == ("array", (6, 50), ("0", "1", "2"))
    assert any("--modality array --input-shape 6,50" in event.text for event in events if isinstance(event, Note))


def test_tables_of_numbers_tell_them_too(nets: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c,d,e,label\n1,2,3,4,5,x\n1,2,3,4,6,y\n1,2,3,4,7,z\n")
    prepare(f"{nets}:rows", out=tmp_path / "art", labels_from=tmp_path / "t.csv")
    assert load_artifacts(tmp_path / "art").manifest.inputs[0].shape == (5,)


def test_kinds_of_data(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "p", {"a": 1, "b": 1})
    sounds = tmp_path / "s" / "hum"
    sounds.mkdir(parents=True)
    (sounds / "1.WAV").write_bytes(b"")
    tables = {
        "file_name,label\na.png,x\n": Kind("image"),
        "path,label\na.wav,x\n": Kind("audio"),
        "path,label\na,x\n": Kind(None),
        "text,label\nhello,x\n": Kind("text"),
        "a,b,label,split\n1,2,x,train\n": Kind("array", (2,)),
        "name,label\nBob,x\n": Kind(None),
    }
    for text, kind in tables.items():
        (tmp_path / "t.csv").write_text(text)
        assert kind_of(tmp_path / "t.csv") == kind
    assert kind_of(pictures) == Kind("image")
    assert kind_of(tmp_path / "s") == Kind("audio")
    assert kind_of(written(tmp_path / "one.npz", x=np.zeros(3), y=np.zeros(3))) == Kind("array", None)
    assert kind_of(written(tmp_path / "part.npz", x_train=np.zeros((3, 2)), y_train=np.zeros(3))) == Kind("array", (2,))


@pytest.mark.parametrize(
    ("text", "words"),
    [("text,label\nhello,x\nhi,y\n", "holds texts, but .* is prepared for pictures: .*hf:ID_OR_DIR")],
)
def test_data_of_another_kind_are_refused(text: str, words: str, nets: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(EdgetlError, match=words):
        prepare(f"{nets}:pictures", out=tmp_path / "art", labels_from=tmp_path / "t.csv")


@pytest.mark.parametrize(("text", "size"), [("20", (20, 20)), ("12,36", (12, 36)), ("12x36", (12, 36))])
def test_sizes_on_the_command_line(text: str, size: tuple[int, int], nets: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "art")
    result = CliRunner().invoke(main, ["prepare", f"{nets}:pictures", "--classes", "2", "--size", text, "--out", out,
                                       "--json"])  # fmt: skip
    assert result.exit_code == 0, result.output
    own = json.loads(result.stdout)["preprocessing"]
    assert (own["height"], own["width"]) == size
    assert own["resize"] == ("crop" if size[0] == size[1] else "squash")


@pytest.mark.parametrize("text", ["12,36,4", "0", "12;36", "x", "-3", "1.5"])
def test_sizes_that_are_none(text: str) -> None:
    result = CliRunner().invoke(main, ["prepare", "nets.py:f", "--classes", "2", "--size", text, "--out", "x"])
    assert result.exit_code == 2
    assert "is not a size: give one number of pixels, or height and width such as 48,192" in result.output


def test_an_image_model_without_its_processor(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                    image_size=16, patch_size=8, num_labels=3, num_channels=1)  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    spec = f"hf:{tmp_path / 'vit'}"
    with pytest.raises(ModelError, match=r"holds no preprocessor_config.json, .*: give --mean and --std"):
        prepare(spec, out=tmp_path / "art", classes=2)
    with pytest.raises(ModelError, match="give --std"):
        prepare(spec, out=tmp_path / "art", classes=2, preprocessing={"mean": (0.5,)})
    prepare(spec, out=tmp_path / "art", classes=2, preprocessing={"mean": (0.4,), "std": (0.3,)})
    own = load_artifacts(tmp_path / "art").manifest.preprocessing
    assert own is not None
    assert (own.height, own.width, own.channels, own.mean, own.std) == (16, 16, 1, (0.4,), (0.3,))
