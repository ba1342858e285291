"""hf:ID_OR_DIR: an image classifier of Transformers, with its image processor's record."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError, first_line
from edgetl.preparation.sources.hub import hugging_face
from edgetl.preparation.sources.missing import lacking
from edgetl.preparation.sources.quiet import quiet
from edgetl.preparation.sources.weights import Fit, fit_of, read_weights
from edgetl.suggest import similar_path

if TYPE_CHECKING:
    import torch
    from torch import nn

_RESAMPLE = {0: "nearest", 1: "bicubic", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # 1 is Lanczos


def load(
    name: str, weights: str | Path | None, model_args: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[nn.Module, Preprocessing, Fit]:
    """Load the network from the hub or a directory: safetensors only, and none of the repository's code.

    Args:
        model_args: fields of the model's configuration.

    Raises:
        ModelError: Transformers is not installed, or the model cannot be had.
    """
    transformers = import_transformers()
    if (channels := overrides.get("channels")) is not None:
        model_args = {"num_channels": channels, **model_args}
    with loading(name):
        config = transformers.AutoConfig.from_pretrained(name, **source_of(name), **model_args)
    if any(model_file(name, file) is not None for file in _PROCESSORS):
        with loading(name):
            processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil", **source_of(name))
        own = preprocessing_of(processor)
    else:
        own = _without_processor(name, config, overrides)
    automatic = transformers.AutoModelForImageClassification
    module, fit = pretrained(automatic, name, config, weights)
    return _returning_scores(module), own, fit


_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def _without_processor(name: str, config: Any, overrides: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of a model that was saved without its image processor: the size that its record tells.

    Raises:
        ModelError: mean and deviation, or a size that nothing tells, are not given.
    """
    size = getattr(config, "image_size", None)
    size = (size, size) if isinstance(size, int) else size
    needed = ["mean", "std", *(() if size else ("size",))]
    if lacking := [f"--{key}" for key in needed if overrides.get(key) is None]:
        raise ModelError(
            f"hf:{name} holds no {_PROCESSORS[0]}, which says how pictures enter the network: give "
            f"{' and '.join(lacking)} (many networks take 0.5 as mean and as standard deviation), or put the file there"
        )
    height, width = size or (Preprocessing.height, Preprocessing.width)
    return Preprocessing(height=int(height), width=int(width), resize_size=int(max(height, width)))


def model_file(name: str, file: str) -> Path | None:
    """Return where one of the model's files lies; None if there is none of that name.

    Raises:
        ModelError: the model cannot be had.
    """
    with loading(name):
        found = import_transformers().utils.cached_file(
            name,
            file,
            local_files_only=Path(name).is_dir(),
            _raise_exceptions_for_missing_entries=False,
        )
    return Path(found) if found is not None else None


def import_transformers() -> Any:
    """Import the library.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return import_module("transformers")
    except ImportError as error:
        raise ModelError(lacking("hf:", "transformers", error)) from None


def source_of(name: str) -> dict[str, Any]:
    """Return how the library is to look for files of a model: a directory needs no network, and code is never run."""
    return {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Keep the library quiet, and make whatever it raises one sentence."""
    silence = ""
    try:
        if Path(name).is_dir():
            with quiet():
                yield
        else:
            with hugging_face() as silence:
                yield
    except Exception as error:  # OSError for what is not there, and many others for what does not fit
        why = silence or first_line(error)
        how = similar_path(Path(name)) or ("; give a directory, or go online" if silence else "")
        raise ModelError(f"hf:{name} cannot be loaded: {why}{how}") from None


def pretrained(automatic: Any, name: str, config: Any, weights: str | Path | None) -> tuple[nn.Module, Fit]:
    """Return the network with its weights, or those of a file, as far as they fit.

    Args:
        automatic: the class of the library that knows the architectures.

    Raises:
        ModelError: weights cannot be had.
    """
    options = {"config": config, "use_safetensors": True, "output_loading_info": True, "dtype": "float32"}
    options["ignore_mismatched_sizes"] = True  # `Fit.check` reports them
    what, notes = f"hf:{name}", tuple[str, ...]()
    if weights is None:
        with loading(name):
            module, report = automatic.from_pretrained(name, **source_of(name), **options)
    else:
        with loading(name):
            empty = automatic.from_config(config, trust_remote_code=False)
        state, what, notes = read_weights(weights, empty.state_dict())
        with loading(name):
            module, report = type(empty).from_pretrained(None, state_dict=state, **options)
    network: nn.Module = module
    sizes = {key: (tuple(theirs), tuple(ours)) for key, theirs, ours in report["mismatched_keys"]}
    missing, extra = report["missing_keys"], report["unexpected_keys"]
    return network, fit_of(what, network.state_dict(), missing=missing, resized=sizes, extra=extra, notes=notes)


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
