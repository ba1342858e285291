"""The system's ssh, as a shell script's input and output on another machine.

No name or path is ever part of a command line there: a fixed command reads the script, with its
arguments quoted for a POSIX shell, from the connection. Which login shell reads the command does not
matter, and neither do limits on its length.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, NoReturn

from edgetl.errors import RemoteError
from edgetl.remote.destination import Destination

CONNECTION_FAILED = 255
"""ssh's own exit status for whatever is not the remote command's."""

_MARK = b"edgetl: "
_NOT_REASONS = re.compile(r"\d+\+\d+ records (in|out)|\d+ bytes .*|", re.DOTALL)


def ssh_command(host: str, command: str, options: Sequence[str] = (), *, terminal: bool = False) -> list[str]:
    """Return the arguments that run `command` on `host`.

    Args:
        options: `KEY=VALUE` each, as in ssh_config(5); they come before edgetl's own, and ssh takes the first.

    Raises:
        RemoteError: an option is not `KEY=VALUE`.
    """
    for option in options:
        if not re.fullmatch(r"[A-Za-z0-9]+=[^\0\r\n]*", option):
            raise RemoteError(f"{option!r} is no option of ssh: write KEY=VALUE, as in ssh_config(5)")
    own = [
        "ConnectTimeout=20",
        # a network that is gone without a word is noticed after a minute
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
        "ClearAllForwardings=yes",
        "PermitLocalCommand=no",
        "RemoteCommand=none",
        f"RequestTTY={'yes' if terminal else 'no'}",
    ]
    if not is_terminal(sys.stdin):
        own.append("BatchMode=yes")  # nobody is there to be asked for a password
    return ["ssh", *(part for option in (*options, *own) for part in ("-o", option)), "--", host, command]


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether a person is at the other end; a service may have no stream at all."""
    return stream is not None and not stream.closed and stream.isatty()


def start(command: Sequence[str], **streams: int | IO[bytes] | None) -> subprocess.Popen[bytes]:
    """Start a program.

    Raises:
        RemoteError: it is not installed.
    """
    try:
        return subprocess.Popen(command, **streams)  # type: ignore[call-overload,no-any-return]
    except FileNotFoundError:
        raise RemoteError(f"{command[0]} is not installed on this machine: install OpenSSH's client") from None


def failed_connection(host: str, reason: str) -> RemoteError:
    """Return the error for a connection that could not be made; `reason` is ssh's last line."""
    if "Permission denied" in reason or "authentication" in reason:
        return RemoteError(
            f"{host} does not let you in ({reason}): check user and key with 'ssh {host}', or name the key with "
            "--identity"
        )
    if "Host key verification failed" in reason:
        return RemoteError(f"the host key of {host} is unknown or has changed ({reason}): check it with 'ssh {host}'")
    return RemoteError(
        f"{host} cannot be reached ({reason or 'ssh said nothing'}): check name, network and port with 'ssh {host}'"
    )


class Shell:
    """A script at work, there or here; see `shell`."""

    def __init__(self, place: Destination, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.place = place
        self.answered = False
        self._process, self._errors = process, errors
        self._stdin, self._stdout = process.stdin, process.stdout
        self._noise = ""

    def answers(self, last: str) -> Iterator[tuple[str, str]]:
        """Yield each line that the script says, as its first word and the rest, up to and with the word `last`.

        Raises:
            RemoteError: the script failed, or the connection did.
        """
        while line := self._stdout.readline():
            word, rest = self._parse(line)
            if word == "fail":
                raise self._refused(*rest.partition(" ")[::2])
            if word:
                yield word, rest
            if word == last:
                return
        raise self._ended()

    def send(self, data: bytes) -> None:
        """Write to the script's input.

        Raises:
            RemoteError: it does not listen any more.
        """
        try:
            self._stdin.write(data)
            self._stdin.flush()
        except OSError:
            self._explain()

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of the script's output; none at its end."""
        return self._stdout.read(size)

    def _parse(self, line: bytes) -> tuple[str, str]:
        # login scripts may print what they like before
        if not line.startswith(_MARK):
            self._noise = line.decode(errors="replace").strip() or self._noise
            return "", ""
        self.answered = True
        word, _, rest = os.fsdecode(line.removeprefix(_MARK).removesuffix(b"\n")).partition(" ")
        return word, rest

    def _explain(self) -> NoReturn:
        """Raise what the script said before it stopped to listen."""
        for _ in self.answers(last="nothing more"):
            pass
        raise self._ended()

    def _reason(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if not _NOT_REASONS.fullmatch(line)), self._noise).rstrip(".")

    def _ended(self) -> RemoteError:
        with contextlib.suppress(OSError):
            self._stdin.close()
        status = self._process.wait()
        host, reason = self.place.host, self._reason()
        if host is not None and not self.answered and status == CONNECTION_FAILED:
            return failed_connection(host, reason)
        if host is not None and (self.answered or status < 0):
            return RemoteError(
                f"the connection to {host} was lost ({reason or 'without a word'}): repeat the command; what has "
                "arrived is kept, and nothing was switched unless all of it had"
            )
        return RemoteError(
            f"{host or 'this machine'} does not run a POSIX shell's script ({reason or f'status {status}'}): "
            "it needs sh, and coreutils or busybox"
        )

    def _refused(self, kind: str, detail: str) -> RemoteError:
        self._process.wait()
        reason = self._reason()
        machine = self.place.host or "this machine"
        why = f" ({reason})" if reason else ""
        directory = self.place.parent.removeprefix("./")
        if kind == "write" and ("No space left" in reason or "quota" in reason):
            return RemoteError(
                f"the disk of {machine} is full{why}: make space there and repeat the command; what has arrived is "
                "kept, and the present version stays"
            )
        found = replace(self.place, name=detail or self.place.name)
        sentences = {
            "tool": f"{machine} has no '{detail}'{why}: install coreutils, or a newer busybox, there",
            "enter": f"{directory} on {machine} cannot be entered or made{why}: check the path and its owner",
            "write": f"{directory} on {machine} cannot be written{why}: check its owner and its permissions",
            "read": f"{self.place} cannot be read{why}: check its owner and its permissions",
            "symlink": f"{directory} on {machine} cannot hold versions{why}: choose a file system with symbolic links",
            "foreign": f"{found} is there and 'edgetl push' did not write it: choose another name, end the path with / "
            "to put it inside, or remove it there",
            "stray": f"{self.place} holds {detail!r}, which 'edgetl push' did not bring, and which would be hidden: "
            "move it there to a place of its own, or push to another name",
            "changed": f"{self.place} holds {detail!r}, which has changed there since it was pushed: pull the run, and "
            "push to another name",
            "altered": f"what arrived at {self.place} is not what was sent (its SHA-256 differs): the present version "
            "stays; repeat the command",
            "busy": f"another push or rollback is switching {self.place}: repeat the command when it has finished, or "
            f"remove {detail.removeprefix('./')} beside it if there is none",
            "overtaken": f"another push to {self.place} finished meanwhile: repeat the command if yours shall "
            "replace it",
            "nothing": f"{self.place} has no previous version: 'edgetl push' keeps one when it replaces something",
            "missing": f"{self.place} does not exist: check the path",
            "newline": f"{self.place} holds a file with a line break in its name, after {detail!r}: rename it there",
            "linked": f"{self.place} holds a symbolic link to a directory, {detail!r}: pull its target by itself",
        }
        return RemoteError(sentences.get(kind, f"{machine} failed{why}: repeat the command"))


@contextlib.contextmanager
def shell(
    place: Destination, scripts: Sequence[str], arguments: Sequence[str] = (), ssh_options: Sequence[str] = ()
) -> Iterator[Shell]:
    """Run scripts of this package, one behind the other, on the machine of `place`; end them with the block.

    Args:
        scripts: their file names; `common.sh` comes before them, and the parent and name of `place`
            before `arguments`.
    """
    words = (place.parent, place.name, secrets.token_hex(8), *arguments)
    texts = [f"set -- {shlex.join(words)}", *(script_text(name) for name in ("common.sh", *scripts))]
    program = os.fsencode("\n".join(texts))
    # one byte at a time, because what follows them is not dd's
    reader = f'eval "$(dd bs=1 count={len(program)} 2>/dev/null)"'
    if place.host is None:
        command = ["sh", "-c", reader]
    else:
        command = ssh_command(place.host, f"exec sh -c '{reader}'", ssh_options)
    with tempfile.TemporaryFile() as errors:
        process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        try:
            running = Shell(place, process, errors)
            running.send(program)
            yield running
        except BaseException:
            process.kill()
            raise
        finally:
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]
            process.wait()


def script_text(name: str) -> str:
    """Return one of this package's scripts."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
