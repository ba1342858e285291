"""rollback(): back to what `push` replaced, here or on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetl.errors import RemoteError
from edgetl.remote.destination import parse_destination
from edgetl.remote.ssh import shell


@dataclass(frozen=True)
class RollbackResult:
    """What was switched.

    Attributes:
        destination: `[user@]host:path`, or a path on this machine.
        version: what is there now: SHA-256 of a file, else as in `PushResult`.
        previous: what was there, and what the next rollback returns to.
    """

    destination: str
    version: str
    previous: str


def rollback(destination: str, *, ssh_options: Sequence[str] = ()) -> RollbackResult:
    """Switch to the previous version, in one step; called again, it returns to the newer one.

    Args:
        destination: `[user@]host:path`, or a path on this machine.
        ssh_options: `KEY=VALUE` each, as in ssh_config(5).

    Raises:
        RemoteError: there is no previous version, or the machine cannot be reached or refuses.
    """
    place = parse_destination(destination)
    if not place.name:
        raise RemoteError(f"{destination!r} ends in /: name the file or directory itself")
    with shell(place, ["rollback.sh"], ssh_options=ssh_options) as there:
        outcome = next(rest for word, rest in there.answers(last="done") if word == "done")
    version, _, previous = outcome.partition(" ")
    return RollbackResult(str(place), version, previous)
