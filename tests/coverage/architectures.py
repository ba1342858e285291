"""The architectures of the coverage matrix, with random weights and the smallest size each allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgetl.artifacts import Preprocessing

Graph = tuple[onnx.ModelProto, tuple[str, ...], Preprocessing]


@dataclass(frozen=True)
class Architecture:
    """One row of the matrix.

    Attributes:
        library: timm, torchvision, transformers, keras or tensorflow.
        name: in that library.
        size: height and width in pixels.
        ci: belongs to the third that runs in CI.
        arguments: for the function that makes the network.
        calibrated: whether batch normalisation gets the statistics of its inputs first.
    """

    library: str
    name: str
    size: int
    ci: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    calibrated: bool = True

    @property
    def id(self) -> str:
        return f"{self.library}:{self.name}"

    def load(self, directory: Path) -> Graph:
        """Export the network with random weights, always the same; `directory` is for files on the way."""
        import torch

        torch.manual_seed(0)
        return _LOADERS[self.library](self, directory)


def _timm(item: Architecture, directory: Path) -> Graph:
    import timm

    return _export(timm.create_model(item.name, pretrained=False, **item.arguments), item)


def _torchvision(item: Architecture, directory: Path) -> Graph:
    import torchvision

    return _export(torchvision.models.get_model(item.name, weights=None, **item.arguments), item)


def _transformers(item: Architecture, directory: Path) -> Graph:
    import transformers

    config_class = getattr(
        transformers, item.name.replace("ForImageClassification", "Config").replace("WithTeacher", "")
    )
    network = getattr(transformers, item.name)(config_class(**item.arguments))
    _calibrated(network, item.size).save_pretrained(directory)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": item.size, "width": item.size}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return _source(f"hf:{directory}", {})


def _keras(item: Architecture, directory: Path) -> Graph:
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, item.name)(
        weights=None, input_shape=(item.size, item.size, 3), **item.arguments
    )
    rng = np.random.default_rng(0)
    for variable in network.weights:  # zero offsets leave padded zeros exactly on the kink of ReLU
        if variable.path.endswith("/beta"):
            variable.assign(rng.standard_normal(variable.shape).astype(np.float32) * 0.05)
    network.save(directory / "network.keras")
    return _source(str(directory / "network.keras"), {})


def _tensorflow(item: Architecture, directory: Path) -> Graph:
    import tensorflow_style

    write = getattr(tensorflow_style, item.name)
    onnx.save(write(tensorflow_style.Writer(13), ["unk__1", item.size, item.size, 3]), directory / "network.onnx")
    return _source(str(directory / "network.onnx"), {})


def _source(spec: str, overrides: dict[str, Any]) -> Graph:
    from edgetl.preparation.sources.resolve import load_source

    loaded = load_source(spec, weights=None, model_args={}, overrides=overrides)
    return loaded.model, loaded.parameters, loaded.preprocessing


def _calibrated(module: Any, size: int) -> Any:
    """Give batch normalisation the statistics of its inputs, as in any trained network.

    With the initial ones, random weights let activations explode in some networks, and float32 has
    no digits left for a slope.
    """
    import torch

    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.momentum = None  # average over everything seen
    torch.manual_seed(0)
    module.train()
    with torch.no_grad():
        module(torch.randn(8, 3, size, size))
    return module.eval()


def _export(module: Any, item: Architecture) -> Graph:
    from edgetl.preparation.sources.export import export

    preprocessing = Preprocessing(item.size, item.size, resize_size=item.size)
    model, parameters = export(_calibrated(module, item.size) if item.calibrated else module, preprocessing.inputs)
    return model, parameters, preprocessing


_LOADERS: dict[str, Callable[[Architecture, Path], Graph]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
    "keras": _keras,
    "tensorflow": _tensorflow,
}


def _rows(library: str, *rows: tuple[Any, ...]) -> list[Architecture]:
    return [Architecture(library, *row) for row in rows]


_TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}

ARCHITECTURES = [
    *_rows(
        "timm",
        ("mobilenetv3_small_050", 64, True),
        ("vit_tiny_patch16_224", 64, True, {"img_size": 64, "depth": 3}),
        ("convnext_atto", 64, True),
        ("swin_tiny_patch4_window7_224", 112, False, {"img_size": 112, "depths": (1, 1, 2, 1)}),
        ("ghostnet_050", 64, True),
        ("levit_128s", 224, False, {}, False),
        ("efficientvit_b0", 64, True),
        ("poolformer_s12", 64, False),
        ("xcit_nano_12_p16_224", 64, False, {"img_size": 64, "depth": 3}),
        ("repvgg_a0", 64, True),
        ("mobilenetv2_100", 64, True),
        ("resnet18", 64, True),
        ("efficientnet_b0", 64, False),
        ("regnetx_002", 64, True),
        ("densenet121", 64, False),
        ("mixer_s32_224", 64, False, {"img_size": 64}),
        ("coat_lite_tiny", 224, False),
        ("pvt_v2_b0", 64, False),
        ("edgenext_xx_small", 64, False),
        ("mobilevit_xxs", 64, True),
        ("mobileone_s0", 64, False),
        ("fastvit_t8", 64, False),
        ("hrnet_w18_small", 64, False),
        ("inception_v3", 96, False, {}, False),
        ("dpn48b", 64, False),
        ("res2net50_14w_8s", 64, False),
        ("resnest14d", 64, False),
        ("tinynet_e", 64, True),
        ("lcnet_050", 64, True),
        ("visformer_tiny", 224, False),
        ("gmlp_s16_224", 64, False, {"img_size": 64}),
        ("resmlp_12_224", 64, False, {"img_size": 64}),
        ("nf_regnet_b0", 64, False),
        ("davit_tiny", 64, False),
        ("focalnet_tiny_srf", 64, False),
        ("deit_tiny_distilled_patch16_224", 64, True, {"img_size": 64, "depth": 3}),
        ("beit_base_patch16_224", 64, False, {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3}),
        ("eva02_tiny_patch14_224", 56, False, {"img_size": 56, "depth": 2, "num_classes": 10}),
        ("mnasnet_small", 64, False),
        ("vgg11_bn", 64, False),
    ),
    *_rows(
        "torchvision",
        ("alexnet", 64, False),
        ("convnext_tiny", 64, False),
        ("densenet121", 64, False),
        ("efficientnet_b0", 64, False),
        ("efficientnet_v2_s", 64, False),
        ("googlenet", 64, False, {"init_weights": False}),
        ("inception_v3", 96, False, {"init_weights": False, "aux_logits": False}),
        ("mnasnet0_5", 64, True),
        ("mobilenet_v2", 64, True),
        ("mobilenet_v3_small", 64, True),
        ("regnet_y_400mf", 64, False),
        ("resnet18", 64, True),
        ("shufflenet_v2_x0_5", 64, True),
        ("squeezenet1_1", 64, True),
        ("swin_t", 64, False),
        ("vgg11", 64, False),
        ("vit_b_32", 64, False, {"image_size": 64}),
    ),
    *_rows(
        "transformers",
        ("ViTForImageClassification", 32, True, {**_TINY, "image_size": 32, "patch_size": 8}),
        ("DeiTForImageClassificationWithTeacher", 32, True, {**_TINY, "image_size": 32, "patch_size": 8}),
        (
            "SwinForImageClassification",
            64,
            False,
            {"image_size": 64, "embed_dim": 24, "depths": (1, 2), "num_heads": (2, 2), "window_size": 4},
        ),
        ("ConvNextForImageClassification", 64, False, {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}),
        ("MobileNetV2ForImageClassification", 64, False, {"depth_multiplier": 0.35}),
        (
            "MobileViTForImageClassification",
            64,
            False,
            {"image_size": 64, "hidden_sizes": [32, 48, 64], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64]},
        ),
    ),
    *_rows(
        "keras",
        ("MobileNetV2", 64, False, {"alpha": 0.35}),
        ("EfficientNetB0", 64, False),
    ),
    *_rows(
        "tensorflow",
        ("folded", 64, True),
        ("depthwise", 64, True),
        ("keras_like", 64, False),
    ),
]
