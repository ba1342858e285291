"""Engines run the training graph; everything else knows only `Engine` and `open_engine`."""

from __future__ import annotations

from edgetl.artifacts import Artifacts
from edgetl.engines.base import Engine
from edgetl.errors import EngineError
from edgetl.runtime import import_onnxruntime, installed_distributions

__all__ = ["ENGINES", "Engine", "open_engine", "resolve_engine"]

ENGINES = ("auto", "ort-training", "portable")


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


def open_engine(name: str, artifacts: Artifacts, state: bytes | None = None, *, threads: int) -> Engine:
    """Open an engine at the artifacts' initial parameters, or where `state` (from `Engine.state`) left off.

    Raises:
        EngineError: the engine is not installed, cannot train these artifacts, or cannot read them or the state.
    """
    name = resolve_engine(name)
    if name not in artifacts.manifest.engines:
        raise EngineError(
            f"{artifacts.path} cannot be trained by the engine {name!r}, only by "
            f"{', '.join(artifacts.manifest.engines)}: install that one, or let another share of the network train"
        )
    if name == "portable":
        from edgetl.engines.portable import PortableEngine

        return PortableEngine(artifacts, state, threads=threads)
    from edgetl.engines.ort_training import OrtTrainingEngine

    return OrtTrainingEngine(artifacts, state, threads=threads)
