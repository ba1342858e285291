"""What a network's first layer says of its input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgetl.artifacts import Preprocessing, TensorSpec


def picture_channels(module: nn.Module, own: Preprocessing) -> int:
    """Return how many channels of a picture the network takes: as its first convolution says, or its own record.

    Where the two differ, a forward pass decides: a network may rearrange its input before the first convolution.
    """
    layer = _first_layer(module)
    first = layer.in_channels if isinstance(layer, nn.Conv2d) else 0
    if first not in (1, 3) or first == own.channels:
        return own.channels
    declared = not _takes(module, (first, own.height, own.width)) and _takes(module, own.inputs[0].shape)
    return own.channels if declared else first


def advice(module: nn.Module, inputs: Sequence[TensorSpec]) -> str:
    """Return what to do about a network that does not take samples of these shapes."""
    picture = len(inputs) == 1 and inputs[0].name == "pixels"
    layer = _first_layer(module)
    if picture and isinstance(layer, nn.Conv2d) and layer.in_channels not in (1, 3, *inputs[0].shape[:1]):
        return (
            f"its first layer takes {layer.in_channels} channels, and pictures have 1 or 3: "
            f"give --modality array --input-shape {layer.in_channels},HEIGHT,WIDTH for samples that have them"
        )
    if picture and isinstance(layer, nn.Conv2d) and layer.in_channels != inputs[0].shape[0]:
        return f"its first layer takes {layer.in_channels} channels: give --channels {layer.in_channels}"
    if isinstance(layer, nn.Conv1d):
        return (
            f"its first layer takes sequences of {layer.in_channels} channels: "
            f"give --modality array --input-shape {layer.in_channels},LENGTH"
        )
    if isinstance(layer, nn.Embedding):
        return "its first layer takes token ids: of networks for texts, hf:ID_OR_DIR can be prepared"
    if picture and isinstance(layer, nn.Linear | nn.RNNBase):
        size = layer.in_features if isinstance(layer, nn.Linear) else f"LENGTH,{layer.input_size}"
        return f"for numbers such as a sensor's give --modality array --input-shape {size}; for pictures set --size"
    return "set --size" if picture else "set --audio-arg" if inputs[0].name == "spectrogram" else "set --input-shape"


def _first_layer(module: nn.Module) -> nn.Module | None:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding, nn.RNNBase)
    return next((layer for layer in module.modules() if isinstance(layer, kinds)), None)


def _takes(module: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(2, *shape))
    except Exception:  # whatever its layers raise
        return False
    return True
