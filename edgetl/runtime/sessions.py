"""ONNX Runtime as it is installed here: which distribution, how it is imported, and sessions."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgetl.errors import EngineError, OutOfMemoryError, first_line
from edgetl.files.external_data import refuse_external_data_elsewhere
from edgetl.files.unfolding import refuse_unfolding

if TYPE_CHECKING:
    import onnxruntime

T = TypeVar("T")
R = TypeVar("R")

_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
"""From 1.29 on, onnxruntime's packages for Linux and macOS send what they run to Microsoft, unless one of these is set
before it is imported; which one depends on the version (its docs/Privacy.md)."""

INSTALL_HINT = "pip install 'edgetl[device]'"
_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-training-cpu",
    "onnxruntime-training",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
    "onnxruntime-webgpu",
)


@functools.cache
def installed_distributions() -> tuple[str, ...]:
    """Return the installed packages that all provide the module `onnxruntime`."""
    found = []
    for name in _DISTRIBUTIONS:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return tuple(found)


def import_onnxruntime() -> Any:
    """Import onnxruntime, without its telemetry.

    Raises:
        EngineError: it is not installed, is broken, or two distributions lie over each other.
    """
    distributions = installed_distributions()
    if len(distributions) > 1:
        names = " and ".join(distributions)
        raise EngineError(
            f"{names} are both installed and overwrite each other's files: "
            f"pip uninstall -y {' '.join(distributions)}, then {INSTALL_HINT}"
        )
    for variable in _NO_TELEMETRY:
        os.environ.setdefault(variable, "1")
    try:
        with without_training_package():
            import onnxruntime
    except ImportError as error:
        if not distributions:
            raise EngineError(f"onnxruntime is not installed: {INSTALL_HINT}") from None
        raise EngineError(
            f"{distributions[0]} is installed but does not load ({error}): "
            f"pip uninstall -y {distributions[0]}, then {INSTALL_HINT}"
        ) from None
    return onnxruntime


@contextlib.contextmanager
def without_training_package(path: Sequence[str] = ()) -> Iterator[None]:
    """Let nothing in the block import `onnxruntime.training` as a whole: that imports onnx, and torch where it is.

    Python runs a parent package before its submodules; an empty module takes the parent's place, unless the real one
    is loaded already. `import onnxruntime` looks for the package, but goes on without.

    Args:
        path: where submodules are found; empty for none.
    """
    parent = "onnxruntime.training"
    if parent in sys.modules:
        yield
        return
    stand_in = types.ModuleType(parent)
    stand_in.__path__ = list(path)
    sys.modules[parent] = stand_in
    try:
        yield
    finally:
        # whoever imports the real package later shall get it
        del sys.modules[parent]


def session_options(
    threads: int, *, training: bool = False, optimize: bool = True, saturate: bool = False
) -> onnxruntime.SessionOptions:
    """Return options for a session that computes each call with `threads` threads.

    Args:
        training: results are the same at every run, and memory is not planned in one piece.
        optimize: without it the graph runs as it stands, node by node.
        saturate: products of unsigned and signed bytes may saturate in 16 bits, where kernels of this processor do
            so, as they do by default in other programs.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if training:
        options.use_deterministic_compute = True
        # a plan of all buffers in one piece, made anew for each size of batch, takes a third to a half more memory
        options.enable_mem_pattern = False
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not saturate:
        # read by x86-64 processors without VNNI alone: signed weights become unsigned ones of the same values
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def open_session(
    model: Path | bytes,
    *,
    threads: int = 1,
    optimize: bool = True,
    saturate: bool = False,
    keep_memory: bool = True,
) -> onnxruntime.InferenceSession:
    """Open an inference session on the CPU; see `session_options`.

    Args:
        keep_memory: whether memory is taken in large pieces and kept from run to run.
    """
    options, ort = session_options(threads, optimize=optimize, saturate=saturate), import_onnxruntime()
    if not keep_memory:
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    return ort.InferenceSession(session_source(model), options, providers=["CPUExecutionProvider"])


def session_source(model: Path | bytes) -> str | bytes:
    """Return a model as `InferenceSession` takes it.

    Raises:
        EngineError: a path that is no UTF-8, which it does not take; or weights outside of the model's directory.
        EngineError: it would grow beyond all bounds.
    """
    if isinstance(model, bytes):
        return model
    source = utf8_path(model)
    refuse_external_data_elsewhere(model)
    refuse_unfolding(model)
    return source


def utf8_path(model: Path) -> str:
    """Return a path as onnxruntime takes it.

    Raises:
        EngineError: it is no UTF-8.
    """
    source = os.fspath(model)
    try:
        source.encode()
    except UnicodeEncodeError:
        raise EngineError(f"onnxruntime cannot open {source}, because its path is not UTF-8: rename it") from None
    return source


_NO_MEMORY = ("bad_alloc", "bad allocation", "AllocateRawInternal", "Failed to allocate memory")


def lacks_memory(error: BaseException | None) -> bool:
    """Return whether an exception, of Python or of a library, says that there was not enough memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


def failed(what: str, error: Exception) -> EngineError:
    """Return our error for one that onnxruntime raised while it opened or ran something."""
    if lacks_memory(error):
        return OutOfMemoryError(f"there was not enough memory for {what}")
    return EngineError(f"onnxruntime cannot run {what} ({first_line(error)})")
