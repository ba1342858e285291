"""The seam between the training loop and whatever computes gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgetl.artifacts import Manifest
from edgetl.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Engine(Protocol):
    """A training session: parameters and optimizer state, and the steps that change them.

    `features` is one array per feature tensor of the manifest, `[N, *shape]`; `targets` is `[N]`
    int64, class indices.
    """

    name: str
    provider: str

    def train_step(self, features: Sequence[NDArray[Any]], targets: NDArray[np.int64], learning_rate: float) -> float:
        """Do one step of the optimizer on the batch's mean loss; return that loss, before the step.

        Raises:
            EngineError: shapes or labels do not fit the artifacts.
        """
        ...

    def evaluate(
        self, features: Sequence[NDArray[Any]], targets: NDArray[np.int64]
    ) -> tuple[float, NDArray[np.float32]]:
        """Return the batch's mean loss and its logits `[N, classes]`; nothing changes."""
        ...

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of the trainable parameters by name."""
        ...

    def state(self) -> bytes:
        """Return everything that `open_engine` needs to continue exactly from here."""
        ...


def check_batch(manifest: Manifest, features: Sequence[NDArray[Any]], targets: NDArray[np.int64]) -> None:
    """Refuse what does not fit the artifacts before it reaches a runtime.

    Raises:
        EngineError: a tensor too many or few, another shape or type, or a label out of range.
    """
    if len(features) != len(manifest.features):
        raise EngineError(f"the artifacts take {len(manifest.features)} feature tensors, not {len(features)}")
    for array, spec in zip(features, manifest.features, strict=True):
        if array.shape != (len(targets), *spec.shape) or array.dtype != spec.dtype:
            raise EngineError(
                f"feature {spec.name!r} is {array.dtype} {list(array.shape)}, "
                f"but the artifacts take {spec.dtype} {[len(targets), *spec.shape]}"
            )
    if targets.ndim != 1 or targets.dtype != np.int64 or len(targets) == 0:
        raise EngineError(f"targets are {targets.dtype} {list(targets.shape)}, but must be int64 [N] with N > 0")
    if targets.min() < 0 or targets.max() >= manifest.classes:
        raise EngineError(f"targets must lie in 0..{manifest.classes - 1}; found {targets.min()}..{targets.max()}")
