"""Line charts as inline SVG: no library, no script, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgetl.report.text import escaped

WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 26, 40
_MOST_POINTS = 400
_MOST_HINTS = 120


@dataclass(frozen=True)
class Series:
    """A line: its name, its class in the style sheet, and points (epoch, value), by epoch; gaps where not finite."""

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
) -> str:
    """Draw lines over epochs.

    Args:
        title: also what a screen reader says, with first and last value of each line.
        show, show_tick: a value as text, and shorter beside the axis.
        limits: the vertical axis never goes beyond these.
        mark: a point to ring and label.
    """
    lines = [Series(item.name, item.style, _thinned(item.points, mark)) for item in series]
    finite = [(x, y) for item in lines for x, y in item.points if math.isfinite(y)]
    if not finite:
        return f'<p class="muted">{escaped(title)}: no figures.</p>'
    epochs = [x for x, _ in finite]
    first, last = min(epochs), max(epochs)
    ticks = nice_ticks(min(y for _, y in finite), max(y for _, y in finite), limits)

    def across(x: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * ((x - first) / (last - first) if last > first else 0.5)

    def up(y: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (y - ticks[0]) / (ticks[-1] - ticks[0])

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(_said(title, lines, show))}">',
        *(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>'
            f'<text x="{_LEFT - 7}" y="{up(y) + 4:.1f}" text-anchor="end">{escaped(show_tick(y))}</text>'
            for y in ticks
        ),
        *(
            f'<text x="{across(x):.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x}</text>'
            for x in epoch_ticks(first, last)
        ),
        f'<text class="axis" x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">epoch</text>',
    ]
    for item in lines:
        spots = [(across(x), up(y)) if math.isfinite(y) else None for x, y in item.points]
        parts.append(f'<path class="line {item.style}" d="{_path(spots)}"/>')
        if len(item.points) <= _MOST_HINTS:
            parts += (
                f'<g class="point {item.style}"><title>{escaped(f"{item.name}, epoch {x}: {show(y)}")}</title>'
                f'<circle class="reach" cx="{spot[0]:.1f}" cy="{spot[1]:.1f}" r="9"/>'
                f'<circle cx="{spot[0]:.1f}" cy="{spot[1]:.1f}" r="{2.4 if len(spots) > 1 else 4}"/></g>'
                for (x, y), spot in zip(item.points, spots, strict=True)
                if spot is not None
            )
    if mark is not None and math.isfinite(mark[1]):
        x, y = across(mark[0]), up(mark[1])
        anchor = "start" if x < WIDTH / 4 else "end" if x > 3 * WIDTH / 4 else "middle"
        parts.append(
            f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
            f'<text class="mark" x="{x:.1f}" y="{y - 11:.1f}" text-anchor="{anchor}">'
            f"{escaped(f'best {show(mark[1])}')}</text>"
        )
    return "".join(parts) + "</svg>"


def nice_ticks(low: float, high: float, limits: tuple[float | None, float | None] = (None, None)) -> list[float]:
    """Four to seven round values that enclose `low` to `high`, but do not go beyond `limits`."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        room = abs(high) * 0.1 or 0.1
        low, high = low - room, high + room
    least, most = limits
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


def _thinned(points: tuple[tuple[int, float], ...], mark: tuple[int, float] | None) -> tuple[tuple[int, float], ...]:
    if len(points) <= _MOST_POINTS:
        return points
    kept = {round(i * (len(points) - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)}
    return tuple(point for i, point in enumerate(points) if i in kept or (mark is not None and point[0] == mark[0]))


def _path(spots: list[tuple[float, float] | None]) -> str:
    parts, drawing = [], False
    for spot in spots:
        if spot is not None:
            parts.append(f"{'L' if drawing else 'M'}{spot[0]:.1f} {spot[1]:.1f}")
        drawing = spot is not None
    return "".join(parts)


def _said(title: str, lines: list[Series], show: Callable[[float], str]) -> str:
    told = [
        f"{item.name} from {show(item.points[0][1])} in epoch {item.points[0][0]} "
        f"to {show(item.points[-1][1])} in epoch {item.points[-1][0]}"
        for item in lines
        if item.points
    ]
    return f"{title}: {'; '.join(told)}"
