"""Engines run the training graph; everything else knows only `Engine` and `open_engine`."""

from __future__ import annotations

from edgetl.artifacts import Artifacts
from edgetl.engines.base import Engine
from edgetl.errors import EngineError
from edgetl.runtime import import_onnxruntime, installed_distributions

__all__ = ["ENGINES", "Engine", "open_engine", "resolve_engine"]

ENGINES = ("auto", "ort-training")


def resolve_engine(name: str) -> str:
    """Return the engine that `name` (perhaps `auto`) means on this machine.

    Raises:
        EngineError: there is no such engine, or it is not installed here.
    """
    if name not in ENGINES:
        raise EngineError(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
    import_onnxruntime()
    if not any(found.startswith("onnxruntime-training") for found in installed_distributions()):
        others = ", ".join(installed_distributions())
        raise EngineError(
            "no training engine is installed"
            + (f" ({others} runs models but does not train them)" if others else "")
            + ": in a fresh environment, pip install 'edgetl[ort-training]'"
        )
    return "ort-training"


def open_engine(name: str, artifacts: Artifacts, state: bytes | None = None, *, threads: int) -> Engine:
    """Open an engine at the artifacts' initial parameters, or where `state` (from `Engine.state`) left off.

    Raises:
        EngineError: the engine is not installed, or cannot read the artifacts or the state.
    """
    resolve_engine(name)
    from edgetl.engines.ort_training import OrtTrainingEngine

    return OrtTrainingEngine(artifacts, state, threads=threads)
