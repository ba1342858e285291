"""push(): a prepared directory, a run or a file to another machine; whole, or not there."""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.errors import DeployError, EngineError, RemoteError
from edgetl.events import Note, OnEvent, Stage, ignore
from edgetl.files import storage
from edgetl.remote.destination import parse_destination
from edgetl.remote.ssh import Shell, shell
from edgetl.suggest import similar_path

BLOCK = 65536
"""Bytes that `receive.sh` reads at once."""


@dataclass(frozen=True)
class PushResult:
    """What is there now and what it took.

    Attributes:
        destination: `[user@]host:path`, as resolved.
        kind: `artifacts`, `run` or `file`.
        version: SHA-256 of a file, of the manifest of a prepared directory, or of the list of a run's hashes.
        previous: what `rollback` would go back to, likewise; None if there is nothing.
        changed: False if it was there already.
        files, bytes: all of them, and their size.
        sent_files, sent_bytes: those that were not there yet.
        seconds: from the call to the end.
    """

    destination: str
    kind: str
    version: str
    previous: str | None
    changed: bool
    files: int
    bytes: int
    sent_files: int
    sent_bytes: int
    seconds: float


@dataclass(frozen=True)
class _Item:
    name: str
    path: Path
    sha256: str
    size: int


def push(
    source: str | Path,
    destination: str,
    *,
    beside: Sequence[str | Path] | None = None,
    ssh_options: Sequence[str] = (),
    on_event: OnEvent = ignore,
) -> PushResult:
    """Bring `source` to another machine over ssh, and switch to it in one step when all of it is there and whole.

    What the present version holds besides what was pushed is never hidden or removed: then this refuses.
    A directory becomes a symbolic link to `.NAME.versions/VERSION.TOKEN` beside it; the version before stays there.
    A file takes its name by a rename, and the one before is called `NAME.previous`. What is there already,
    or has arrived in an attempt that was cut, is not sent again.

    Args:
        source: a prepared directory, a run directory, or a file.
        destination: `[user@]host:path`; a path that ends in `/` is the directory to put it in.
        beside: of a file, others that belong to it; they keep their names, and are switched just before it.
            Default: the tokenizer that a deployed model names.
        ssh_options: `KEY=VALUE` each, as in ssh_config(5).

    Raises:
        ArtifactsError: the prepared directory is incomplete or altered; nothing was sent.
        RemoteError: the machine cannot be reached, or refuses; what it had, it still has.
    """
    started = time.monotonic()
    source = Path(source)
    place = parse_destination(destination)
    if place.host is None:
        raise RemoteError(f"{destination!r} names no machine: write [user@]host:path")
    place = place.named(Path(os.path.abspath(source)).name)  # noqa: PTH100 - a link gives its own name
    source = source.resolve()  # and its content as of now
    on_event(Stage("hashing"))
    if source.is_dir():
        if beside:
            raise RemoteError(
                f"{source} is a directory, and holds all that belongs to it: push other files by themselves"
            )
        kind, version, items = _directory(source)
        listed = [word for item in items for word in (item.sha256, item.name)]
        script, arguments = "push_directory.sh", [version, shlex.join((kind, *listed))]
    elif source.is_file():
        others = _named_by(source, on_event) if beside is None else [Path(path) for path in beside]
        kind, script, arguments = "file", "push_file.sh", []
        items = [*(_item(path.name, path) for path in others), _item(place.name, source)]
        version = items[-1].sha256
        if len({item.name for item in items}) < len(items) or any("\n" in item.name for item in items[:-1]):
            raise RemoteError(f"the files beside {source} need names of their own, without line breaks: rename them")
    else:
        raise RemoteError(f"{source} does not exist{similar_path(source)}: give a prepared directory, a run, or a file")
    for item in items:
        arguments += [item.sha256, item.name]

    on_event(Stage(f"comparing with {place}"))
    with shell(place, ["receive.sh", script], arguments, ssh_options) as there:
        wanted = {rest for word, rest in there.answers(last="ready") if word == "want"}
        sending = {item.sha256: item for item in items if item.sha256 in wanted}
        for item in sending.values():
            on_event(Stage(f"sending {item.name} ({item.size / 1e6:.1f} MB)"))
            _send(there, item)
        there.send(b"end\n")
        on_event(Stage("switching"))
        outcome = next(rest for word, rest in there.answers(last="done") if word == "done")
    result, _, previous = outcome.partition(" ")
    return PushResult(
        destination=str(place),
        kind=kind,
        version=version,
        previous=previous or None,
        changed=result == "switched",
        files=len(items),
        bytes=sum(item.size for item in items),
        sent_files=len(sending),
        sent_bytes=sum(item.size for item in sending.values()),
        seconds=time.monotonic() - started,
    )


def _directory(source: Path) -> tuple[str, str, list[_Item]]:
    """Return the kind, the hash of the whole and the files of a prepared directory or a run."""
    from edgetl.artifacts import MANIFEST, load_artifacts
    from edgetl.runs.run import ARGS

    if (source / MANIFEST).is_file():
        artifacts = load_artifacts(source)
        hashes = {**artifacts.manifest.files, MANIFEST: artifacts.sha256}
        items = [_Item(name, source / name, sha256, (source / name).stat().st_size) for name, sha256 in hashes.items()]
        return "artifacts", artifacts.sha256, items
    if not (source / ARGS).is_file():
        raise RemoteError(
            f"{source} is neither a prepared directory nor a run (it holds no {MANIFEST} and no {ARGS}): push one of "
            "these, or a file"
        )
    items = [_item(path.relative_to(source).as_posix(), path) for path in _files(source)]
    listing = "".join(f"{item.sha256}  {item.name}\n" for item in items)
    return "run", hashlib.sha256(os.fsencode(listing)).hexdigest(), items


def _files(directory: Path) -> list[Path]:
    """Return a run's files; not its lock, and not what is being written."""
    from edgetl.runs.run import LOCK

    found = []
    for entry in sorted(directory.iterdir()):
        if entry.name == LOCK or entry.name.endswith(".partial"):
            continue
        if entry.is_dir() and entry.is_symlink():
            raise RemoteError(f"{entry} is a symbolic link to a directory: put the directory itself there")
        found += _files(entry) if entry.is_dir() else [entry]
    return found


def _item(name: str, path: Path) -> _Item:
    if not path.is_file():
        raise RemoteError(f"{path} does not exist, or is no file: it belongs to what is to be pushed")
    return _Item(name, path, storage.sha256_file(path), path.stat().st_size)


def _named_by(model: Path, on_event: OnEvent) -> list[Path]:
    """Return the tokenizer that a deployed model needs beside it, if it names one."""
    if model.suffix != ".onnx":
        return []
    from edgetl.deployment.deployed import DeployedModel

    try:
        name = DeployedModel(model).provenance.get("tokenizer_file")
    except (DeployError, EngineError) as error:
        on_event(Note(f"pushed as it is, unexamined: {error}"))
        return []
    return [model.parent / Path(str(name)).name] if name else []


def _send(there: Shell, item: _Item) -> None:
    """Send a file, announced so that the other side reads its bytes and no more."""
    there.send(f"{item.sha256} {item.size // BLOCK} {item.size % BLOCK}\n".encode())
    digest, left = hashlib.sha256(), item.size
    with open(item.path, "rb") as file:
        while left and (piece := file.read(min(left, 1 << 20))):
            digest.update(piece)
            there.send(piece)
            left -= len(piece)
    if left or digest.hexdigest() != item.sha256:
        raise RemoteError(f"{item.path} changed while it was sent: repeat the command when nothing writes to it")
