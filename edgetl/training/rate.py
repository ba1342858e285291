"""A learning rate that works: by rule, from what trains, or by short trials.

A head and a pretrained network need rates that lie far apart: 1e-3 suits many heads and destroys a whole network. The
rules are for AdamW, each step of which changes a weight by about the rate, whatever the size of its gradient. Their
constants were chosen by fine-tuning MobileNetV2, EfficientNet-Lite0 and MiniLM at several rates in PyTorch, from heads
in closed form; benchmarks/practice.py measures what comes of them here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNRULED = 1e-3
"""The rate where no rule applies: for SGD with momentum, and for a head of several layers."""

HEAD_STEP = 0.2
"""How much the first step may change a score of a linear head. A step of rate η changes it by up to `η·‖x‖₁`."""

HEAD_MOST = 0.1
"""The largest such rate, of a head with few or small inputs."""

PRETRAINED = 1e-4
"""The rate of a pretrained network for `PRETRAINED_SAMPLES`; it grows with the square root of their number."""

PRETRAINED_SAMPLES = 250
PRETRAINED_BOUNDS = (2e-5, 2e-4)
TEXT_BOUNDS = (2e-5, 5e-5)
"""Language models are trained at lower rates; more samples do not change that."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)

TRIAL_STEPS = 100
"""Most steps of a trial; a rate that suits fewer steps than a run has would be too large for it."""

LEFT_OUT = 0.2
"""Share of the training samples that judge. The loss of those that train would only ask who fits them fastest."""


def head_rate(inputs: NDArray[Any]) -> float:
    """Return the rate of a linear head, from some of its inputs `[N, D]`."""
    length = float(np.abs(inputs).sum(1, dtype=np.float64).mean())
    return _two_digits(min(HEAD_STEP / length, HEAD_MOST)) if length > 0 else UNRULED


def pretrained_rate(samples: int, modality: str) -> float:
    """Return the rate of a share of the network that holds pretrained layers, for so many training samples."""
    low, high = TEXT_BOUNDS if modality == "text" else PRETRAINED_BOUNDS
    return _two_digits(min(max(PRETRAINED * math.sqrt(samples / PRETRAINED_SAMPLES), low), high))


def _two_digits(rate: float) -> float:
    return float(f"{rate:.1e}")


def find_rate(trial: Callable[[float], float]) -> float:
    """Return the rate of `RATES` whose trial ends with the smallest loss.

    Losses first fall with the rate and then rise, so the search goes up and ends behind the smallest.

    Args:
        trial: trains anew for some steps at a rate and returns the loss of what was left out; infinity
            or not a number if it diverged.
    """
    best_rate, best_loss, worse = RATES[0], math.inf, 0
    for rate in RATES:
        loss = trial(rate)
        if math.isfinite(loss) and loss < best_loss:
            best_rate, best_loss, worse = rate, loss, 0
        else:
            worse += 1
        if worse == 2:
            break
    return best_rate
