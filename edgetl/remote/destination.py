"""Where something is: `[user@]host:path`, or a path on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgetl.errors import RemoteError

# ssh puts host and user into commands of its configuration (ProxyCommand), so nothing a shell would act on
_HOST = re.compile(r"(?!-)(?:[\w.+@-]+@)?(?!-)[\w.:%-]+")


@dataclass(frozen=True)
class Destination:
    """A name in a directory.

    Attributes:
        host: `host` or `user@host` as ssh takes it; None for this machine.
        parent: the directory: absolute, or beginning with `./`, there the home directory (here, the
            working directory).
        name: the last part of the path; empty if the path ended in `/`, which means: in that directory.
    """

    host: str | None
    parent: str
    name: str

    def __str__(self) -> str:
        path = f"{self.parent.rstrip('/')}/{self.name}".removeprefix("./")
        return path if self.host is None else f"{_bracketed(self.host)}:{path}"

    def named(self, name: str) -> Destination:
        """Return it with `name`, if it has none of its own."""
        return self if self.name else Destination(self.host, self.parent, name)


def parse_destination(text: str) -> Destination:
    """Read `[user@]host:path`, `[user@][address]:path` for an IPv6 address, or a path.

    As for scp, what has a colon before its first slash is on another machine.

    Raises:
        RemoteError: the host's name cannot be one, or the path names nothing.
    """
    if text.startswith("ssh://"):
        raise RemoteError(f"{text!r} is a URL: write [user@]host:path")
    host, path = _split(text)
    if host is not None:
        host = parse_host(host)
        if path.startswith("~/"):
            path = path[2:].lstrip("/") or "./"
        if path.startswith("~"):
            raise RemoteError(f"{text!r}: the home of another user is not looked up: write its path, or ./{path}")
    if not path or "\0" in path:
        raise RemoteError(f"{text!r} names no file or directory: write [user@]host:path")
    parent, _, name = path.rpartition("/")
    if name in (".", ".."):
        raise RemoteError(f"{text!r} ends in {name!r}: give it a name of its own, or end it with / to put it inside")
    if path.startswith("/"):
        return Destination(host, parent or "/", name)
    return Destination(host, f"./{parent}" if parent else ".", name)


def parse_host(text: str) -> str:
    """Return `[user@]host` as ssh takes it; an IPv6 address may stand in brackets.

    Raises:
        RemoteError: it cannot be a host's name; one that begins with `-` would be an option of ssh.
    """
    user, at, host = text.rpartition("@")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not _HOST.fullmatch(f"{user}{at}{host}"):
        raise RemoteError(
            f"{text!r} cannot be a host: write a name, an address or an alias of ssh's configuration, with user@ if "
            "the user is another"
        )
    return f"{user}{at}{host}"


def _split(text: str) -> tuple[str | None, str]:
    bracketed = re.match(r"([^/\[\]]*\[[^/\[\]]*\]):(.*)", text, re.DOTALL)
    if bracketed:
        return bracketed[1], bracketed[2]
    head, colon, rest = text.partition(":")
    return (head, rest) if colon and "/" not in head else (None, text)


def _bracketed(host: str) -> str:
    user, at, address = host.rpartition("@")
    return f"{user}{at}[{address}]" if ":" in address else host
