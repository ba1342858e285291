"""Files that are either whole or not there: write aside, flush, rename; and locks that die with their holder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from edgetl.errors import EdgetlError, RunError

if os.name == "nt":
    import msvcrt
else:
    import fcntl


_PARTIAL = ".partial"
_OURS, _OLD = ".edgetl-", "old-"
_ASIDE = re.compile(rf"{re.escape(_OURS)}({_OLD})?[a-z0-9_]{{8}}{re.escape(_PARTIAL)}")
"""Names of what is being written, or replaced: nobody else gives them."""

# what zipfile, zlib and numpy's parser of headers raise on damaged .npz files
UNREADABLE_NPZ = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, NotImplementedError, RuntimeError),
    *(SyntaxError, MemoryError, OverflowError, struct.error, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error),
)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as a hexadecimal string, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place when the block succeeds.

    A reader sees the old file or the new one, never a part; when the block fails nothing is left.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_beside(path.parent)
        with contextlib.ExitStack() as stack:
            aside = _new_aside(stack, path.parent, tempfile.mkstemp, _unlink)
            yield aside
            _flush(aside)
            aside.chmod(0o666 & ~_umask())
            os.replace(aside, path)
            _flush(path.parent)


@contextlib.contextmanager
def temporary_directory(*, for_libraries: bool = False) -> Iterator[Path]:
    """Yield an empty directory in the system's folder for such; it is removed with the block, or by the next of these.

    Args:
        for_libraries: whether what others put into temporary places during the block goes there, too.
    """
    parent = Path(tempfile.gettempdir())
    sweep_beside(parent)
    with _directory_aside(parent) as directory:
        if not for_libraries:
            yield directory
            return
        before, tempfile.tempdir = tempfile.tempdir, str(directory)
        try:
            yield directory
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def _directory_aside(parent: Path, kind: str = "") -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        yield _new_aside(stack, parent, _made_directory, partial(shutil.rmtree, ignore_errors=True), kind)


def _made_directory(prefix: str, suffix: str, dir: Path) -> tuple[int, str]:
    while True:
        name = tempfile.mkdtemp(suffix, prefix, dir)
        if os.name == "nt":
            return -1, name
        with contextlib.suppress(FileNotFoundError):  # a sweeper came before the lock
            return os.open(name, os.O_RDONLY), name


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _new_aside(
    stack: contextlib.ExitStack,
    directory: Path,
    make: Callable[..., tuple[int, str]],
    remove: Callable[[Path], None],
    kind: str = "",
) -> Path:
    """Make a file or directory with a name of ours, which the stack removes.

    It is locked, which tells sweepers that its writer lives.
    """
    while True:
        handle, name = make(prefix=f"{_OURS}{kind}", suffix=_PARTIAL, dir=directory)
        path = Path(name)
        if os.name == "nt":  # where nothing renames an open file, and nothing removes one
            if handle >= 0:
                os.close(handle)
            stack.callback(remove, path)
            return path
        try:
            free = _try_lock(handle)
        except OSError:  # there are no locks here, and so no sweeper removes it
            free = True
        # one may have come between, and then it holds the lock or has removed the name
        if free and os.path.lexists(path):
            stack.callback(os.close, handle)
            stack.callback(remove, path)
            return path
        os.close(handle)


UNINTERRUPTED = frozenset({_new_aside.__code__})
"""Functions that an interruption from outside should let end: what they make is not known to anybody yet."""


def sweep_beside(directory: Path) -> None:
    """Remove from a directory what writers of ours that died have left there: names that only they give, and no lock.

    A directory that was to be replaced by another takes its name again, if that was never given.
    """
    if os.name == "nt":
        return
    try:
        with os.scandir(directory) as entries:
            found = [Path(entry.path) for entry in entries if _ASIDE.fullmatch(entry.name)]
    except OSError:
        return
    for path in found:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if os.fstat(handle).st_uid == os.getuid() and _try_lock(handle):
                    _remove(path)
            finally:
                os.close(handle)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if path.name.startswith(f"{_OURS}{_OLD}"):
        for old in path.iterdir():
            if not os.path.lexists(path.parent / old.name):
                old.rename(path.parent / old.name)
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of the block name `path`, where it names no file: a write that fails does not know its file's."""
    try:
        yield
    except OSError as error:
        if error.filename is None or _PARTIAL in str(error.filename):
            error.filename = str(path)
        raise


def sweep(directory: Path) -> None:
    """Remove what writers that died left unfinished in a directory and below."""
    for file in directory.rglob(f".*{_PARTIAL}"):
        with contextlib.suppress(OSError), open(file, "rb") as stream:
            if _try_lock(stream.fileno()):
                file.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves the old content or the new."""
    with written_aside(path) as aside:
        aside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` so that a crash leaves the old content or the new.

    Bytes of file names that are no UTF-8 become escapes such as `\\udcff`, which JSON reads back.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def directory_built_aside(path: Path, *, force: bool, marker: str) -> Iterator[Path]:
    """Yield an empty directory beside `path`; move it to `path` when the block succeeds.

    An existing directory is replaced only with `force`, and only if it is empty or holds `marker`
    (the file that shows that edgetl wrote it), so that a mistyped path costs nobody their files.

    Raises:
        EdgetlError: `path` is in the way.
    """
    refuse_existing(path, force=force, marker=marker)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_beside(path.parent)
        with _directory_aside(path.parent) as aside:
            yield aside
            for file in aside.rglob("*"):
                if file.is_file():
                    _flush(file)
            aside.chmod(0o777 & ~_umask())
            # another process may have come first
            refuse_existing(path, force=force, marker=marker)
            try:
                with _removed(path):
                    aside.rename(path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise
                raise EdgetlError(
                    f"another process wrote {path} meanwhile: repeat the command if yours shall stay"
                ) from None
            _flush(path.parent)


def is_aside(path: Path) -> bool:
    """Return whether a path lies in what is being written or replaced, or is that itself."""
    return any(_ASIDE.fullmatch(part) for part in path.parts)


def refuse_existing(
    path: Path, *, force: bool, marker: str, hint: str = "add --force", besides: Collection[str] = ()
) -> None:
    """Raise EdgetlError if `path` exists and may not be replaced (see `directory_built_aside`).

    A directory that holds nothing `besides` files of these names, or what is being written, counts as empty.
    """
    if path.is_dir() and all(e.name in besides or _ASIDE.fullmatch(e.name) for e in path.iterdir()):
        return
    if not os.path.lexists(path):
        return
    if not (path / marker).is_file():
        raise EdgetlError(
            f"{path} was not written by edgetl (it holds no {marker}), so that not even --force replaces it: "
            "choose another --out"
        )
    if not force:
        raise EdgetlError(f"{path} exists already: choose another --out, or {hint}")


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    """Take a directory, if it is there, out of the way of the block; remove it afterwards, or put it back."""
    with _directory_aside(path.parent, _OLD) as doomed:
        with contextlib.suppress(FileNotFoundError):
            path.rename(doomed / path.name)
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # there was none, or another process has put one there
                (doomed / path.name).rename(path)
            raise


@contextlib.contextmanager
def locked(path: Path, what: str, *, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if missing) during the block.

    The operating system releases the lock when its holder dies, so none is ever left behind.

    Args:
        what: what the lock protects, for the message.
        on_wait: called with a sentence before waiting for another process; without it a lock that
            is held raises.

    Raises:
        RunError: another process holds the lock and `on_wait` is None; or the file system has no locks.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - closed by the next line's block
    with file:
        try:
            free = _try_lock(file.fileno())
        except OSError as error:
            raise RunError(
                f"{what} cannot be locked ({error.strerror}): choose a directory on another file system"
            ) from None
        if not free:
            file.seek(0)
            holder = file.read().strip() or "another process"
            sentence = f"{what} is in use by {holder}"
            if on_wait is None:
                raise RunError(f"{sentence}: wait until it has finished, or choose another directory")
            on_wait(f"{sentence}; waiting for it")
            _wait_lock(file.fileno())
        file.truncate(0)
        # who holds it is for people; a full disk shall not keep them from what needs no space
        with contextlib.suppress(OSError):
            os.write(file.fileno(), f"process {os.getpid()}\n".encode("ascii"))
        try:
            yield
        finally:
            file.truncate(0)


def _try_lock(descriptor: int) -> bool:
    """Take an exclusive lock, and return whether it was free.

    Raises:
        OSError: there are no locks here.
    """
    try:
        if os.name == "nt":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _wait_lock(descriptor: int) -> None:
    if os.name == "nt":
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _flush(path: Path) -> None:
    """Ask the operating system to put a file's (or, where it can, a directory's) content on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
