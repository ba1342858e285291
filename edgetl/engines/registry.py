"""Engines run the training graph; everything else knows only `Engine` and `open_engine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgetl.artifacts import Artifacts
from edgetl.engines.base import Engine, choose_micro_batch, step_threads
from edgetl.errors import EngineError
from edgetl.events import OnEvent, ignore
from edgetl.optimizers.registry import Optimizer
from edgetl.runtime.providers import Provider
from edgetl.runtime.sessions import import_onnxruntime, installed_distributions
from edgetl.shared_settings import ENGINES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Engine", "choose_micro_batch", "open_engine", "resolve_engine", "step_threads"]


def resolve_engine(name: str) -> str:
    """Return the engine that `name` means on this machine.

    `auto` is onnxruntime-training where it is installed, and the portable engine on any other
    onnxruntime.

    Raises:
        EngineError: there is no such engine, or it is not installed here.
    """
    if name not in ENGINES:
        raise EngineError(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
    import_onnxruntime()
    has_training = any(found.startswith("onnxruntime-training") for found in installed_distributions())
    if name == "auto":
        return "ort-training" if has_training else "portable"
    if name == "ort-training" and not has_training:
        others = ", ".join(installed_distributions())
        raise EngineError(
            f"onnxruntime-training is not installed ({others} is): use --engine portable, "
            "or, in a fresh environment, pip install 'edgetl[ort-training]'"
        )
    return name


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
    name = resolve_engine(name)
    if name not in artifacts.manifest.engines:
        raise EngineError(
            f"{artifacts.path} cannot be trained by the engine {name!r}, only by "
            f"{', '.join(artifacts.manifest.engines)}: install that one, or let another share of the network train"
        )
    optimizer = optimizer or artifacts.manifest.optimizer
    if name == "portable":
        from edgetl.engines.portable import PortableEngine

        return PortableEngine(
            artifacts,
            state,
            threads=threads,
            initial=initial or {},
            optimizer=optimizer,
            micro_batch=micro_batch,
            provider=provider or Provider(),
            on_event=on_event,
        )
    from edgetl.engines.ort_training import OrtTrainingEngine

    return OrtTrainingEngine(
        artifacts, state, threads=threads, initial=initial or {}, optimizer=optimizer, micro_batch=micro_batch
    )
