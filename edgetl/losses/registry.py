"""The losses by name; the first of each task is its default."""

from __future__ import annotations

from collections.abc import Mapping

from edgetl.losses.binary_cross_entropy import BINARY_CROSS_ENTROPY
from edgetl.losses.cross_entropy import CROSS_ENTROPY
from edgetl.losses.focal import FOCAL
from edgetl.losses.huber import HUBER
from edgetl.losses.l1 import L1
from edgetl.losses.mean_squared_error import MEAN_SQUARED_ERROR
from edgetl.losses.rule import LossRule

LOSSES: Mapping[str, LossRule] = {
    rule.name: rule for rule in (CROSS_ENTROPY, FOCAL, BINARY_CROSS_ENTROPY, MEAN_SQUARED_ERROR, L1, HUBER)
}


def losses_of(task: str) -> tuple[str, ...]:
    """Return the names of a task's losses, the default first."""
    return tuple(name for name, rule in LOSSES.items() if rule.task == task)
