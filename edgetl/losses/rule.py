"""What a loss is: the task that it is for, and its operators.

Every loss is `Σₙ wₙ·ℓ(zₙ, tₙ)`, with logits z and targets t `[N, K]` and the samples' weights w `[N]`.
Weights that add up to 1 over a batch give its mean, whatever parts the batch is computed in; label
smoothing and the weights of classes are in t and w, not in the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetl.graph.build import Nodes

    Each: TypeAlias = Callable[[Nodes, str, str], str]


@dataclass(frozen=True)
class LossRule:
    """One loss.

    Attributes:
        name: as `--loss` takes it.
        task: the task that it is for.
        each: writes `ℓ(z, t)`, `[N]`, from the names of logits and targets `[N, K]`, in operators that
            onnxruntime-training differentiates exactly.
    """

    name: str
    task: str
    each: Each


def sum_over_outputs(op: Nodes, x: str) -> str:
    """Write `Σₖ xₖ`."""
    return op.ReduceSum(x, axis(1), keepdims=0)


def mean_over_outputs(op: Nodes, x: str) -> str:
    """Write `(1/K) Σₖ xₖ`."""
    return op.ReduceMean(x, axis(1), keepdims=0)


def axis(number: int) -> NDArray[np.int64]:
    """Return an axis as operators take it."""
    import numpy as np

    return np.array([number], np.int64)
