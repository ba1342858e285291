"""Commands that work on another machine, over the system's own ssh."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgetl.cli.options import json_option, pair
from edgetl.cli.reporting import finish, reporting
from edgetl.errors import command

if TYPE_CHECKING:
    from edgetl.remote import PushResult

F = TypeVar("F", bound=Callable[..., Any])

COMMANDS = (
    "adapt",
    "finetune",
    "deploy",
    "evaluate",
    "predict",
    "benchmark",
    "inspect",
    "report",
    "runs",
    "doctor",
    "plan",
)
"""What `remote` runs there."""


def ssh_options(command: F) -> F:
    """Add `--port`, `--identity` and `--ssh-option`; the command gets them as one argument, `ssh_options`."""
    for option in reversed(
        (
            click.option("--port", type=click.IntRange(1, 65535), help="Port of the ssh server.  [default: ssh's]"),
            click.option("--identity", type=click.Path(), metavar="FILE", help="Key to log in with.  [default: ssh's]"),
            click.option(
                "-o",
                "--ssh-option",
                "options",
                multiple=True,
                metavar="KEY=VALUE",
                callback=lambda _, option, items: [item for item in items if pair(item, option.opts[1])],
                help="Option of ssh, as in ssh_config(5). Repeatable.",
            ),
        )
    ):
        command = option(command)
    return command


def joined(port: int | None, identity: str | None, options: list[str]) -> list[str]:
    """Return the three as options of ssh, `KEY=VALUE` each."""
    found = list(options)
    if port is not None:
        found.append(f"Port={port}")
    if identity is not None:
        # % begins a token of ssh's, and a backslash takes the next character's meaning within quotes
        quoted = identity.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
        found.append(f'IdentityFile="{quoted}"')
    return found


def how_to_go_back(pushed: PushResult, port: int | None, identity: str | None, options: list[str]) -> list[str]:
    """Say how to return to what was there before, with the same login; nothing if nothing was."""
    if pushed.previous is None:
        return []
    login: list[object] = [] if port is None else ["--port", port]
    login += [] if identity is None else ["--identity", identity]
    login += [word for option in options for word in ("-o", option)]
    return [f"back to {pushed.previous[:12]}: {command('rollback', *login, pushed.destination)}"]


@click.command()
@click.argument("source", type=click.Path())
@click.argument("destination")
@ssh_options
@json_option
def push(
    source: str, destination: str, as_json: bool, port: int | None, identity: str | None, options: list[str]
) -> None:
    """Bring SOURCE, a prepared directory, a run or a model, to DESTINATION, [user@]host:path, over ssh.

    Only what changed is sent; it is checked on arrival and switched to in one step. What was there before
    is kept for edgetl rollback. A path that ends in / is the directory to put SOURCE in.
    """
    with reporting(as_json) as display:
        from edgetl.remote import push

        result = push(source, destination, ssh_options=joined(port, identity, options), on_event=display)
    amount = _amount("sent", result.sent_files, result.files, result.sent_bytes, result.bytes, result.seconds)
    finish(
        as_json,
        result,
        f"{result.destination} is version {result.version[:12]}{amount if result.changed else ' already'}",
        *how_to_go_back(result, port, identity, options),
    )


@click.command()
@click.argument("source")
@click.argument("out", type=click.Path())
@ssh_options
@json_option
def pull(source: str, out: str, as_json: bool, port: int | None, identity: str | None, options: list[str]) -> None:
    """Fetch SOURCE, [user@]host:path of a run, a prepared directory or a file, to OUT over ssh.

    Only what changed is fetched; it is checked, and takes its name when it is whole. What is at OUT is
    replaced, if it is of the same kind.
    """
    with reporting(as_json) as display:
        from edgetl.remote import pull

        result = pull(source, out, ssh_options=joined(port, identity, options), on_event=display)
    amount = _amount(
        "received", result.received_files, result.files, result.received_bytes, result.bytes, result.seconds
    )
    finish(as_json, result, f"{result.out} is the same{amount if result.changed else ' already'}")


@click.command()
@click.argument("destination")
@ssh_options
@json_option
def rollback(destination: str, as_json: bool, port: int | None, identity: str | None, options: list[str]) -> None:
    """Go back to what the last push replaced at DESTINATION, [user@]host:path or a path here.

    Called again, it returns to the newer version.
    """
    with reporting(as_json):
        from edgetl.remote import rollback

        result = rollback(destination, ssh_options=joined(port, identity, options))
    finish(
        as_json,
        result,
        f"{result.destination} is version {result.version[:12]} again, no longer {result.previous[:12]}",
    )


@click.command(context_settings={"allow_interspersed_args": False})
@ssh_options
@click.option(
    "--program",
    default="edgetl",
    show_default=True,
    help="The command edgetl on that machine: a name on the PATH, or a path from the home directory.",
)
@click.argument("command", type=click.Choice(COMMANDS))
@click.argument("host")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENTS]...")
def remote(
    port: int | None,
    identity: str | None,
    options: list[str],
    program: str,
    command: str,
    host: str,
    arguments: tuple[str, ...],
) -> None:
    """Run edgetl COMMAND with ARGUMENTS on HOST, [user@]host, over ssh; its output and status pass through.

    Give options of `remote` before COMMAND. What follows HOST belongs to COMMAND, with paths on that machine.
    """
    with reporting("--json" in arguments):
        from edgetl.remote import run_remote

        status = run_remote(host, [command, *arguments], program=program, ssh_options=joined(port, identity, options))
    raise SystemExit(status)


def _amount(verb: str, moved: int, files: int, moved_bytes: int, size: int, seconds: float) -> str:
    return f": {verb} {moved} of {files} files, {moved_bytes / 1e6:.1f} of {size / 1e6:.1f} MB, in {seconds:.0f} s"
