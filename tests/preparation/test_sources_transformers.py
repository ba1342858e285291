"""hf:DIR, with tiny models that the test saves: nothing is downloaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgetl import prepare
from edgetl.artifacts import Preprocessing, load_artifacts
from edgetl.errors import ModelError
from edgetl.preparation import heads
from edgetl.preparation.sources.resolve import load_source
from edgetl.preparation.split import run_graph

transformers = pytest.importorskip("transformers")

SIZE = {"height": 32, "width": 32}
TRANSFORMER = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 16,
}  # fmt: skip
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("ViTConfig", "ViTForImageClassification", TRANSFORMER, {"size": SIZE}),
    "deit": ("DeiTConfig", "DeiTForImageClassification", TRANSFORMER,
             {"size": {"height": 36, "width": 36}, "crop_size": SIZE}),
    "distilled": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", TRANSFORMER,
                  {"size": {"height": 36, "width": 36}, "crop_size": SIZE}),
    "swin": ("SwinConfig", "SwinForImageClassification",
             {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
              "window_size": 4}, {"size": SIZE}),
    "convnext": ("ConvNextConfig", "ConvNextForImageClassification",
                 {"hidden_sizes": [4, 8, 8, 8], "depths": [1, 1, 1, 1]}, {"size": {"shortest_edge": 32}}),
    "mobilenet_v2": ("MobileNetV2Config", "MobileNetV2ForImageClassification",
                     {"image_size": 32, "depth_multiplier": 0.25, "finegrained_output": False},
                     {"size": {"shortest_edge": 37}, "crop_size": SIZE}),
    "mobilevit": ("MobileViTConfig", "MobileViTForImageClassification",
                  {"image_size": 32, "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32]},
                  {"size": {"shortest_edge": 36}, "crop_size": SIZE}),
}  # fmt: skip


def save(kind: str, directory: Path) -> Any:
    config_name, model_name, config, processor = MODELS[kind]
    torch.manual_seed(0)
    settings = getattr(transformers, config_name)(num_labels=5, **config)
    module = getattr(transformers, model_name)(settings).eval()
    module.save_pretrained(directory)
    image_processor = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING[type(settings)]["pil"]
    image_processor(**processor).save_pretrained(directory)
    return module


@pytest.mark.parametrize("kind", MODELS)
def test_each_architecture_under_its_own_names(kind: str, tmp_path: Path) -> None:
    module = save(kind, tmp_path)
    loaded = load_source(f"hf:{tmp_path}", weights=None, model_args={}, overrides={})
    assert (loaded.preprocessing.height, loaded.preprocessing.width) == (32, 32)
    pictures = torch.randn(3, 3, 32, 32)
    (found,) = run_graph(loaded.model, [loaded.model.graph.output[0].name], {loaded.inputs[0].name: pictures.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, module(pictures).logits.numpy(), rtol=1e-3, atol=1e-5)
    names = {name for name, _ in module.named_parameters()}
    assert set(loaded.parameters) <= names
    assert len(loaded.parameters) > 0.95 * len(names), sorted(names - set(loaded.parameters))
    new = heads.replace_head(loaded.model, 3, loaded.parameters).head
    assert all("classifier" in name for name in new)
    assert len(new) == 2, "two heads that are averaged become one layer"


def test_it_is_prepared_from_a_directory(tmp_path: Path) -> None:
    save("mobilevit", tmp_path / "model")
    prepare(f"hf:{tmp_path / 'model'}", out=tmp_path / "art", classes=2)
    found = load_artifacts(tmp_path / "art").manifest.preprocessing
    assert found == Preprocessing(
        32, 32, resize_size=36, interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="bgr",
        crop_corner="down",
    )  # fmt: skip


def test_weights_and_configuration_may_be_given(tmp_path: Path) -> None:
    module = save("vit", tmp_path / "model")
    with torch.no_grad():
        module.vit.layernorm.weight.fill_(0.25)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    spec = f"hf:{tmp_path / 'model'}"
    loaded = load_source(spec, weights=tmp_path / "weights.pt", model_args={}, overrides={})
    tensors = {tensor.name: tensor for tensor in loaded.model.graph.initializer}
    assert loaded.source.weights_sha256 is not None
    from onnx import numpy_helper

    assert (numpy_helper.to_array(tensors["vit.layernorm.weight"]) == 0.25).all()
    deeper = load_source(spec, weights=None, model_args={"num_hidden_layers": 3}, overrides={})
    assert deeper.fit is not None
    with pytest.raises(ModelError, match=r"does not fit the network .it has no weights for"):
        deeper.fit.check({tensor.name for tensor in deeper.model.graph.initializer}, ())
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="has no weights for this network"):
        load_source(spec, weights=tmp_path / "other.pt", model_args={}, overrides={})


def test_a_model_without_a_classifier_gets_one(tmp_path: Path) -> None:
    save("vit", tmp_path)
    transformers.ViTModel(transformers.ViTConfig(**TRANSFORMER)).save_pretrained(tmp_path)
    loaded = load_source(f"hf:{tmp_path}", weights=None, model_args={}, overrides={})
    assert heads.replace_head(loaded.model, 3, loaded.parameters).head == ("classifier.weight", "classifier.bias")


def test_pickled_weights_and_code_are_not_taken(tmp_path: Path) -> None:
    module = save("vit", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"cannot be loaded: .*safetensors"):
        load_source(f"hf:{tmp_path}", weights=None, model_args={}, overrides={})
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"], config["auto_map"] = "own", {"AutoConfig": "code.Config"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_source(f"hf:{tmp_path}", weights=None, model_args={}, overrides={})
    assert not (tmp_path / "sprung").exists()


def test_what_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="hf:no/such-model cannot be loaded") as caught:
        load_source("hf:no/such-model", weights=None, model_args={}, overrides={})
    assert "\n" not in str(caught.value)
    save("vit", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="preprocessor_config"):
        load_source(f"hf:{tmp_path}", weights=None, model_args={}, overrides={})
