"""How commands draw their progress, end their errors and print their results."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from edgetl.errors import EdgetlError, visible
from edgetl.files.storage import UNINTERRUPTED

if TYPE_CHECKING:
    from edgetl.cli.console import Display

_NOTES = "edgetl.notes"
"""Where a command's context keeps its notes."""

_AGAIN = 0.05
"""Seconds after which an interruption that came at a bad time comes again."""

_STATUS_OF_SIGNALS = {getattr(signal, name, 0): 128 + number for name, number in (("SIGTERM", 15), ("SIGHUP", 1))}
"""As shells tell them; Ctrl-C ends as errors do."""


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP interrupt the block as Ctrl-C does, unless the caller has them ignored, as nohup does.

    Yields the numbers of those that came: a library may turn the interruption into an error of its own.
    """
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only that one may set handlers
    before = {number: signal.getsignal(number) for number in numbers}
    before = {n: handler for n, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)}
    received: list[int] = []
    alarm = before and hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    report = sys.unraisablehook

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1 or number == signal.SIGINT:  # else it is being cleaned up already
            interrupt(number, frame)

    def interrupt(_: int, frame: FrameType | None) -> None:
        if alarm and _is_bad_time(frame):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            raise KeyboardInterrupt

    def swallowed(unraisable: Any) -> None:
        """An interruption within a destructor or a callback is lost: there has to be another."""
        if alarm and received and unraisable.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            report(unraisable)

    for number in before:
        signal.signal(number, stop)
    if alarm:
        signal.signal(signal.SIGALRM, interrupt)
        sys.unraisablehook = swallowed
    try:
        yield received
    finally:
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_bad_time(frame: FrameType | None) -> bool:
    """Whether an exception would end the process, as within the import of a compiled module, or leave files behind."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_code in UNINTERRUPTED:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def reporting(as_json: bool, *, interrupted: Callable[[Display], str] | None = None) -> Iterator[Display]:
    """Draw events on stderr, and end errors that a user can cause with one sentence and status 1."""
    from edgetl.cli.console import Display

    display = Display()
    if (context := click.get_current_context(silent=True)) is not None:
        context.meta[_NOTES] = display.notes
    with _signals_interrupt() as signals:
        try:
            with display:
                yield display
        except (Exception, KeyboardInterrupt) as error:
            if signals or isinstance(error, KeyboardInterrupt):
                message = interrupted(display) if interrupted else "interrupted"
                _fail(message, as_json, status=_STATUS_OF_SIGNALS.get(signals[0], 1) if signals else 1)
            _fail(_sentence(error), as_json)


def _sentence(error: Exception | KeyboardInterrupt) -> str:
    """What a user can cause, as a sentence; what is a fault of ours is raised again."""
    match error:
        case EdgetlError():
            return str(error)
        case OSError():
            return _disk_error(error)
        case MemoryError():
            return "there was not enough memory: compute less at once, with --threads 1 or a smaller batch"
    raise error


def finish(as_json: bool, result: Any, *lines: str) -> None:
    """Print a result: one JSON object, in ASCII, which every encoding holds; or the lines.

    The object has the notes of the command under `notes`, if there were any.
    """
    if as_json:
        from edgetl.files.schema import to_json

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
            "what was finished is kept (finetune, adapt: add --resume)"
        )
    return f"{error.strerror or error}{where}"


def _fail(message: str, as_json: bool, *, status: int = 1) -> None:
    with contextlib.suppress(OSError):  # a terminal that has hung up takes nothing
        click.echo(f"Error: {visible(message)}", file=sys.stderr)
        if as_json:
            _print(json.dumps({"error": message, **_notes()}))
    raise SystemExit(status)


def _notes() -> dict[str, list[str]]:
    context = click.get_current_context(silent=True)
    notes = context.meta.get(_NOTES) if context is not None else None
    return {"notes": notes} if notes else {}


def _print(line: str) -> None:
    # without `file`, click would write UTF-8 where the terminal takes ASCII only
    click.echo(visible(line), file=sys.stdout)
