"""A network for windows of sensors that was not trained: random convolutions (Dempster et al. 2020, ROCKET)."""

import os

import torch
from torch import nn


class Rocket(nn.Module):
    """Of `[N, channels, rows]` the largest value and the share of positive ones behind each of random kernels."""

    def __init__(self, channels: int, rows: int, kernels: int = 500) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList()
        for size, dilation in ((7, 1), (9, 2), (9, 4), (11, 1), (7, 8)):
            if (size - 1) * dilation < rows:
                layer = nn.Conv1d(channels, kernels // 5, size, dilation=dilation)
                weight = torch.randn(layer.weight.shape, generator=random)
                layer.weight.data = (weight - weight.mean((1, 2), keepdim=True)) / size**0.5
                layer.bias.data = torch.rand(layer.bias.shape, generator=random) * 2 - 1
                self.layers.append(layer)
        self.head = nn.Linear(2 * sum(layer.out_channels for layer in self.layers), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deviation = ((x - x.mean(2, keepdim=True)) ** 2).mean(2, keepdim=True).sqrt()
        x = (x - x.mean(2, keepdim=True)) / (deviation + 1e-6)
        found = [layer(x) for layer in self.layers]
        largest = [one.amax(2) for one in found]
        positive = [(one > 0).float().mean(2) for one in found]
        return self.head(torch.cat([*largest, *positive], 1))


def build() -> nn.Module:
    """The network for a shape such as `9x119`, from the environment."""
    channels, rows = map(int, os.environ["PRACTICE_SHAPE"].split("x"))
    return Rocket(channels, rows).eval()
