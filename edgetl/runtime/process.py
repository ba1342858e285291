"""This process: the cores and the memory that it may use, and work on several threads."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from edgetl.events import Note, OnEvent, ignore

T = TypeVar("T")
R = TypeVar("R")


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
