"""The seam between the training loop and whatever computes gradients."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgetl.artifacts import Manifest
from edgetl.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray


MICRO_BATCH_MB = 128
FEWEST_AT_ONCE = 4

SMALL_STEP = 10_000_000
"""Multiply-accumulates of a training step, about a millisecond of one core, below which threads cost more than they
gain: a head of 1280 features and ten classes trains twice as fast on one of two cores as on both."""


class Engine(Protocol):
    """A training session: parameters and optimizer state, and the steps that change them.

    `features` is one array per feature tensor of the manifest, `[N, *shape]`. `targets` is `[N, K]`
    float32: for classification the probability of each class, so that labels may be smoothed.
    `weights` is `[N]` float32; the loss is `Σ wₙ·ℓₙ`, the mean where they are all 1/N.

    Attributes:
        placement: each execution provider's share of a training step's time; empty before the first.
    """

    name: str

    @property
    def placement(self) -> dict[str, float]:
        """See above."""
        ...

    def train_step(
        self,
        features: Sequence[NDArray[Any]],
        targets: NDArray[np.float32],
        weights: NDArray[np.float32],
        learning_rate: float,
    ) -> float:
        """Do one step of the optimizer on the batch's loss; return that loss, before the step.

        Raises:
            EngineError: shapes or types do not fit the artifacts.
        """
        ...

    def evaluate(
        self, features: Sequence[NDArray[Any]], targets: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32]]:
        """Return the batch's loss and its logits `[N, K]`; nothing changes."""
        ...

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of the trainable parameters by name."""
        ...

    def is_finite(self) -> bool:
        """Whether every trainable parameter is a finite number."""
        ...

    def state(self) -> bytes:
        """Return everything that `open_engine` needs to continue exactly from here."""
        ...


def check_batch(
    manifest: Manifest,
    features: Sequence[NDArray[Any]],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> None:
    """Refuse what does not fit the artifacts before it reaches a runtime.

    Raises:
        EngineError: a tensor too many or few, another shape or type, or a target or weight that is not finite.
    """
    if len(features) != len(manifest.features):
        raise EngineError(f"the artifacts take {len(manifest.features)} feature tensors, not {len(features)}")
    count = len(targets)
    if count == 0:
        raise EngineError("a batch must hold at least one sample")
    for array, spec in zip(features, manifest.features, strict=True):
        _check(f"feature {spec.name!r}", array, (count, *spec.shape), spec.dtype)
    _check("targets", targets, (count, manifest.outputs), "float32")
    _check("sample weights", weights, (count,), "float32")
    if not (np.isfinite(targets).all() and np.isfinite(weights).all()):
        raise EngineError("targets and sample weights must be finite")


def _check(what: str, array: NDArray[Any], shape: tuple[int, ...], dtype: str) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise EngineError(f"{what}: the artifacts take {dtype} {list(shape)}, not {array.dtype} {list(array.shape)}")


def sums_to_number(array: NDArray[np.float32]) -> bool:
    """Whether all elements are finite, and so their sum: it takes no memory, and keeps what is no finite number."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum(dtype=np.float32)))


def choose_micro_batch(manifest: Manifest, batch_size: int, available_mb: float | None = None) -> int | None:
    """Return how many samples to compute at once; None for whole batches.

    The largest power of two whose values, kept for the backward pass, take `MICRO_BATCH_MB`; on a CPU larger
    ones gain no more speed, only memory (benchmarks/README.md). Below `FEWEST_AT_ONCE` steps become
    slower, so that only a lack of memory leads there.

    Args:
        available_mb: memory that may be taken, 10^6 bytes; None if it is not known.
    """
    memory = manifest.step_memory
    if memory is None:
        return None

    def fitting(budget_mb: float) -> int:
        return 1 << max(int(budget_mb / max(memory.per_sample_mb, 1e-9)), 1).bit_length() - 1

    chosen = max(fitting(MICRO_BATCH_MB), FEWEST_AT_ONCE)
    if available_mb is not None:
        chosen = min(chosen, fitting(available_mb / 2 - memory.fixed_mb))
    return None if chosen >= batch_size else chosen


def step_threads(manifest: Manifest, at_once: int, threads: int) -> int:
    """Return how many of these threads compute a step of `at_once` samples: one, or all."""
    # the backward pass has two products of each weight's size, the forward pass one
    return 1 if 3 * at_once * manifest.trainable_macs < SMALL_STEP else threads


def micro_batches(count: int, largest: int | None) -> list[slice]:
    """Cut a batch of `count` samples into as few parts of at most `largest` as there must be, of like size."""
    parts = 1 if largest is None else -(-count // largest)
    bounds = [count * part // parts for part in range(parts + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(bounds)]
