"""How commands draw their progress, end their errors and print their results."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from edgetl.errors import EdgetlError, visible

if TYPE_CHECKING:
    from edgetl.console import Display

_NOTES = "edgetl.notes"
"""Where a command's context keeps its notes."""


@contextlib.contextmanager
def reporting(as_json: bool, *, interrupted: Callable[[Display], str] | None = None) -> Iterator[Display]:
    """Draw events on stderr, and end errors that a user can cause with one sentence and status 1."""
    from edgetl.console import Display

    display = Display()
    if (context := click.get_current_context(silent=True)) is not None:
        context.meta[_NOTES] = display.notes
    try:
        with display:
            yield display
    except EdgetlError as error:
        _fail(str(error), as_json)
    except KeyboardInterrupt:
        _fail(interrupted(display) if interrupted else "interrupted", as_json)
    except OSError as error:
        _fail(_disk_error(error), as_json)
    except MemoryError:
        _fail("there was not enough memory: compute less at once, with --threads 1 or a smaller batch", as_json)


def finish(as_json: bool, result: Any, *lines: str) -> None:
    """Print a result: one JSON object, in ASCII, which every encoding holds; or the lines.

    The object has the notes of the command under `notes`, if there were any.
    """
    if as_json:
        from edgetl.schema import to_json

        _print(json.dumps({**to_json(result), **_notes()}))
        return
    for line in lines:
        _print(line)


def how_to_resume(out: str, display: Display) -> str:
    """Say what an interrupted `finetune` kept, and the command that continues it."""
    import shlex

    arguments = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--force")]
    # behind -- it would be taken for a path
    arguments.insert(arguments.index("--") if "--" in arguments else len(arguments), "--resume")
    command = shlex.join(["edgetl", *arguments])
    done = (
        f"after epoch {display.finished_epochs}" if display.finished_epochs else "before the first epoch was finished"
    )
    return f"interrupted {done}; nothing finished is lost. Continue with: {command}"


def _disk_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where}: make space and repeat the command; "
            "what was finished is kept (finetune: add --resume)"
        )
    return f"{error.strerror or error}{where}"


def _fail(message: str, as_json: bool) -> None:
    click.echo(f"Error: {visible(message)}", file=sys.stderr)
    if as_json:
        _print(json.dumps({"error": message, **_notes()}))
    raise SystemExit(1)


def _notes() -> dict[str, list[str]]:
    context = click.get_current_context(silent=True)
    notes = context.meta.get(_NOTES) if context is not None else None
    return {"notes": notes} if notes else {}


def _print(line: str) -> None:
    # without `file`, click would write UTF-8 where the terminal takes ASCII only
    click.echo(visible(line), file=sys.stdout)
