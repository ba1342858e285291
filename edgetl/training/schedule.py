"""The learning rate of every step."""

from __future__ import annotations

import math

PRETRAINED_WARMUP = 0.1
"""Share of the steps over which the rate of a pretrained network rises; behind them it falls along a line."""


def choose_schedule(schedule: str, warmup: float | None, *, pretrained: bool) -> tuple[str, float]:
    """Return schedule and warm-up as they were given, or as they suit a head alone or pretrained layers as well."""
    if warmup is None:
        warmup = PRETRAINED_WARMUP if pretrained and schedule == "auto" else 0.0
    return ("linear" if pretrained else "constant") if schedule == "auto" else schedule, warmup


def learning_rate(peak: float, schedule: str, warmup: float, step: int, steps: int) -> float:
    """Return the rate of step `step` (0 for the first) of `steps`.

    It rises linearly over the first `warmup` of all steps, to reach `peak` at their last, and then
    stays there, or falls to 0 behind the last step, along a line or half a cosine (Loshchilov & Hutter
    2017).

    Args:
        schedule: one of `edgetl.runs.settings.SCHEDULES`.
        warmup: a share of all steps, in 0..1.
    """
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    if schedule == "constant":
        return peak
    done = (step - rising) / (steps - rising)
    return peak * (1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)
