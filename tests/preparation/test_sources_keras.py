"""MODEL.keras, with models that the test saves."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl import prepare
from edgetl.artifacts import Preprocessing, load_artifacts
from edgetl.errors import ModelError
from edgetl.preparation import heads
from edgetl.preparation.sources.keras_file import _import_keras
from edgetl.preparation.sources.resolve import load_source
from edgetl.preparation.split import run_graph

pytest.importorskip("h5py")
try:
    keras = _import_keras()
except ModelError as error:
    pytest.skip(str(error), allow_module_level=True)
layers = keras.layers

# keras 3.15, of its own variables under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def save(model: Any, file: Path) -> Any:
    """Give every variable, running statistics too, a value of its own."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        draw = rng.uniform(0.5, 1.5, variable.shape) if "variance" in variable.path else rng.normal(size=variable.shape)
        variable.assign(draw.astype(np.float32) * (1.0 if "variance" in variable.path else 0.3))
    model.save(file)
    return model


def dense_head() -> Any:
    inputs = layers.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax", name="scores")(layers.Dropout(0.5)(x)))


def convolution_head() -> Any:
    inputs = layers.Input((16, 16, 3))
    x = layers.RandomFlip()(inputs)
    x = layers.Rescaling(1 / 127.5, -1)(x)
    x = layers.Conv2D(4, 3, activation="hard_silu", name="stem")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(5, 1, name="scores")(x)
    return keras.Model(inputs, layers.Activation("softmax")(layers.Flatten()(x)))


@pytest.mark.parametrize("build", [dense_head, convolution_head])
def test_it_computes_what_keras_computes(build: Any, tmp_path: Path) -> None:
    model = save(build(), tmp_path / "net.keras")
    loaded = load_source(str(tmp_path / "net.keras"), weights=None, model_args={}, overrides={})
    pictures = np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32)
    (found,) = run_graph(loaded.model, [loaded.model.graph.output[0].name], {loaded.inputs[0].name: pictures})
    expected = model(pictures.transpose(0, 2, 3, 1), training=False).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # the running statistics are no parameters
    assert set(loaded.parameters) == {variable.path for variable in model.trainable_variables}
    assert len(heads.replace_head(loaded.model, 3, loaded.parameters).head) == 2
    scaled = build is convolution_head
    assert loaded.preprocessing == Preprocessing(
        16, 16, resize="squash", resize_size=16, mean=((0.0 if scaled else 0.5),) * 3,
        std=((1 / 255 if scaled else 0.5),) * 3,
    )  # fmt: skip


def test_it_is_prepared_with_its_frozen_layers_too(tmp_path: Path) -> None:
    model = dense_head()
    model.get_layer("stem").trainable = False
    save(model, tmp_path / "net.keras")
    result = prepare(
        str(tmp_path / "net.keras"), out=tmp_path / "art", classes=2, preprocessing={"mean": (0.0,), "std": (1.0,)}
    )
    manifest = load_artifacts(tmp_path / "art").manifest
    assert "stem/kernel" in [spec.name for spec in manifest.frozen]
    assert (result.features[0].shape, manifest.preprocessing.std) == ((4,), (1.0,) * 3)
    with pytest.raises(ModelError, match="16×16 only"):
        prepare(str(tmp_path / "net.keras"), out=tmp_path / "x", classes=2, preprocessing={"size": 20})


@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small"])
def test_applications(name: str, tmp_path: Path) -> None:
    options = {"alpha": 0.35} if name == "MobileNetV2" else {"alpha": 0.75, "minimalistic": True}
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=7, **options)
    model.save(tmp_path / "net.keras")
    loaded = load_source(str(tmp_path / "net.keras"), weights=None, model_args={}, overrides={})
    assert loaded.preprocessing.std == ((0.5,) * 3 if name == "MobileNetV2" else (1 / 255,) * 3)
    assert len(loaded.parameters) == len(model.trainable_variables)
    assert len(heads.replace_head(loaded.model, 3, loaded.parameters).head) == 2


def test_code_in_the_file_is_not_executed(tmp_path: Path) -> None:
    model = keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Lambda(lambda x: x * 2), layers.Flatten(), layers.Dense(2)]
    )
    model.save(tmp_path / "net.keras")
    with pytest.raises(ModelError, match=r"cannot be loaded by Keras 3.*(Lambda|lambda)"):
        load_source(str(tmp_path / "net.keras"), weights=None, model_args={}, overrides={})


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.keras").write_bytes(b"no archive")
    with pytest.raises(ModelError, match="cannot be loaded by Keras"):
        load_source(str(tmp_path / "net.keras"), weights=None, model_args={}, overrides={})
    keras.Sequential([layers.Input((8,)), layers.Dense(2)]).save(tmp_path / "rows.keras")
    with pytest.raises(ModelError, match="not one batch of pictures"):
        load_source(str(tmp_path / "rows.keras"), weights=None, model_args={}, overrides={})


def test_keras_on_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert _import_keras() is keras
    assert os.environ["KERAS_BACKEND"] == "jax", "it is given back"
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match="keras runs on jax in this process already"):
        _import_keras()
