"""timm:NAME: a network of PyTorch Image Models, with its own record of preprocessing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError, first_line
from edgetl.preparation.sources.hub import hugging_face, patience, unreachable
from edgetl.preparation.sources.missing import lacking
from edgetl.preparation.sources.weights import Fit, load_weights
from edgetl.suggest import did_you_mean

if TYPE_CHECKING:
    from torch import nn


def load(
    name: str, weights: str | Path | None, model_args: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[nn.Module, Preprocessing, Fit | None]:
    """Create the network, with its published weights or those of a file, for as many channels as are asked for.

    Raises:
        ModelError: timm is not installed, does not know the name, or the weights cannot be had.
    """
    timm = _import()
    if not timm.is_model(name):
        raise ModelError(f"timm has no model {name!r}{did_you_mean(name.partition('.')[0], timm.list_models())}")
    architecture, _, tag = name.partition(".")
    published = [item.partition(".") for item in timm.list_pretrained(f"{architecture}*")]
    tags = [one for base, _, one in published if base == architecture]
    if tag and tag not in tags:
        known = f": choose from {', '.join(tags)}" if tags else ""
        raise ModelError(f"timm:{architecture} has no weights {tag!r}{did_you_mean(tag, tags) or known}")
    if not tags and weights is None:
        raise ModelError(f"timm has no published weights of {architecture}: give a file with --weights")
    if (channels := overrides.get("channels")) is not None:
        model_args = {"in_chans": channels, **model_args}  # timm adds up the first layer's published weights for it
    if weights is not None:
        module = _create(timm, name, model_args, pretrained=False)
    else:
        with hugging_face() as silence, patience():
            try:
                module = _create(timm, name, model_args, pretrained=True)
            except ModelError:
                raise
            except Exception as error:  # whatever the hub's client raises
                raise unreachable(f"the weights of timm:{name}", error, silence) from None
    fit = load_weights(module, weights) if weights is not None else None
    config = import_module("timm.data.config").resolve_data_config({}, model=module)
    return module, preprocessing_of(config), fit


def _create(timm: Any, name: str, model_args: Mapping[str, Any], *, pretrained: bool) -> nn.Module:
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **model_args)
    except OSError:  # of the hub's client, some of whose errors are a ValueError as well
        raise
    except (TypeError, ValueError, AssertionError) as error:
        raise ModelError(f"timm cannot create {name!r} with these --model-arg: {first_line(error)}") from None
    return module


def names() -> list[str]:
    """Return the networks that timm has; none where it is not installed."""
    try:
        return list(_import().list_models())
    except ModelError:
        return []


def _import() -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise ModelError(lacking("timm:", "timm", error)) from None
    except RuntimeError as error:
        raise ModelError(
            f"timm does not load ({first_line(error)}): torch and torchvision do not match, install matching releases "
            "of both"
        ) from None


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
