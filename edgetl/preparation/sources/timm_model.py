"""timm:NAME: a network of PyTorch Image Models, with its own record of preprocessing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.sources.weights import Fit, load_weights

if TYPE_CHECKING:
    from torch import nn


def load(
    name: str, weights: str | Path | None, model_args: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[nn.Module, Preprocessing, Fit | None]:
    """Create the network, with its published weights or those of a file, for as many channels as are asked for.

    Raises:
        ModelError: timm is not installed, does not know the name, or the weights cannot be had.
    """
    try:
        import timm
        from timm.data.config import resolve_data_config
    except ImportError as error:
        raise ModelError(f"timm is not installed ({error}): pip install 'edgetl[zoo]'") from None
    except RuntimeError as error:
        raise ModelError(
            f"timm does not load ({error}): torch and torchvision do not match, install matching releases of both"
        ) from None
    if not timm.is_model(name):
        similar = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8]
        hint = f"; similar names: {', '.join(similar)}" if similar else ""
        raise ModelError(f"timm has no model {name!r}{hint}")
    if (channels := overrides.get("channels")) is not None:
        model_args = {"in_chans": channels, **model_args}  # timm adds up the first layer's published weights for it
    try:
        module = timm.create_model(name, pretrained=weights is None, **model_args)
    except (TypeError, ValueError, AssertionError) as error:
        raise ModelError(f"timm cannot create {name!r} with these --model-arg: {error}") from None
    except Exception as error:  # whatever the hub's client raises without a network
        raise ModelError(
            f"the weights of timm:{name} cannot be downloaded ({type(error).__name__}): "
            "give a file with --weights, or go online"
        ) from None
    fit = load_weights(module, weights) if weights is not None else None
    config = resolve_data_config({}, model=module)  # type: ignore[no-untyped-call]
    return module, preprocessing_of(config), fit


def preprocessing_of(config: Mapping[str, Any]) -> Preprocessing:
    """Translate timm's data configuration of an evaluation transform.

    timm resizes the shorter side to floor(size / crop_pct) and crops the centre; with
    `crop_mode="squash"` it scales both sides. What has no counterpart (`border`) is refused later,
    unless it is overridden.
    """
    channels, height, width = config["input_size"]
    resize_size = math.floor(max(height, width) / config.get("crop_pct", 1.0))
    mode = config.get("crop_mode", "center")
    resize = "crop" if mode == "center" else mode
    if resize == "squash" and resize_size > max(height, width):
        resize = "squash_crop"
    interpolation = config["interpolation"]
    return Preprocessing(
        height=height,
        width=width,
        channels=channels,
        resize=resize,
        resize_size=resize_size,
        # ONNX has no Lanczos; cubic is the nearest it has
        interpolation={"lanczos": "bicubic", "random": "bilinear"}.get(interpolation, interpolation),
        mean=tuple(map(float, config["mean"][:channels])),
        std=tuple(map(float, config["std"][:channels])),
    )
