"""What an engine is, before one is opened: whether it is here, what it can train, what it takes, and how it opens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetl.artifacts import Artifacts, GraphMemory, Manifest
from edgetl.engines.base import Engine
from edgetl.events import OnEvent
from edgetl.optimizers.registry import Optimizer
from edgetl.runtime.providers import Provider

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ProcessMemory:
    """What a process takes: itself, and multiples of what its graphs hold (benchmarks/memory_plan.py --fit).

    Attributes:
        base_mb: 10^6 bytes, interpreter and libraries included.
        fixed: of the weights of a frozen part, or of the parameters that train, with their state, gradients and
            checkpoints.
        samples: of the values of all samples that are computed at once; `one_sample` of those of one.
        thousand_nodes: 10^6 bytes.
    """

    base_mb: float
    fixed: float
    samples: float
    one_sample: float = 0.0
    thousand_nodes: float = 0.0


@dataclass(frozen=True)
class EngineSpec(ABC):
    """One engine.

    Attributes:
        name: as `--engine` takes it, and as manifests list it.
        features, training: what a process takes that computes features, and one that trains.
    """

    name: str
    features: ProcessMemory
    training: ProcessMemory

    @abstractmethod
    def why_missing(self) -> str | None:
        """Return why it cannot be used in this environment, and what to do, as a sentence; None if it can."""

    @abstractmethod
    def why_installed(self) -> str:
        """Return what it runs on here, as a phrase."""

    @abstractmethod
    def lacks(self, optimizer: Optimizer) -> str | None:
        """Return why it cannot compute an optimizer, and what to do, as a sentence; None if it can."""

    @abstractmethod
    def step_memory(self, manifest: Manifest) -> GraphMemory | None:
        """Return what a step holds; None where it cannot train, or where the directory does not say."""

    @abstractmethod
    def open(
        self,
        artifacts: Artifacts,
        state: bytes | None,
        *,
        threads: int,
        initial: Mapping[str, NDArray[np.float32]],
        optimizer: Optimizer,
        micro_batch: int | None,
        provider: Provider,
        on_event: OnEvent,
    ) -> Engine:
        """Open it; see `edgetl.engines.registry.open_engine`."""
