"""How the command line shows events: live bars in a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from edgetl.errors import visible
from edgetl.events import EpochEnd, EpochProgress, Event, FeatureProgress, Note, Stage
from edgetl.tasks.figures import figure

_REDRAW_SECONDS = 0.1


class Display:
    """Receives events inside a `with` statement.

    Attributes:
        notes: the text of each note so far.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._stage = ""
        self._task: Any = None
        self._drawn = 0.0
        self.finished_epochs = 0
        self.notes: list[str] = []

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Stage(text):
                self._begin(text, total=None)
                if not self._live:
                    self._console.print(f"{text} …")
            case Note(text):
                self.notes.append(text)
                self._console.print(Text(f"note: {visible(text)}", style="yellow"))
            case FeatureProgress(done, total, reused):
                detail = f"({reused} from the cache)" if reused else ""
                self._update(done, total, detail, last=done == total)
                if done == total and self._stage == "features":
                    self._console.print(f"features of {total} samples ready {detail}".rstrip())
            case EpochProgress(epoch, epochs, step, steps, loss):
                self._update((epoch - 1) * steps + step, epochs * steps, f"epoch {epoch}/{epochs} loss {loss:.4f}")
            case EpochEnd(epoch, epochs, train_loss, _, val_loss, figures, metric):
                self.finished_epochs = epoch
                line = f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
                if train_loss is not None:
                    line += f"  loss {train_loss:.4f}"
                if val_loss is not None:
                    line += f"  val loss {val_loss:.4f}"
                    name = next(iter(figures)) if metric == "loss" else metric
                    line += f"  val {figure(name, figures[name], width=6)}"
                self._console.print(line)

    def _begin(self, text: str, total: int | None) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._stage = text
        self._task = self._progress.add_task(text, total=total, detail="")

    def _update(self, done: int, total: int, detail: str, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._task is None or not self._live or (now - self._drawn < _REDRAW_SECONDS and not last):
            return
        self._drawn = now
        self._progress.update(self._task, completed=done, total=total, detail=detail)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned lines; a head that begins with `>` stands over a column that ends flush."""
    cells = [[head.removeprefix(">") for head in heads], *([visible(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(heads))]

    def padded(cell: str, i: int) -> str:
        space = " " * (widths[i] - cell_len(cell))
        return space + cell if heads[i].startswith(">") else cell + space

    return ["  ".join(padded(cell, i) for i, cell in enumerate(row)).rstrip() for row in cells]


class _RateColumn(ProgressColumn):
    """Completed items per second."""

    def render(self, task: Task) -> Text:
        """Return the rate as text."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None or task.total is None else f"{speed:.0f}/s", style="cyan")
