"""A learning rate that works: short trials from the same start, judged by training samples that they leave out."""

from __future__ import annotations

import math
from collections.abc import Callable

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)

TRIAL_STEPS = 100
"""Most steps of a trial; a rate that suits fewer steps than a run has would be too large for it."""

LEFT_OUT = 0.2
"""Share of the training samples that judge. The loss of those that train would only ask who fits them fastest."""


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
