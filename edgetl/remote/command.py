"""run_remote(): edgetl on another machine, as if it were here."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from edgetl.errors import RemoteError
from edgetl.remote.destination import parse_host
from edgetl.remote.ssh import CONNECTION_FAILED, is_terminal, script_text, ssh_command, start

NOT_FOUND = 127


def run_remote(host: str, command: Sequence[str], *, program: str = "edgetl", ssh_options: Sequence[str] = ()) -> int:
    """Run `program` with the arguments `command` on `host`, and return its exit status.

    Its output passes through; its input is empty. It ends with the connection: by Ctrl-C, too, and where
    there is no terminal.

    Args:
        host: `[user@]host`.
        command: passed as they are, whatever characters they hold.
        program: a name on the PATH of a non-interactive login there, or a path, from the home directory on.
        ssh_options: `KEY=VALUE` each, as in ssh_config(5).

    Raises:
        RemoteError: the connection failed or broke, or `program` is not there.
    """
    target = parse_host(host)
    if any("\0" in word for word in (program, *command)):
        raise RemoteError("an argument holds a zero byte, which no program can be given: remove it")
    terminal = all(is_terminal(stream) for stream in (sys.stdin, sys.stdout, sys.stderr))
    # a terminal there hangs up by itself; without one the script watches the connection, which stdin stands for
    script = 'exec "$@" </dev/null' if terminal else script_text("attached.sh")
    line = ssh_command(target, as_command(script, (program, *command)), ssh_options, terminal=terminal)
    process = start(line, stdin=None if terminal else subprocess.PIPE)
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        if process.stdin is not None:
            process.stdin.close()
    if status == CONNECTION_FAILED or status < 0:
        raise RemoteError(
            f"the connection to {target} failed or was lost: check it with 'ssh {target}'. Nothing finished is lost: "
            "repeat a finetune with --resume"
        )
    if status == NOT_FOUND:
        raise RemoteError(
            f"{target} has no program {program!r}: install edgetl there, or name it with --program, from the home "
            "directory on (such as venv/bin/edgetl)"
        )
    return status


def as_command(script: str, words: Sequence[str]) -> str:
    """Return a command that runs `script` with `words` as its arguments, whichever shell reads it.

    Login shells differ in what they do within quotes; they agree on letters, digits and `\\0`.
    """
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=,:+-")
    program = os.fsencode(f"set -- {shlex.join(words)}\n{script}")
    encoded = "".join(chr(byte) if byte in plain else f"\\0{byte:03o}" for byte in program)
    return f"""exec sh -c 'eval "$(printf %b "{encoded}")"'"""
