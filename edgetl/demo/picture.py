"""The demo's result, drawn in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from edgetl.demo.story import DemoResult, Shown

_BAR = 40


def draw_result(result: DemoResult) -> None:
    """Print accuracies as bars, some pictures with their predictions, and the confusion matrix."""
    console = Console(highlight=False)
    console.print()
    console.print(Panel(_bars(result), title="accuracy on pictures never seen", expand=False, padding=(1, 2)))
    per_line = max(1, console.width // (len(result.shown[0].pixels[0]) + 3))
    colour = console.color_system is not None
    console.print(Columns([_picture(shown, colour) for shown in result.shown[: 2 * per_line]], padding=(0, 1)))
    console.print("written (rows) and read as (columns)", style="dim")
    console.print(_confusion(result))
    start = (
        "a network pretrained here on 0 to 5" if result.pretrained_here else "the prepared directory artifacts/digits"
    )
    console.print(
        f"From {start} to a {result.model_kb:.0f} kB model: fine-tuned in {result.finetune_seconds:.1f} s "
        f"with {result.engine}, {result.ms_per_image:.2f} ms per picture; "
        f"the whole demo took {result.seconds:.0f} s and {result.peak_rss_mb:.0f} MB.",
        soft_wrap=True,
    )
    if result.model:
        console.print(f"The model lies in {result.model}", soft_wrap=True)
    console.print("Now with your own pictures: edgetl prepare --help", style="bold")


def _bars(result: DemoResult) -> RenderableType:
    rows = [("comparing pixels", result.pixels, "grey50")]
    if result.scratch is not None:
        rows.append(("trained from scratch", result.scratch, "yellow"))
    rows.append(("transfer learning", result.transfer, "green"))
    table = Table.grid(padding=(0, 1))
    for name, value, colour in rows:
        bar = Text("█" * round(_BAR * value), style=colour) + Text("░" * (_BAR - round(_BAR * value)), style="grey23")
        table.add_row(name, bar, Text(f"{value:.1%}", style=f"bold {colour}"))
    note = Text(
        f"{result.examples} examples to learn from, {result.test_pictures} pictures to test on; "
        f"one picture in {len(result.labels)} would be right by chance",
        style="dim",
    )
    return Group(table, Text(), note)


def _picture(shown: Shown, colour: bool) -> RenderableType:
    """Two rows of pixels a line, as half blocks; the border says whether the prediction is right."""
    lines = []
    for upper, lower in zip(shown.pixels[::2], shown.pixels[1::2], strict=True):
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            if colour:
                line.append("▀", style=f"rgb({above},{above},{above}) on rgb({below},{below},{below})")
            else:
                line.append(" ▄▀█"[2 * (above > 100) + (below > 100)])
        lines.append(line)
    picture = Text("\n").join(lines)
    right = shown.prediction == shown.truth
    verdict = f"{shown.prediction} {shown.probability:.0%}" + ("" if right else f", is {shown.truth}")
    return Panel(picture, title=verdict, border_style="green" if right else "red", expand=False, padding=0)


def _confusion(result: DemoResult) -> Table:
    table = Table(show_edge=False, pad_edge=True)
    table.add_column("")
    for label in result.labels:
        table.add_column(label, justify="right")
    for i, (label, row) in enumerate(zip(result.labels, result.confusion, strict=True)):
        total = max(sum(row), 1)
        cells = [Text(str(count), style=_shade(count / total, right=i == j)) for j, count in enumerate(row)]
        table.add_row(Text(label, style="bold"), *cells)
    return table


def _shade(share: float, *, right: bool) -> str:
    if share < 0.02:
        return "grey50"
    return f"bold {'green' if right else 'red'}" if share > 0.1 else ("green" if right else "red")
