"""What an optimizer keeps and how its tensors are named; `update` has the arithmetic, and needs onnx."""

from __future__ import annotations

from edgetl.artifacts import Optimizer

LOSS = "loss"
LEARNING_RATE = "learning_rate"
STEP = "step"
GRADIENT = "/gradient"
FIRST_MOMENT = "/first_moment"
SECOND_MOMENT = "/second_moment"
MOMENTUM = "/momentum"
SUM = "/sum"
NEW = "/new"


def state_suffixes(optimizer: Optimizer) -> tuple[str, ...]:
    """Return what the optimizer keeps for each parameter, by the suffix of its name."""
    return (FIRST_MOMENT, SECOND_MOMENT) if optimizer.name == "adamw" else (MOMENTUM,)


def ort_learning_rate(optimizer: Optimizer, learning_rate: float) -> float:
    """Return the rate that onnxruntime-training's operator needs for this rate; see `update.set_ort_optimizer`."""
    return learning_rate if optimizer.name == "adamw" else learning_rate / (1 - optimizer.momentum)
