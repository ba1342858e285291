"""examine(): what this machine is, and which parts of the work it can do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetl import __version__
from edgetl.engines.registry import resolve_engine, specs
from edgetl.errors import EngineError
from edgetl.runtime import process, sessions
from edgetl.runtime.machine import memory_mb


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
        extras: edgetl's optional parts by their names, as its own metadata list them, and what each lacks here.
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
    extras: dict[str, Ability]


def examine() -> Health:
    """Look at this machine and this environment; nothing is changed."""
    found = {name: importlib.metadata.version(name) for name in sessions.installed_distributions()}
    problem: str | None = None
    providers: tuple[str, ...] = ()
    engine: str | None = None
    try:
        providers = tuple(sessions.import_onnxruntime().get_available_providers())
        engine = resolve_engine("auto")
    except EngineError as error:
        problem = str(error)
    reason = problem or specs()[str(engine)].why_installed()
    return Health(
        edgetl_version=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        machine=platform.machine(),
        cores=process.available_cores(),
        memory_mb=memory_mb(),
        distributions=found,
        problem=problem,
        providers=providers,
        engine=engine,
        engine_reason=reason,
        prepare=_can_prepare(engine),
        finetune=Ability(engine is not None, f"engine {engine}" if engine else reason),
        deploy=_needs(engine is not None, ("onnx",), reason),
        extras=_extras(),
    )


def _extras() -> dict[str, Ability]:
    """Compare what is installed with the requirements of each extra."""
    try:
        metadata = importlib.metadata.metadata("edgetl")
        requirements = importlib.metadata.requires("edgetl") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return {}
    needed: dict[str, list[str]] = {name: [] for name in metadata.get_all("Provides-Extra") or ()}
    for text in requirements:
        package, _, marker = text.partition(";")
        found = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
        if found and found[1] in needed and _applies(marker, found[1]):
            needed[found[1]].append(package.strip())
    return {extra: _extra(extra, needed) for extra in needed}


def _applies(marker: str, extra: str) -> bool:
    """Return whether a requirement counts on this system; onnxruntime brings what reads its marker."""
    try:
        from packaging.markers import Marker
    except ImportError:
        return True
    return Marker(marker).evaluate({"extra": extra})


def _extra(extra: str, needed: Mapping[str, Sequence[str]]) -> Ability:
    lacking, present = [], []
    for name in _packages(extra, needed, set()):
        try:
            present.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            others = sessions.installed_distributions() if name.startswith("onnxruntime") else ()
            lacking.append(f"{name} (in whose place {others[0]} is)" if others else name)
    if not lacking:
        return Ability(True, ", ".join(present) or "nothing more")
    how = f"pip install 'edgetl[{extra}]'"
    if any("in whose place" in name for name in lacking):
        how = f"in a fresh environment, {how}"
    return Ability(False, f"lacks {', '.join(lacking)}: {how}")


def _packages(extra: str, needed: Mapping[str, Sequence[str]], seen: set[str]) -> dict[str, None]:
    """Return the packages of an extra and of the extras that it names, each once."""
    packages: dict[str, None] = {}
    seen.add(extra)
    for requirement in needed.get(extra, ()):
        name, of = re.fullmatch(r"([\w.-]+)\s*(?:\[([^\]]*)\])?.*", requirement, re.S).groups()  # type: ignore[union-attr]
        if name != "edgetl":
            packages[name] = None
            continue
        for other in (item.strip() for item in (of or "").split(",")):
            if other not in seen:
                packages |= _packages(other, needed, seen)
    return packages


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
