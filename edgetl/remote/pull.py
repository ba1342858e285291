"""pull(): a run, a prepared directory or a file from another machine; whole, or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgetl import storage
from edgetl.errors import ArtifactsError, RemoteError
from edgetl.events import OnEvent, Stage, ignore
from edgetl.remote.destination import parse_destination
from edgetl.remote.ssh import Shell, shell


@dataclass(frozen=True)
class PullResult:
    """What is here now and what it took.

    Attributes:
        out: the file or directory that was written.
        kind: `artifacts`, `run` or `file`.
        changed: False if it was here already.
        files, bytes: all of them, and their size.
        received_files, received_bytes: those that were not here yet.
        seconds: from the call to the end.
    """

    out: str
    kind: str
    changed: bool
    files: int
    bytes: int
    received_files: int
    received_bytes: int
    seconds: float


@dataclass(frozen=True)
class _Listed:
    name: str
    sha256: str
    size: int


def pull(source: str, out: str | Path, *, ssh_options: Sequence[str] = (), on_event: OnEvent = ignore) -> PullResult:
    """Fetch a run, a prepared directory or a file over ssh; it takes its name here when it is whole.

    What is at `out` already is replaced, if it is of the same kind; of its files, those that did not change
    are not fetched.

    Args:
        source: `[user@]host:path`.
        out: the file or directory to write; one that ends in `/`, and for a file one that is a directory,
            is where to put it.
        ssh_options: `KEY=VALUE` each, as in ssh_config(5).

    Raises:
        EdgetlError: `out` is in the way.
        RemoteError: the machine cannot be reached, it has nothing of the kind, or what came is not whole.
    """
    started = time.monotonic()
    place = parse_destination(source)
    if place.host is None:
        raise RemoteError(f"{source!r} names no machine: write [user@]host:path")
    if not place.name:
        raise RemoteError(f"{source!r} ends in /: name the file or directory itself")
    into = str(out).endswith(("/", os.sep))
    out = Path(out)
    on_event(Stage(f"comparing with {place}"))
    with shell(place, ["pull.sh"], ssh_options=ssh_options) as there:
        told = list(there.answers(last="ready"))
        listed = [_listed(rest, source) for word, rest in told if word == "file"]
        if ("directory", "") in told:
            out = out / place.name if into else out
            kind, marker = _kind({file.name for file in listed}, source)
            if out.exists() and not (out / marker).is_file() and not (out.is_dir() and not any(out.iterdir())):
                raise RemoteError(f"{out} was not written by edgetl (it holds no {marker}): choose another OUT")
            received = _fetch_directory(there, listed, out, marker, on_event)
        else:
            kind = "file"
            out = out / place.name if into or out.is_dir() else out
            received = _fetch_file(there, listed[0], place.name, out, on_event)
    return PullResult(
        out=str(out),
        kind=kind,
        changed=received is not None,
        files=len(listed),
        bytes=sum(file.size for file in listed),
        received_files=len(received or ()),
        received_bytes=sum(file.size for file in received or ()),
        seconds=time.monotonic() - started,
    )


def _listed(text: str, source: str) -> _Listed:
    """Read a line of the listing; refuse names that would lead out of the directory."""
    try:
        sha256, digits, name = text.split(" ", 2)
        size = int(digits)
    except ValueError:
        raise RemoteError(f"{source} gives a listing that makes no sense ({text!r}): check the machine") from None
    pure = PurePosixPath(name)
    outside = pure.is_absolute() or not pure.parts or ".." in pure.parts
    if outside or (os.name == "nt" and ("\\" in name or ":" in name)):
        raise RemoteError(
            f"{source} lists the file {name!r}, which would lie outside of the directory: do not trust it"
        )
    return _Listed(name, sha256, size)


def _kind(names: set[str], source: str) -> tuple[str, str]:
    """Return what a directory is, and the file that shows it."""
    from edgetl.artifacts import MANIFEST
    from edgetl.run import ARGS

    for kind, marker in (("artifacts", MANIFEST), ("run", ARGS)):
        if marker in names:
            return kind, marker
    raise RemoteError(f"{source} is neither a prepared directory nor a run: name one of these, or a file")


def _fetch_directory(
    there: Shell, listed: Sequence[_Listed], out: Path, marker: str, on_event: OnEvent
) -> list[_Listed] | None:
    """Return the files that had to come; None if the directory is the same already."""
    from edgetl.belongings import own_names

    wanted = [file for file in listed if not _is_here(out / file.name, file)]
    gone = _names(out) - {file.name for file in listed}
    others = sorted(gone - own_names(out))
    if not wanted and len(gone) == len(others):
        return None
    if others:
        raise RemoteError(
            f"{out / others[0]} is not of what is pulled, and would be removed: move it to a place of its own, or "
            "choose another directory to pull to"
        )
    _ask(there, wanted)
    with storage.directory_built_aside(out, force=True, marker=marker) as aside:
        for file in listed:
            path = aside / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if file not in wanted:
                shutil.copyfile(out / file.name, path)
        for file in wanted:
            on_event(Stage(f"receiving {file.name} ({file.size / 1e6:.1f} MB)"))
            _receive(there, file, aside / file.name)
        _check(aside, marker, there)
    return wanted


def _check(directory: Path, marker: str, there: Shell) -> None:
    """Refuse a prepared directory that was incomplete or altered where it came from."""
    from edgetl.artifacts import MANIFEST, load_artifacts

    if marker == MANIFEST:
        try:
            load_artifacts(directory)
        except ArtifactsError as error:
            raise RemoteError(f"{there.place} is damaged there: {error}") from None


def _fetch_file(there: Shell, file: _Listed, name: str, out: Path, on_event: OnEvent) -> list[_Listed] | None:
    if _is_here(out, file):
        return None
    _ask(there, [file])
    on_event(Stage(f"receiving {name} ({file.size / 1e6:.1f} MB)"))
    with storage.written_aside(out) as aside:
        _receive(there, file, aside)
    return [file]


def _ask(there: Shell, files: Iterable[_Listed]) -> None:
    for file in files:
        there.send(os.fsencode(f"{file.name}\n"))
    there.send(b"\n")


def _receive(there: Shell, file: _Listed, path: Path) -> None:
    digest, left = hashlib.sha256(), file.size
    with open(path, "wb") as target:
        while left and (piece := there.read(min(left, 1 << 20))):
            digest.update(piece)
            target.write(piece)
            left -= len(piece)
    if left:
        raise RemoteError(
            f"{file.name} came in part: the connection to {there.place.host} was lost, or the file is being written "
            "there. Repeat the command; what is here stays as it was"
        )
    if digest.hexdigest() != file.sha256:
        raise RemoteError(
            f"{file.name} is not what {there.place.host} listed (its SHA-256 differs): repeat the command when nothing "
            "writes to it there; what is here stays as it was"
        )


def _is_here(path: Path, file: _Listed) -> bool:
    return path.is_file() and path.stat().st_size == file.size and storage.sha256_file(path) == file.sha256


def _names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
