"""preprocess.onnx against what Pillow, and torchvision's sizes, give for the same picture."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.preprocess import build_preprocess
from edgetl.runtime import sessions

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


def photo(height: int, width: int) -> np.ndarray:
    """A smooth picture with some noise: what a camera gives."""
    rng = np.random.default_rng(height * 1000 + width)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((width, height), 3)
    return np.clip(np.asarray(coarse).astype(int) + rng.integers(-9, 10, (height, width, 3)), 0, 255).astype(np.uint8)


def reference(pixels: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """What torchvision's Resize, CenterCrop, ToTensor and Normalize do with a Pillow image."""
    image = Image.fromarray(pixels)
    if spec.channels == 1:
        image = image.convert("L")
    width, height = image.size
    if spec.resize == "squash":
        size = (spec.width, spec.height)
    else:
        short, long = min(width, height), max(width, height)
        longer = int(spec.resize_size * long / short)
        size = (spec.resize_size, longer) if width <= height else (longer, spec.resize_size)
    image = image.resize(size, FILTERS[spec.interpolation])
    if spec.resize == "crop":
        top, left = round((image.height - spec.height) / 2.0), round((image.width - spec.width) / 2.0)
        image = image.crop((left, top, left + spec.width, top + spec.height))
    values = np.asarray(image, dtype=np.float32).reshape(spec.height, spec.width, spec.channels) / 255
    return ((values - np.float32(spec.mean)) / np.float32(spec.std)).transpose(2, 0, 1)[None]


def test_grey_is_exact(tmp_path: Path) -> None:
    spec = Preprocessing(128, 128, channels=1, resize="squash", mean=(0,), std=(1 / 255,))
    levels = np.arange(0, 256, 2, dtype=np.uint8)
    for blue in range(0, 256, 17):
        pixels = np.stack(np.broadcast_arrays(levels[:, None], levels[None], np.uint8(blue)), axis=-1)
        expected = np.asarray(Image.fromarray(pixels).convert("L"))
        np.testing.assert_array_equal(np.rint(run(spec, pixels, tmp_path)[0, 0]), expected)


def run(spec: Preprocessing, pixels: np.ndarray, directory: Path) -> np.ndarray:
    build_preprocess(spec, "input", directory / "preprocess.onnx")
    (found,) = sessions.open_session(directory / "preprocess.onnx").run(None, {"image": pixels})
    return found


SPECS = [
    Preprocessing(64, 64, resize_size=73, interpolation="bilinear"),
    Preprocessing(64, 64, resize_size=64, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    Preprocessing(48, 80, resize="squash", interpolation="bicubic"),
    Preprocessing(48, 80, resize="squash", interpolation="nearest"),
    Preprocessing(32, 32, channels=1, resize_size=36, interpolation="bilinear", mean=(0.3,), std=(0.2,)),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.resize}-{s.interpolation}-{s.channels}")
@pytest.mark.parametrize("size", [(200, 301), (300, 97), (32, 32), (73, 73), (11, 500)])
def test_it_is_what_pillow_gives(spec: Preprocessing, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = photo(*size)
    found, expected = run(spec, pixels, tmp_path), reference(pixels, spec)
    assert found.shape == expected.shape
    levels = np.abs(found - expected) * np.float32(spec.std).reshape(1, -1, 1, 1) * 255
    if spec.interpolation == "nearest":
        # where a pixel lies exactly between two, the graph's float32 decides
        assert (levels < 0.5).mean() > 0.5
    else:
        assert levels.mean() < 0.3  # both round to whole levels between the two passes, not always alike
        assert levels.max() < 2.5


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (500, 8000), (30, 3333), (3333, 31)])
@pytest.mark.parametrize("spec", SPECS[:2], ids=lambda s: s.interpolation)
def test_a_long_picture_takes_no_more_than_its_crop(spec: Preprocessing, size: tuple[int, int], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    pixels = photo(*size)
    build_preprocess(spec, "input", tmp_path / "preprocess.onnx")
    session = sessions.open_session(tmp_path / "preprocess.onnx")
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + 100_000_000, before[1]))
    try:
        (found,) = session.run(None, {"image": pixels})  # all of the longest, resized, would be 830 MB
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    if max(size) * spec.resize_size // min(size) < 10_000:
        levels = np.abs(found - reference(pixels, spec)) * np.float32(spec.std).reshape(1, -1, 1, 1) * 255
        assert levels.mean() < 0.4
        assert levels.max() < 6  # its scale is up to a quarter of a percent another
    else:
        assert np.isfinite(found).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(SPECS[:3]))
def test_any_size_of_picture_fits(height: int, width: int, spec: Preprocessing) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        found = run(spec, photo(height, width), Path(directory))
    assert found.shape == (1, 3, spec.height, spec.width)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Preprocessing(interpolation="lanczos"), "lanczos"),
        (Preprocessing(resize="stretch"), "stretch"),
        (Preprocessing(channels=4), "channels"),
        (Preprocessing(channels=1), "channels"),
        (Preprocessing(resize_size=100), "crop percentage"),
    ],
)
def test_what_does_not_exist_is_refused(spec: Preprocessing, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        build_preprocess(spec, "input", tmp_path / "preprocess.onnx")
