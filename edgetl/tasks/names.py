"""The tasks, and the losses that each can be trained with."""

from __future__ import annotations

TASKS = {
    "classification": ("cross_entropy",),
    "multilabel": ("binary_cross_entropy",),
    "regression": ("mean_squared_error", "l1"),
}
"""Each task and its losses, the default first."""

LOSSES = tuple(loss for losses in TASKS.values() for loss in losses)
