"""The programs that the documentation shows do what `edgetl predict` does."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageDraw

from edgetl import deploy, finetune, predict
from edgetl.data.dataset import read_rgb

ROOT = Path(__file__).parents[1]


def snippet(file: str, *holding: str) -> str:
    """The one block of Python in a file of the documentation that holds these words."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / file).read_text(encoding="utf-8"), re.M | re.S)
    (found,) = [block for block in blocks if all(word in block for word in holding)]
    return str(found)


pytestmark = pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="the documentation is not in this copy")


def pictures() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((60, 45))
    icon = Image.new("RGBA", (40, 40), (9, 9, 9, 0))
    ImageDraw.Draw(icon).ellipse((5, 5, 34, 34), outline=(200, 30, 60, 255), width=5)
    white = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ImageDraw.Draw(white).line((5, 5, 34, 34), fill=(255, 255, 255, 200), width=6)
    turned = Image.Exif()
    turned[0x0112] = 6

    def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return {
        "photograph": encoded(photo, "JPEG"),
        "large photograph": encoded(photo.resize((640, 480), Image.Resampling.NEAREST), "JPEG"),
        "large and turned": encoded(photo.resize((640, 480), Image.Resampling.NEAREST), "JPEG", exif=turned),
        "large and of odd sides": encoded(photo.resize((643, 485), Image.Resampling.NEAREST), "JPEG", exif=turned),
        "large and grey": encoded(photo.convert("L").resize((643, 485), Image.Resampling.NEAREST), "JPEG"),
        "turned": encoded(photo, "JPEG", exif=turned),
        "grey": encoded(photo.convert("L"), "PNG"),
        "palette": encoded(photo.convert("P"), "PNG"),
        "cut out": encoded(icon, "PNG"),
        "cut out, as palette": encoded(icon.convert("RGB").quantize(4), "PNG", transparency=0),
        "cut out, GIF": encoded(icon, "GIF"),
        "cut out, with a colour": encoded(icon.convert("RGB"), "PNG", transparency=(9, 9, 9)),
        "white on nothing": encoded(white, "PNG"),
        "nothing": encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG"),
    }


def test_readme_answers_as_predict_does(digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = snippet("README.md", "onnxruntime.InferenceSession")
    monkeypatch.chdir(tmp_path)
    Path("photos.onnx").write_bytes(digits_model.read_bytes())
    answers = set()
    for name, data in pictures().items():
        Path("new.jpg").write_bytes(data)
        held: dict[str, Any] = {}
        exec(code, held)
        (told,) = predict("photos.onnx", ["new.jpg"])
        expected = read_rgb(data, at_least=held["about"]["at_least"])
        np.testing.assert_array_equal(held["rgb"]("new.jpg"), expected, name)
        assert held["about"]["labels"][held["probabilities"].argmax()] == told.label
        assert float(held["probabilities"].max()) == told.probability
        answers.add((told.label, told.probability))
    assert len(answers) > 5  # or the pictures would not tell one way from another


def test_tensors_answer_as_predict_does(digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deploy(digits_run, out="photos.onnx", input="tensor")
    files = []
    for number, data in enumerate(pictures().values()):
        files.append(Path(f"{number}.png"))
        files[-1].write_bytes(data)
    metadata = onnxruntime.InferenceSession("photos.onnx").get_modelmeta().custom_metadata_map
    at_least = json.loads(metadata["edgetl"])["at_least"]
    held: dict[str, Any] = {"pictures": [read_rgb(file.read_bytes(), at_least=at_least) for file in files]}
    exec(snippet("docs/deploy.md", "preprocess.onnx"), held)
    told = predict("photos.onnx", files)
    np.testing.assert_allclose(held["probabilities"].max(axis=1), [each.probability for each in told], atol=1e-5)


def test_ten_bits_answer_as_predict_does(
    digits: Path, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (digits / "train").rglob("*.png"):
        target = Path("data") / file.relative_to(digits / "train")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(file).convert("L")).astype(np.uint16) * 4).save(target)
    finetune(digits_artifacts, "data", out="run", epochs=2, lr=1e-2)
    deploy("run", out="photos.onnx")
    Path("new.png").write_bytes(next(Path("data/7").iterdir()).read_bytes())
    held: dict[str, Any] = {}
    exec(snippet("docs/deploy.md", "pixel_range"), held)
    (told,) = predict("photos.onnx", ["new.png"])
    assert float(held["probabilities"].max()) == told.probability
