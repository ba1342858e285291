"""torchvision:NAME@WEIGHTS, with weights that the test writes: nothing is downloaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation import heads
from edgetl.preparation.sources import torchvision_model as source
from edgetl.preparation.sources.resolve import load_source


def write(module: torch.nn.Module, file: Path) -> Path:
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(module.state_dict(), file)
    return file


def test_a_network_with_the_transforms_of_its_weights(tmp_path: Path) -> None:
    file = write(models.squeezenet1_1(weights=None), tmp_path / "net.safetensors")
    loaded = load_source("torchvision:squeezenet1_1", weights=file, model_args={}, overrides={"size": 64})
    assert loaded.preprocessing == Preprocessing(64, 64, resize_size=73)
    assert loaded.parameters[0] == "features.0.weight"
    assert heads.replace_head(loaded.model, 3, loaded.parameters).head == ("classifier.1.weight", "classifier.1.bias")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("mobilenet_v3_small", Preprocessing(resize_size=256)),
        ("mobilenet_v2", Preprocessing(resize_size=232)),
        ("mobilenet_v2@IMAGENET1K_V1", Preprocessing(resize_size=256)),
        ("efficientnet_b0@IMAGENET1K_V1", Preprocessing(resize_size=256, interpolation="bicubic")),
    ],
)
def test_each_weights_have_their_own_transforms(spec: str, expected: Preprocessing, tmp_path: Path) -> None:
    name = spec.partition("@")[0]
    file = write(models.get_model(name, weights=None), tmp_path / "net.pth")
    assert source.load(spec, file, {}, {})[1] == expected


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_outputs_are_not_there_in_use(name: str, tmp_path: Path) -> None:
    file = write(models.get_model(name, weights=None, aux_logits=True, init_weights=False), tmp_path / "net.pth")
    module, own, _ = source.load(name, file, {}, {})
    assert module.transform_input, "the published weights expect it"
    with torch.no_grad():
        assert module.eval()(torch.zeros(1, 3, own.height, own.width)).shape == (1, 1000)


def test_arguments_and_weights_of_another_number_of_classes(tmp_path: Path) -> None:
    file = write(models.mobilenet_v3_small(weights=None, num_classes=7), tmp_path / "net.pth")
    module, *_ = source.load("mobilenet_v3_small", file, {"num_classes": 7}, {})
    assert list(module.state_dict()["classifier.3.bias"].shape) == [7]
    *_, fit = source.load("mobilenet_v3_small", file, {}, {})
    assert [name for name, *_ in fit.resized] == ["classifier.3.weight", "classifier.3.bias"]
    fit.check(fit.names, ("classifier.3.weight", "classifier.3.bias"))
    with pytest.raises(ModelError, match="depth"):
        source.load("squeezenet1_1", file, {"depth": 7}, {})


def test_vit_of_larger_pictures_and_old_names_of_densenet(tmp_path: Path) -> None:
    assert source._as_trained("vit_b_16", models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1.meta) == {"image_size": 384}
    module = models.densenet121(weights=None)
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value
        for name, value in module.state_dict().items()
    }
    torch.save(old, tmp_path / "old.pth")
    found, *_ = source.load("densenet121", tmp_path / "old.pth", {}, {})
    name = "features.denseblock1.denselayer1.norm1.weight"
    assert name not in old
    assert torch.equal(found.state_dict()[name], module.state_dict()[name])


def test_mnasnet_of_a_format_without_versions(tmp_path: Path) -> None:
    file = write(models.mnasnet0_5(weights=None), tmp_path / "net.safetensors")
    source.load("mnasnet0_5", file, {}, {})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet19", "no classifier 'resnet19'; did you mean .resnet"),
        ("fcn_resnet50", "no classifier"),
        ("resnet18@IMAGENET1K_V9", "choose from IMAGENET1K_V1"),
    ],
)
def test_what_does_not_exist_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        source.load(spec, None, {}, {})


def test_without_a_network_it_asks_for_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **options: object) -> None:
        assert options["weights_only"] is True
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(
        ModelError, match=r"IMAGENET1K_V1 of torchvision:squeezenet1_1 cannot be downloaded: .*--weights"
    ):
        source.load("squeezenet1_1", None, {}, {})
