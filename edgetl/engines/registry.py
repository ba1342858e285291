"""Engines run the training graph; everything else knows only `Engine` and `open_engine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgetl.artifacts import Artifacts
from edgetl.engines.base import Engine, choose_micro_batch, step_threads
from edgetl.engines.spec import EngineSpec
from edgetl.errors import EngineError
from edgetl.events import OnEvent, ignore
from edgetl.optimizers.registry import Optimizer
from edgetl.runtime.providers import Provider
from edgetl.runtime.sessions import import_onnxruntime
from edgetl.shared_settings import ENGINES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Engine", "choose_micro_batch", "open_engine", "resolve_engine", "specs", "step_threads"]


def specs() -> Mapping[str, EngineSpec]:
    """Return all engines by name, the one that `auto` prefers first."""
    from edgetl.engines.ort_training import ORT_TRAINING
    from edgetl.engines.portable import PORTABLE

    return {spec.name: spec for spec in (ORT_TRAINING, PORTABLE)}


def resolve_engine(name: str, optimizer: Optimizer | None = None) -> str:
    """Return the engine that `name` means on this machine.

    `auto` is the first that is installed and has the optimizer: onnxruntime-training, or else the portable engine.

    Raises:
        EngineError: there is no such engine, it is not installed here, or it lacks the optimizer.
    """
    if name not in ENGINES:
        raise EngineError(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
    import_onnxruntime()
    why = None
    for spec in specs().values():
        if name in ("auto", spec.name):
            why = spec.why_missing() or (spec.lacks(optimizer) if optimizer is not None else None)
            if why is None:
                return spec.name
    raise EngineError(why)


def open_engine(
    name: str,
    artifacts: Artifacts,
    state: bytes | None = None,
    *,
    threads: int,
    initial: Mapping[str, NDArray[np.float32]] | None = None,
    optimizer: Optimizer | None = None,
    micro_batch: int | None = None,
    provider: Provider | None = None,
    on_event: OnEvent = ignore,
) -> Engine:
    """Open an engine at the artifacts' initial parameters, or where `state` (from `Engine.state`) left off.

    Args:
        initial: parameters to begin with in the place of the artifacts'; only without `state`.
        optimizer: default the manifest's.
        micro_batch: most samples to compute at once; larger batches are computed in parts whose
            gradients are added up, which gives the same step in less memory.
        provider: where the training step shall run; where it refuses the step, the CPU runs it, and a
            note and `Engine.placement` say so.

    Raises:
        EngineError: the engine is not installed, cannot train these artifacts, or cannot read them or the state.
    """
    optimizer = optimizer or artifacts.manifest.optimizer
    name = resolve_engine(name, optimizer)
    if name not in artifacts.manifest.engines:
        raise EngineError(
            f"{artifacts.path} cannot be trained by the engine {name!r}, only by "
            f"{', '.join(artifacts.manifest.engines)}: install that one, or let another share of the network train"
        )
    return specs()[name].open(
        artifacts,
        state,
        threads=threads,
        initial=initial or {},
        optimizer=optimizer,
        micro_batch=micro_batch,
        provider=provider or Provider(),
        on_event=on_event,
    )
