"""A chart of lines over epochs, with round numbers on its axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgetl.runs.report.drawing import Anchor, Dot, Drawing, Item, Line, Text

WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 26, 40
_DIGIT = 6.8
"""Width of a digit at the size of the axes, in the widest of the usual fonts."""
_MOST_POINTS = 400
_MOST_HINTS = 120
_LARGEST = 1e300
"""Beyond it, the distance between two values may not be a number; such a value is a gap."""


@dataclass(frozen=True)
class Series:
    """A line: its name, its style, and points (epoch, value), by epoch; gaps where a value is not finite."""

    name: str
    style: str
    points: tuple[tuple[int, float], ...]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    show: Callable[[float], str],
    show_tick: Callable[[float], str],
    limits: tuple[float | None, float | None] = (None, None),
    mark: tuple[int, float] | None = None,
) -> Drawing:
    """Draw lines over epochs.

    Args:
        title: also what a screen reader says, with first and last value of each line.
        show, show_tick: a value as text, and shorter beside the axis.
        limits: the vertical axis goes beyond these only if a value does.
        mark: a point to ring and label.
    """
    lines = [Series(item.name, item.style, _thinned(item.points, mark)) for item in series]
    drawn = [(x, y) for item in lines for x, y in item.points if _is_drawn(y)]
    keys = tuple((item.style, item.name) for item in lines)
    if not drawn:
        nothing = Text("axis", WIDTH / 2, HEIGHT / 2, "no finite values", "middle")
        return Drawing(title, f"{title}: no finite values", WIDTH, HEIGHT, (nothing,), keys)
    first, last = min(x for x, _ in drawn), max(x for x, _ in drawn)
    ticks = nice_ticks(min(y for _, y in drawn), max(y for _, y in drawn), limits)
    left = max(_LEFT, 10 + _DIGIT * max(len(show_tick(y)) for y in ticks))

    def place(point: tuple[int, float]) -> tuple[float, float]:
        x, y = point
        across = (x - first) / (last - first) if last > first else 0.5
        up = (y - ticks[0]) / (ticks[-1] - ticks[0])
        return left + (WIDTH - _RIGHT - left) * across, HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * up

    items: list[Item] = []
    for tick in ticks:
        _, y = place((first, tick))
        items.append(Line("grid", ((left, y), (WIDTH - _RIGHT, y))))
        items.append(Text("tick", left - 7, y + 4, show_tick(tick), "end"))
    for epoch in epoch_ticks(first, last):
        x, _ = place((epoch, ticks[0]))
        items.append(Text("tick", x, HEIGHT - _BOTTOM + 18, str(epoch), "middle"))
    items.append(Text("axis", (left + WIDTH - _RIGHT) / 2, HEIGHT - 4, "epoch", "middle"))
    for item in lines:
        items += (Line(item.style, tuple(map(place, part))) for part in _unbroken(item.points))
        if len(item.points) <= _MOST_HINTS:
            items += (
                Dot(
                    item.style, *place((x, y)), 2.4 if len(item.points) > 1 else 4, f"{item.name}, epoch {x}: {show(y)}"
                )
                for x, y in item.points
                if _is_drawn(y)
            )
    if mark is not None and _is_drawn(mark[1]):
        x, y = place(mark)
        anchor: Anchor = "start" if x < WIDTH / 4 else "end" if x > 3 * WIDTH / 4 else "middle"
        items += (Dot("ring", x, y, 5.5), Text("mark", x, y - 11, f"best {show(mark[1])}", anchor))
    return Drawing(title, _said(title, lines, show), WIDTH, HEIGHT, tuple(items), keys)


def nice_ticks(low: float, high: float, limits: tuple[float | None, float | None] = (None, None)) -> list[float]:
    """Four to seven round values that enclose `low` to `high`; the room around them doesn't go beyond `limits`."""
    least = None if limits[0] is None else min(limits[0], low)
    most = None if limits[1] is None else max(limits[1], high)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        room = abs(high) * 0.1 or 0.1
        low, high = low - room, high + room
    if least is not None:
        low = max(low, least)
    if most is not None:
        high = min(high, most)
    if low >= high:  # a constant at a limit
        low, high = (high - 0.1, high) if most is not None and high >= most else (low, low + 0.1)
    rough = (high - low) / 4
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= rough * 0.999)
    begin, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.10g}") for i in range(begin, end + 1)]


def epoch_ticks(first: int, last: int, most: int = 7) -> list[int]:
    """At most `most` round whole numbers from `first` to `last`, the ends among them where they do not crowd."""
    span = last - first
    if span < most:
        return list(range(first, last + 1))
    step = next(f * 10**e for e in range(12) for f in (1, 2, 5) if span / (f * 10**e) <= most - 1)
    inner = [x for x in range(step * -(-first // step), last + 1, step) if x - first >= step / 2 or x == first]
    return sorted({first, *inner})


def _is_drawn(value: float) -> bool:
    return abs(value) <= _LARGEST


def _thinned(points: tuple[tuple[int, float], ...], mark: tuple[int, float] | None) -> tuple[tuple[int, float], ...]:
    if len(points) <= _MOST_POINTS:
        return points
    kept = {round(i * (len(points) - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)}
    return tuple(point for i, point in enumerate(points) if i in kept or (mark is not None and point[0] == mark[0]))


def _unbroken(points: tuple[tuple[int, float], ...]) -> Iterator[list[tuple[int, float]]]:
    """Yield the parts of a line between its gaps."""
    part: list[tuple[int, float]] = []
    for point in points:
        if _is_drawn(point[1]):
            part.append(point)
        elif part:
            yield part
            part = []
    if part:
        yield part


def _said(title: str, lines: list[Series], show: Callable[[float], str]) -> str:
    told = [
        f"{item.name} from {show(item.points[0][1])} in epoch {item.points[0][0]} "
        f"to {show(item.points[-1][1])} in epoch {item.points[-1][0]}"
        for item in lines
        if item.points
    ]
    return f"{title}: {'; '.join(told)}"


__all__ = ["HEIGHT", "WIDTH", "Series", "epoch_ticks", "line_chart", "nice_ticks"]
