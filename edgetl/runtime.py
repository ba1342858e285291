"""ONNX Runtime as it is installed here: which distribution, sessions, cores, and this process's memory."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgetl.errors import EngineError, OutOfMemoryError, first_line
from edgetl.events import Note, OnEvent, ignore
from edgetl.external_data import refuse_external_data_elsewhere
from edgetl.unfolding import refuse_unfolding

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


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_threads(wanted: int | None, on_event: OnEvent = ignore) -> int:
    """Return how many threads compute: as many as wanted, but no more than there are cores, which is told."""
    cores = available_cores()
    if wanted is not None and wanted > cores:
        on_event(Note(f"{wanted} threads are more than the cores that may be used: {cores} compute"))
    return min(wanted or cores, cores)


def available_memory_mb(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how much memory this process could still take, 10^6 bytes; None where the system does not tell.

    What the system has free, or a control group of this process allows, whichever is less.
    """
    found = [limit - used for limit, used in _control_groups(proc, cgroups)]
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    return max(min(found), 0) / 1e6 if found else None


def memory_limit_mb(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how much this process may hold altogether, 10^6 bytes, where a control group sets a limit, else None."""
    total = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        total = int((proc / "meminfo").read_text(encoding="ascii").split()[1]) * 1024
    own = rss_mb(proc) * 1e6  # a part of what is used
    groups = [group for group in _control_groups(proc, cgroups) if total is None or group[0] < total]
    return min(max(min(limit, limit - used + own), 0) for limit, used in groups) / 1e6 if groups else None


def address_space_mb() -> float | None:
    """Return the limit of this process's address space (ulimit -v), 10^6 bytes; None if there is none."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit / 1e6


def rss_mb(proc: Path = Path("/proc")) -> float:
    """Return the resident memory of this process, 10^6 bytes; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int((proc / "self" / "statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def _control_groups(proc: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, bytes, of each control group above this process that limits memory (cgroups(7), both versions)."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root, limit_file, use_file = cgroups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit_file, use_file = cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.strip("/")
        # a container may see its own group as the root, whatever it is called outside
        for directory in (group, *group.parents) if group.is_dir() else (root,):
            with contextlib.suppress(OSError, ValueError):
                limit = int((directory / limit_file).read_text(encoding="ascii"))
                used = int((directory / use_file).read_text(encoding="ascii"))
                yield limit, used - _cached(directory / "memory.stat")
            if directory == root:
                break


def _cached(statistics: Path) -> int:
    """Bytes of files that a control group holds and gives up when asked for memory."""
    with contextlib.suppress(OSError, ValueError):
        for line in statistics.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def map_in_order(function: Callable[[T], R], items: Iterable[T], *, threads: int) -> Iterator[R]:
    """Apply `function` to `items` on `threads` threads; yield the results in the order of the items.

    Unlike `Executor.map`, no more than a few items are in flight, so that memory does not grow with
    their number.
    """
    from collections import deque
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def return_memory() -> None:
    """Give freed memory back to the operating system, where the C library (glibc) keeps it otherwise."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_rss_mb() -> float:
    """Return the largest resident memory this process has had, in MB (10^6 bytes)."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                # ru_maxrss would do, but survives exec: it may be a parent's
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    if sys.platform == "win32":
        return float("nan")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
