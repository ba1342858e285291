"""preprocess.onnx for a photograph against what timm, torchvision and Transformers themselves compute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_preprocess import photo, run

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.sources.timm_model import preprocessing_of as of_timm
from edgetl.preparation.sources.torchvision_model import _preprocessing as of_torchvision
from edgetl.preparation.sources.transformers_model import preprocessing_of as of_transformers

PICTURES = [(375, 500), (500, 333), (281, 283)]


def compare(spec: Preprocessing, size: tuple[int, int], expected: Any, directory: Path) -> None:
    """Less than a third of a level of 255 on average, and nowhere more than a few."""
    found = run(spec, photo(*size), directory)
    assert found.shape == expected.shape
    levels = np.abs(found - expected) * np.float32(spec.std).reshape(1, -1, 1, 1) * 255
    assert levels.mean() < 0.3
    assert levels.max() < 2.5


@pytest.mark.parametrize("size", PICTURES)
@pytest.mark.parametrize(
    "config",
    [
        {"interpolation": "bilinear", "crop_pct": 0.875},
        {"interpolation": "bicubic", "crop_pct": 0.9},
        {"interpolation": "bicubic", "crop_pct": 1.0, "input_size": (3, 288, 288)},
        {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash", "mean": (0.5,) * 3, "std": (0.5,) * 3},
        {"interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "squash"},
    ],
    ids=str,
)
def test_as_timm_does(config: dict[str, Any], size: tuple[int, int], tmp_path: Path) -> None:
    from timm.data import create_transform
    from timm.data.config import resolve_data_config

    resolved = resolve_data_config(config)
    expected = create_transform(**resolved)(Image.fromarray(photo(*size)))[None].numpy()
    compare(of_timm(resolved), size, expected, tmp_path)


def test_timms_border_is_refused_unless_it_is_overridden(tmp_path: Path) -> None:
    from timm.data.config import resolve_data_config

    with pytest.raises(ModelError, match="'border' is not known: choose from crop"):
        run(of_timm(resolve_data_config({"crop_mode": "border"})), photo(100, 90), tmp_path)


@pytest.mark.parametrize("size", PICTURES)
@pytest.mark.parametrize(
    "weights",
    [
        "ResNet50_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "EfficientNet_B0_Weights.IMAGENET1K_V1",
        "Inception_V3_Weights.IMAGENET1K_V1",
        "RegNet_Y_16GF_Weights.IMAGENET1K_SWAG_E2E_V1",
    ],
)
def test_as_torchvision_does(weights: str, size: tuple[int, int], tmp_path: Path) -> None:
    from torchvision import models

    preset = models.get_weight(weights).transforms()
    expected = preset(Image.fromarray(photo(*size)))[None].numpy()
    compare(of_torchvision(preset), size, expected, tmp_path)


@pytest.mark.parametrize("size", PICTURES)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ViTImageProcessor", {}),
        ("ViTImageProcessor", {"size": {"height": 384, "width": 288}, "resample": 3, "do_normalize": False}),
        ("DeiTImageProcessor", {}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        ("MobileNetV2ImageProcessor", {}),
        ("MobileViTImageProcessor", {"size": {"shortest_edge": 288}}),
        ("BitImageProcessor", {"size": {"shortest_edge": 225}}),
        ("LevitImageProcessor", {}),
        ("PoolFormerImageProcessor", {}),
        ("EfficientNetImageProcessor", {"resample": 2, "rescale_offset": True, "rescale_factor": 1 / 127.5}),
        ("EfficientNetImageProcessor", {"resample": 3, "include_top": False}),
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["Pil", ""])
def test_as_transformers_does(
    name: str, settings: dict[str, Any], size: tuple[int, int], backend: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    spec = of_transformers(getattr(transformers, f"{name}Pil")(**settings))
    processor = getattr(transformers, name + backend)(**settings)
    expected = np.asarray(processor(Image.fromarray(photo(*size)), return_tensors="np")["pixel_values"])
    compare(spec, size, expected, tmp_path)


def test_a_processor_with_a_resize_of_its_own_is_refused() -> None:
    transformers = pytest.importorskip("transformers")

    class Processor(transformers.ViTImageProcessorPil):  # type: ignore[misc,name-defined]
        def resize(self, *_: Any, **__: Any) -> None: ...

    with pytest.raises(ModelError, match="Processor resizes pictures in a way of its own"):
        of_transformers(Processor())


def test_blue_may_come_first(tmp_path: Path) -> None:
    spec = Preprocessing(20, 20, resize="squash", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    turned = Preprocessing(
        20, 20, resize="squash", mean=(0.3, 0.2, 0.1), std=(0.6, 0.5, 0.4), channel_order="bgr"
    )  # fmt: skip
    pixels = photo(30, 40)
    np.testing.assert_array_equal(run(turned, pixels, tmp_path), run(spec, pixels, tmp_path)[:, ::-1])
