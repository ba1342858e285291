"""The charts of a run: its curves, and its confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgetl.errors import visible
from edgetl.runs.report import lettering, text
from edgetl.runs.report.drawing import Cells, Drawing, Item, Text
from edgetl.runs.report.findings import Findings
from edgetl.runs.report.lines import Series, epoch_ticks, line_chart
from edgetl.runs.run import EpochResult
from edgetl.tasks.figures import is_share

MATRIX_CLASSES = 30
"""Up to so many, a confusion matrix names the classes and shows the numbers."""

DEEP = 0.8
"""From this strength of the colour on, white is easier to read on it than black."""

_SIZE = 12
_LEAST_CELL = 27
_LEAST_SIDE = 165
_UNNAMED_SIDE = 525
_NAME = 110
"""Longest name, in CSS pixels."""
_BAR_STEPS = 100


def curves(findings: Findings) -> tuple[Drawing, ...]:
    """The metric over the epochs, where it was measured, and the loss; nothing before the first epoch."""
    results, best, lead = findings.results, findings.best, findings.lead
    if not results:
        return ()
    train = Series("training", "train", _points(results, lambda result: result.train_loss))
    val = Series("validation", "val", _points(results, lambda result: result.val_loss))
    losses = [item for item in (train, val) if item.points]
    loss = line_chart("Loss", losses, show=text.number, show_tick=text.axis_number, limits=(0.0, None))
    reached = Series("validation", "val", _points(results, lambda result: result.val_figures.get(lead)))
    if not reached.points:
        return (loss,)
    at_best = best.val_figures.get(lead) if best else None
    share = is_share(lead)
    metric = line_chart(
        text.titled(lead),
        [reached],
        show=text.percent if share else text.number,
        show_tick=text.axis_percent if share else text.axis_number,
        limits=(0.0 if lead != "r2" else None, 1.0 if share or lead == "r2" else None),
        mark=(best.epoch, at_best) if best and at_best is not None else None,
    )
    return metric, loss


def _points(results: Sequence[EpochResult], of: Callable[[EpochResult], float | None]) -> tuple[tuple[int, float], ...]:
    values = ((result.epoch, of(result)) for result in results)
    return tuple((epoch, value) for epoch, value in values if value is not None)


def confusion(findings: Findings) -> Drawing | None:
    """The confusion matrix; None where there is none. Its colours are shares of the true class."""
    measured = findings.measured
    if measured is None or measured.matrix is None:
        return None
    counts, classes = measured.matrix, len(findings.args.labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    is_named = classes <= MATRIX_CLASSES
    if is_named:
        marks = list(enumerate(map(_short, findings.args.labels)))
        widest = max(lettering.width(str(count), _SIZE) for count in (counts.max(), 0))
        cell = max(_LEAST_CELL, widest + 8, _LEAST_SIDE / classes)
        strengths = shares
    else:
        marks = [(number, str(number)) for number in epoch_ticks(0, classes - 1)]
        cell = _UNNAMED_SIDE / classes
        strengths = shares**0.5  # where cells are too small to hold numbers, a few mistakes should still be seen
    side = cell * classes
    longest = max(lettering.width(name, _SIZE) for _, name in marks)
    is_turned = is_named and longest > cell - 6
    left, below = 28 + longest, 24 + (longest if is_turned else _SIZE)
    items: list[Item] = [Cells(left, 0, side, side, strengths)]
    for number, name in marks:
        middle = cell * (number + 0.5)
        items.append(Text("tick", left - 7, middle + 4, name, "end"))
        items.append(
            Text("tick", left + middle + 4, side + 7, name, "end", turned=True)
            if is_turned
            else Text("tick", left + middle, side + 17, name, "middle")
        )
    if is_named:
        items += (
            Text(
                "deep" if strengths[row, column] > DEEP else "count",
                left + cell * (column + 0.5),
                cell * (row + 0.5) + 4,
                str(counts[row, column]),
                "middle",
            )
            for row, column in np.argwhere(counts)
        )
    more = "" if is_named else " class, by its number from 0"
    items.append(Text("axis", 12, side / 2, f"true{more}", "middle", turned=True))
    items.append(Text("axis", left + side / 2, side + below, f"predicted{more}", "middle"))
    bar = left + side + 22
    items.append(Cells(bar, 0, 10, side, np.linspace(1, 0, _BAR_STEPS)[:, None]))
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1) if is_named else (0, 0.05, 0.2, 0.4, 0.6, 0.8, 1):
        height = side * (1 - (share if is_named else share**0.5))
        items.append(Text("tick", bar + 16, height + 4, text.axis_percent(share)))
    items.append(Text("axis", bar + 64, side / 2, "share of the true class", "middle", turned=True))
    title = f"Confusion matrix, accuracy {text.percent(measured.summary.accuracy)}"
    return Drawing(title, title, bar + 68, side + below + 4, tuple(items))


def _short(label: str) -> str:
    name = visible(label)
    if lettering.width(name, _SIZE) <= _NAME:
        return name
    return next(cut for end in range(_NAME, -1, -1) if lettering.width(cut := name[:end] + "…", _SIZE) <= _NAME)


__all__ = ["DEEP", "MATRIX_CLASSES", "confusion", "curves"]
