"""hf:ID_OR_DIR: an image classifier of Transformers, with its image processor's record."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError, first_line
from edgetl.preparation.sources.quiet import quiet
from edgetl.preparation.sources.weights import read_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

_RESAMPLE = {0: "nearest", 1: "bicubic", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # 1 is Lanczos


def load(name: str, weights: str | Path | None, model_args: Mapping[str, Any]) -> tuple[nn.Module, Preprocessing]:
    """Load the network from the hub or a directory: safetensors only, and none of the repository's code.

    Args:
        model_args: fields of the model's configuration.

    Raises:
        ModelError: Transformers is not installed, or the model cannot be had.
    """
    transformers = import_transformers()
    with loading(name):
        processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil", **source_of(name))
        config = transformers.AutoConfig.from_pretrained(name, **source_of(name), **model_args)
    automatic = transformers.AutoModelForImageClassification
    module = pretrained(automatic, name, config, weights, replaced=("classifier",))
    return _returning_scores(module), preprocessing_of(processor)


def import_transformers() -> Any:
    """Import the library.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return import_module("transformers")
    except ImportError as error:
        raise ModelError(f"transformers is not installed ({error}): pip install 'edgetl[zoo]'") from None


def source_of(name: str) -> dict[str, Any]:
    """Return how the library is to look for files of a model: a directory needs no network, and code is never run."""
    return {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Keep the library quiet, and make whatever it raises one sentence."""
    try:
        with quiet():
            yield
    except Exception as error:  # OSError for what is not there, and many others for what does not fit
        raise ModelError(f"hf:{name} cannot be loaded: {first_line(error)}") from None


def pretrained(
    automatic: Any, name: str, config: Any, weights: str | Path | None, *, replaced: Sequence[str]
) -> nn.Module:
    """Return the network with its weights, or those of a file.

    Args:
        automatic: the class of the library that knows the architectures.
        replaced: parts of the network that need no weights, by a part of their names.

    Raises:
        ModelError: weights cannot be had, or do not fit.
    """
    state = read_weights(weights) if weights is not None else None
    options = {"config": config, "use_safetensors": True, "output_loading_info": True, "dtype": "float32"}
    options["ignore_mismatched_sizes"] = True  # reported below
    with loading(name):
        if state is None:
            module, report = automatic.from_pretrained(name, **source_of(name), **options)
        else:
            architecture = type(automatic.from_config(config, trust_remote_code=False))
            module, report = architecture.from_pretrained(None, state_dict=state, **options)
    lacking = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if lacking := [key for key in lacking if not any(part in key for part in replaced)]:
        raise ModelError(
            f"the weights of hf:{name} do not fit the network: {', '.join(sorted(lacking)[:3])} is not there"
        )
    network: nn.Module = module
    return network


def _returning_scores(module: nn.Module) -> nn.Module:
    """Let `module(pictures)` return the scores alone; a wrapper would change its parameters' names."""
    forward = type(module).forward

    def scores(self: nn.Module, pixel_values: torch.Tensor) -> Any:
        return forward(self, pixel_values=pixel_values, return_dict=True).logits

    setattr(module, "forward", types.MethodType(scores, module))  # noqa: B010  # mypy forbids the assignment
    return module


def preprocessing_of(processor: Any) -> Preprocessing:
    """Translate an image processor's record; what has no counterpart is refused later, unless it is overridden.

    A picture whose shorter side is scaled and that is not cropped has no fixed size; its centre is
    taken.

    Raises:
        ModelError: the processor resizes in a way of its own.
    """
    size = {key: value for key, value in dict(processor.size or {}).items() if value}
    crop = dict(processor.crop_size or {}) if getattr(processor, "do_center_crop", False) else {}
    shorter = size.get("shortest_edge")
    kind = type(processor).__name__.removesuffix("Pil").removesuffix("Fast").removesuffix("ImageProcessor")
    resize = "crop" if shorter else "squash"
    if kind == "ConvNext" and shorter:
        crop = {"height": shorter, "width": shorter}
        resize, shorter = ("crop", int(shorter / processor.crop_pct)) if shorter < 384 else ("squash", shorter)
    elif kind == "Levit" and shorter:
        shorter = int(256 / 224 * shorter)
    elif kind == "PoolFormer":
        resize, shorter = "crop", int((shorter or size["height"]) / processor.crop_pct)
    elif "resize" in vars(type(processor)) or not (shorter or {"height", "width"} <= size.keys()):
        raise ModelError(
            f"{type(processor).__name__} resizes pictures in a way of its own (size {size}), which edgetl cannot repeat"
        )
    if not getattr(processor, "do_resize", True):
        resize = "none"
    frame = crop or {"height": shorter, "width": shorter, **size}
    height, width = int(frame["height"]), int(frame["width"])
    resize_size = int(shorter or max(size["height"], size["width"]))
    if resize == "squash" and crop and resize_size > max(height, width):
        resize = "squash_crop"
    mean, std = _normalization(processor)
    bgr = bool(getattr(processor, "do_flip_channel_order", False))
    order = -1 if bgr else 1
    return Preprocessing(
        height=height,
        width=width,
        resize=resize,
        resize_size=resize_size,
        interpolation=_RESAMPLE.get(int(processor.resample), str(processor.resample)),
        mean=mean[::order],
        std=std[::order],
        channel_order="bgr" if bgr else "rgb",
        crop_corner="down",
    )


def _normalization(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fold rescaling and normalization into a mean and a standard deviation of values in 0..1.

    EfficientNet's processor may subtract 1 in between, and divides by the standard deviation twice.
    """
    scale = 255 * (processor.rescale_factor if processor.do_rescale else 1.0)
    offset = float(getattr(processor, "rescale_offset", False))
    normalize = bool(processor.do_normalize)
    mean = processor.image_mean if normalize else (0.0,) * 3
    std = processor.image_std if normalize else (1.0,) * 3
    means = tuple((float(m) + offset) / scale for m in mean)
    if getattr(processor, "include_top", False):
        again = processor.image_std
        std = tuple(s * t for s, t in zip(std, again, strict=True))
    return means, tuple(float(s) / scale for s in std)
