"""A learning rate that works: short trials from the same start, on the training data alone."""

from __future__ import annotations

import math
from collections.abc import Callable

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)

TRIAL_STEPS = 40


def find_rate(trial: Callable[[float], float]) -> float:
    """Return the rate of `RATES` whose trial ends with the smallest loss.

    Losses first fall with the rate and then rise, so the search goes up and ends behind the smallest.

    Args:
        trial: trains anew for some steps at a rate and returns the loss that it ends with; infinity or
            not a number if it diverged.
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
