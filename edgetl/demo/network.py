"""The small network that the demo pretrains, in torch. Workstation only."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

MEAN, STD = 0.11, 0.23  # of the drawings' pixels, in 0..1


def build(classes: int = 6) -> nn.Module:
    """Return a convolutional network for 24×24 grey pictures with 46 thousand parameters before its head."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 48, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(48, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def fit(network: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64], *, steps: int) -> None:
    """Train every layer on `images` `[N, 24, 24]` with AdamW and batches of 32."""
    inputs, targets = _tensor(images), torch.from_numpy(labels)
    order = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    network.train()
    for _ in range(steps):
        batch = torch.from_numpy(order.choice(len(images), min(32, len(images)), replace=False))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs[batch]), targets[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()


def pretrain(images: NDArray[np.uint8], labels: NDArray[np.int64], *, steps: int) -> nn.Module:
    """Return a network trained on `images` from a seeded start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small lose more to waiting threads than they gain
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build(int(labels.max()) + 1)
        fit(network, images, labels, steps=steps)
    finally:
        torch.set_num_threads(threads)
    return network


def accuracy(network: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return the share of `images` `[N, 24, 24]` that the network classifies right."""
    with torch.no_grad():
        return float((network(_tensor(images)).argmax(1).numpy() == labels).mean())


def _tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    return ((torch.from_numpy(images).float() / 255 - MEAN) / STD)[:, None]
