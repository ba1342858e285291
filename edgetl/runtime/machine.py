"""The machine a run was made on, as the run remembers it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from edgetl.runtime import process, sessions


@dataclass(frozen=True)
class Machine:
    """A machine and what ran on it.

    Attributes:
        processor: the board's name where it has one (a Raspberry Pi's), else the processor's.
        cores: those that the process may use.
        memory_mb: installed memory, 10^6 bytes; None where the system does not tell.
        onnxruntime: the installed distribution and its version.
    """

    processor: str
    architecture: str
    cores: int
    memory_mb: float | None
    platform: str
    python: str
    onnxruntime: str


def this_machine() -> Machine:
    """Describe the machine and environment of this process."""
    found = (f"{name} {importlib.metadata.version(name)}" for name in sessions.installed_distributions())
    return Machine(
        processor=_processor(),
        architecture=platform.machine(),
        cores=process.available_cores(),
        memory_mb=memory_mb(),
        platform=platform.platform(),
        python=platform.python_version(),
        onnxruntime=", ".join(found),
    )


def memory_mb() -> float | None:
    """Return the installed memory in 10^6 bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    except (AttributeError, ValueError, OSError):
        return None


def _processor() -> str:
    board = _text("/proc/device-tree/model").strip("\x00 \n")
    names = (line.partition(":")[2].strip() for line in _text("/proc/cpuinfo").splitlines() if "model name" in line)
    return board or next(names, "") or platform.processor() or platform.machine()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
