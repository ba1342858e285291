"""The preprocessing of a model with what the user says otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from edgetl import defaults
from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError


def of_file(
    what: str,
    channels: int,
    height: int,
    width: int,
    overrides: Mapping[str, Any],
    default: Preprocessing | None = None,
) -> Preprocessing:
    """Return the preprocessing for a file that records none.

    Args:
        what: names the file in an error.
        channels, height, width: what the file takes; 0 for what is not fixed.
        default: everything but the size; else ImageNet's, or mean and deviation 0.5 for one channel.

    Raises:
        ModelError: the file does not take such pictures, or no others than of its size.
    """
    if channels not in (0, 1, 3):
        raise ModelError(f"{what} takes pictures of {channels} channels; expected 1 or 3")
    if height * width > defaults.MAX_PIXELS:
        raise ModelError(
            f"{what} takes pictures of {height}×{width} pixels, more than the {defaults.MAX_PIXELS / 1e6:.0f} million "
            "allowed"
        )
    asked = overrides.get("channels")
    if channels and asked not in (None, channels):
        raise ModelError(f"{what} takes pictures of {channels} channels only, so --channels cannot change them")
    own = default or unknown(channels or asked or 3)
    fixed = bool(height and width)
    if fixed:
        own = apply_overrides(own, {"size": (height, width)})
    own = apply_overrides(own, overrides)
    if fixed and (own.height, own.width) != (height, width):
        raise ModelError(f"{what} takes pictures of {height}×{width} only, so --size cannot change them")
    return own


def unknown(channels: int) -> Preprocessing:
    """Return what is assumed where nothing is known: ImageNet's mean and deviation, or 0.5 for one channel."""
    return Preprocessing(channels=1, mean=(0.5,), std=(0.5,)) if channels == 1 else Preprocessing()


def with_channels(own: Preprocessing, channels: int) -> Preprocessing:
    """Return the preprocessing for another number of channels; grey has the average of the colours' mean and deviation.

    Raises:
        ModelError: pictures have no such number of channels.
    """
    if channels == own.channels:
        return own
    if channels not in (1, 3):
        raise ModelError(f"--channels must be 1 (grey) or 3 (colour), not {channels}")
    mean, std = (tuple([sum(values) / len(values)] * channels) for values in (own.mean, own.std))
    return replace(own, channels=channels, mean=mean, std=std, channel_order="rgb")


def apply_overrides(own: Preprocessing, overrides: Mapping[str, Any]) -> Preprocessing:
    """Return the model's own preprocessing with the given fields replaced.

    `size` (one number or height and width) sets the input size and keeps the ratio of the resize; where it is no
    square, both sides are scaled unless `resize` says otherwise;
    `crop_pct` sets that ratio. A single mean or standard deviation serves every channel.

    Raises:
        ModelError: a field is not known, or its value makes no sense.
    """
    values = {key: value for key, value in overrides.items() if value is not None}
    known = {field.name for field in fields(Preprocessing)} | {"size", "crop_pct"}
    if foreign := set(values) - known:
        raise ModelError(
            f"preprocessing has no field {', '.join(sorted(foreign))}: choose from {', '.join(sorted(known))}"
        )
    own = with_channels(own, values.pop("channels", own.channels))
    ratio = own.resize_size / max(own.height, own.width)
    if (size := values.pop("size", None)) is not None:
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            raise ModelError(f"the input size must be positive, not {height}×{width}")
        # a square's way, the shorter side scaled to the longer one of the input, would keep little of an oblong picture
        resize = "squash" if height != width and own.resize == "crop" else own.resize
        own = replace(own, height=height, width=width, resize=resize, resize_size=round(max(height, width) * ratio))
    if (crop_pct := values.pop("crop_pct", None)) is not None:
        if not 0 < crop_pct <= 1:
            raise ModelError(f"the crop percentage must lie in (0, 1], not {crop_pct}")
        own = replace(own, resize_size=int(max(own.height, own.width) / crop_pct))
    own = replace(own, **values)
    mean, std = (value * own.channels if len(value) == 1 else value for value in (own.mean, own.std))
    if not all(map(math.isfinite, (*mean, *std))):
        raise ModelError(f"means and standard deviations must be finite numbers, not {[*mean, *std]}")
    if any(not value > 0 for value in std):
        raise ModelError(f"standard deviations must be positive, not {list(std)}")
    return replace(own, mean=tuple(mean), std=tuple(std))
