"""examine(): what this machine is, and which parts of the work it can do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass

from edgetl import __version__, runtime
from edgetl.engines import resolve_engine
from edgetl.errors import EngineError
from edgetl.machine import memory_mb


@dataclass(frozen=True)
class Ability:
    """Whether a command can work here; `why` names what it would use, or what is missing and how to get it."""

    works: bool
    why: str


@dataclass(frozen=True)
class Health:
    """What `edgetl doctor` reports.

    Attributes:
        memory_mb: installed memory, 10^6 bytes; None where the system does not tell.
        distributions: installed packages that provide the module `onnxruntime`, with their versions.
        problem: what is broken and how to mend it; None if nothing is.
        providers: execution providers of the installed onnxruntime, best first.
        engine: what `--engine auto` takes; None if nothing can train.
    """

    edgetl_version: str
    python: str
    platform: str
    machine: str
    cores: int
    memory_mb: float | None
    distributions: dict[str, str]
    problem: str | None
    providers: tuple[str, ...]
    engine: str | None
    engine_reason: str
    prepare: Ability
    finetune: Ability
    deploy: Ability


def examine() -> Health:
    """Look at this machine and this environment; nothing is changed."""
    found = {name: importlib.metadata.version(name) for name in runtime.installed_distributions()}
    problem: str | None = None
    providers: tuple[str, ...] = ()
    engine: str | None = None
    try:
        providers = tuple(runtime.import_onnxruntime().get_available_providers())
        engine = resolve_engine("auto")
    except EngineError as error:
        problem = str(error)
    reason = problem or {
        "ort-training": "onnxruntime-training is installed",
        "portable": f"{' and '.join(found)} is installed, without onnxruntime-training",
    }.get(str(engine), "")
    return Health(
        edgetl_version=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        machine=platform.machine(),
        cores=runtime.available_cores(),
        memory_mb=memory_mb(),
        distributions=found,
        problem=problem,
        providers=providers,
        engine=engine,
        engine_reason=reason,
        prepare=_can_prepare(engine),
        finetune=Ability(engine is not None, f"engine {engine}" if engine else reason),
        deploy=_needs(engine is not None, ("onnx",), reason),
    )


def _can_prepare(engine: str | None) -> Ability:
    if engine != "ort-training":
        return Ability(False, "needs onnxruntime-training: in a fresh environment, pip install 'edgetl[prepare]'")
    return _needs(True, ("torch", "onnxscript", "onnx"), "")


def _needs(usable: bool, modules: tuple[str, ...], reason: str) -> Ability:
    if not usable:
        return Ability(False, reason)
    lacking = [name for name in modules if importlib.util.find_spec(name) is None]
    if lacking:
        return Ability(False, f"{' and '.join(lacking)} not installed: pip install 'edgetl[prepare]'")
    return Ability(True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in modules))
