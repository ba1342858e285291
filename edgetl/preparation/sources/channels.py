"""What a network's first layer says of its input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgetl.artifacts import Preprocessing, TensorSpec

_SIZES = (224, 32, 28, 64, 96, 128, 160, 192, 240, 256, 288, 299, 320, 331, 384, 416, 448, 480, 512)
"""Sizes of pictures that networks are made for, the most usual one and then from small to large."""


def picture_channels(module: nn.Module, own: Preprocessing) -> int:
    """Return how many channels of a picture the network takes: as its first convolution says, or its own record.

    Forward passes decide: a network may rearrange or check its input before the first convolution.
    """
    if own.channels not in _CHANNELS:
        return own.channels
    layer = _first_layer(module)
    said = layer.in_channels if isinstance(layer, nn.Conv2d) else own.channels
    choices = dict.fromkeys(count for count in (said, own.channels, *_CHANNELS) if count in _CHANNELS)
    taken = (count for count in choices if _takes(module, (count, own.height, own.width)))
    return next(taken, next(iter(choices)))


def advice(module: nn.Module, inputs: Sequence[TensorSpec]) -> str:
    """Return what to do about a network that does not take samples of these shapes."""
    picture = len(inputs) == 1 and inputs[0].name == "pixels"
    layer = _first_layer(module)
    if picture and isinstance(layer, nn.Conv2d) and layer.in_channels not in (*_CHANNELS, *inputs[0].shape[:1]):
        return (
            f"its first layer takes {layer.in_channels} channels, and pictures have 1 or 3: "
            f"give --modality array --input-shape {layer.in_channels},HEIGHT,WIDTH for samples that have them"
        )
    if isinstance(layer, nn.Conv1d):
        return (
            f"its first layer takes sequences of {layer.in_channels} channels: "
            f"give --modality array --input-shape {layer.in_channels},LENGTH"
        )
    if isinstance(layer, nn.Embedding):
        return "its first layer takes token ids: of networks for texts, hf:ID_OR_DIR can be prepared"
    if not picture:
        return "set --audio-arg" if inputs[0].name == "spectrogram" else "set --input-shape"
    # a linear layer alone takes any picture of its width, and gives scores for each row of pixels
    options = _options(module, inputs[0].shape, whole=isinstance(layer, nn.Linear | nn.RNNBase))
    if isinstance(layer, nn.Linear | nn.RNNBase):
        size = layer.in_features if isinstance(layer, nn.Linear) else f"LENGTH,{layer.input_size}"
        way = options and f"; for pictures give {options}"
        return f"for numbers such as a sensor's give --modality array --input-shape {size}{way}"
    if isinstance(layer, nn.Conv2d) and layer.in_channels != inputs[0].shape[0]:
        said = f"--channels {layer.in_channels}"
        return f"its first layer takes {layer.in_channels} channels: give {options or said}"
    if options:
        return f"give {options}"
    return "set --size HEIGHT,WIDTH to what it takes"


_CHANNELS = (3, 1)


def _options(module: nn.Module, shape: tuple[int, ...], *, whole: bool) -> str:
    """Return options with which a network takes pictures that are not of this shape; nothing if none were found.

    Args:
        whole: whether it must give a row of scores for each picture, and no map of them.
    """
    channels, height, width = shape
    order = sorted(_CHANNELS, key=lambda count: count != channels)
    sizes = [(height, width), *((size, size) for size in _SIZES if (size, size) != (height, width))]
    for size in sizes:
        for count in order:
            if _takes(module, (count, *size), whole=whole):
                asked = [f"--channels {count}"] * (count != channels) + [f"--size {size[0]}"] * (size != sizes[0])
                return " ".join(asked)
    return ""


def _first_layer(module: nn.Module) -> nn.Module | None:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding, nn.RNNBase)
    return next((layer for layer in module.modules() if isinstance(layer, kinds)), None)


def _takes(module: nn.Module, shape: tuple[int, ...], *, whole: bool = False) -> bool:
    try:
        with torch.no_grad():
            found = module.eval()(torch.zeros(2, *shape))
    except Exception:  # whatever its layers raise
        return False
    return not whole or (isinstance(found, torch.Tensor) and found.ndim == 2)
