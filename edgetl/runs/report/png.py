"""Drawings as a PNG file, in the colours of the page by day."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetl.runs.report import lettering
from edgetl.runs.report.drawing import Anchor, Cells, Dot, Drawing, Line, Text

if TYPE_CHECKING:
    from PIL.Image import Image

Point = tuple[float, float]

SCALE = 1.6
"""Pixels of the file to a CSS pixel."""
_SMOOTH = 3
"""Lines and dots are drawn so many times larger, and reduced."""
_MARGIN, _GAP, _HEADING = 16, 24, 26
_KEY, _KEY_GAP = 20, 18
_GROUND = "#ffffff"
_PALE, _FULL = (245, 246, 249), (36, 87, 208)


@dataclass(frozen=True)
class _Style:
    """How something looks; lengths in CSS pixels."""

    colour: str
    width: float = 2.0
    dashes: tuple[float, float] | None = None
    size: float = 12
    bold: bool = False
    hollow: bool = False
    halo: bool = False


STYLES = {
    "grid": _Style("#ecebe7", width=1),
    "val": _Style("#2457d0"),
    "train": _Style("#b4510a", dashes=(5, 4)),
    "ring": _Style("#2457d0", width=1.5, hollow=True),
    "tick": _Style("#66625c"),
    "axis": _Style("#66625c"),
    "key": _Style("#66625c", size=13),
    "mark": _Style("#1d1c1a", bold=True, halo=True),
    "title": _Style("#1d1c1a", size=15, bold=True),
    "count": _Style("#1d1c1a"),
    "deep": _Style("#ffffff"),
}


def png(drawings: Sequence[Drawing]) -> bytes:
    """Draw each under its title and its keys, side by side.

    Raises:
        ImportError: Pillow has no FreeType.
    """
    from PIL import Image

    widths = [max(drawing.width, _heading_width(drawing)) for drawing in drawings]
    width = sum(widths) + _GAP * (len(drawings) - 1) + 2 * _MARGIN
    height = max(drawing.height for drawing in drawings) + _HEADING + 2 * _MARGIN
    image = Image.new("RGB", (math.ceil(SCALE * width), math.ceil(SCALE * height)), _GROUND)
    left = float(_MARGIN)
    for drawing, room in zip(drawings, widths, strict=True):
        _draw_heading(image, drawing, left, left + drawing.width)
        for item in drawing.items:
            _draw(image, item, (left, _MARGIN + _HEADING))
        left += room + _GAP
    encoded = io.BytesIO()
    image.save(encoded, "PNG", compress_level=3)
    return encoded.getvalue()


def _heading_width(drawing: Drawing) -> float:
    keys = (_KEY + 6 + lettering.width(name, STYLES["key"].size) + _KEY_GAP for _, name in drawing.keys)
    return lettering.width(drawing.title, STYLES["title"].size) + sum(keys)


def _draw_heading(image: Image, drawing: Drawing, left: float, right: float) -> None:
    baseline = _MARGIN + 14.0
    _draw(image, Text("title", left, baseline, drawing.title), (0, 0))
    for style, name in reversed(drawing.keys):
        _draw(image, Text("key", right, baseline, name, "end"), (0, 0))
        right -= lettering.width(name, STYLES["key"].size) + 6
        _draw(image, Line(style, ((right - _KEY, baseline - 4), (right, baseline - 4))), (0, 0))
        right -= _KEY + _KEY_GAP


def _draw(image: Image, item: Line | Dot | Text | Cells, origin: Point) -> None:
    x, y = origin
    if isinstance(item, Line):
        _draw_line(image, STYLES[item.style], [(x + u, y + v) for u, v in item.points])
    elif isinstance(item, Dot):
        _draw_dot(image, STYLES[item.style], (x + item.x, y + item.y), item.radius)
    elif isinstance(item, Text):
        _draw_text(image, STYLES[item.style], item, (x + item.x, y + item.y))
    else:
        _draw_cells(image, item, (x + item.x, y + item.y))


def _draw_line(image: Image, style: _Style, points: list[Point]) -> None:
    canvas = _Canvas(points, style.width / 2)
    for part in _dashed(points, style.dashes) if style.dashes else [points]:
        canvas.line(part, style.width)
    canvas.paste(image, style.colour)


def _draw_dot(image: Image, style: _Style, centre: Point, radius: float) -> None:
    outer = radius + (style.width / 2 if style.hollow else 0)
    canvas = _Canvas([centre], outer)
    canvas.disc(centre, outer)
    if style.hollow:
        canvas.disc(centre, radius - style.width / 2, 0)
    canvas.paste(image, style.colour)


class _Canvas:
    """A mask around some points, larger than the picture; it is reduced when it is pasted."""

    def __init__(self, points: Sequence[Point], margin: float) -> None:
        from PIL import Image, ImageDraw

        columns, rows = zip(*points, strict=True)
        self.left = math.floor(SCALE * (min(columns) - margin)) - 1
        self.top = math.floor(SCALE * (min(rows) - margin)) - 1
        right, bottom = SCALE * (max(columns) + margin) + 2, SCALE * (max(rows) + margin) + 2
        size = (_SMOOTH * math.ceil(right - self.left), _SMOOTH * math.ceil(bottom - self.top))
        self.mask = Image.new("L", size)
        self.pen = ImageDraw.Draw(self.mask)

    def at(self, point: Point) -> Point:
        """Where a point lies on the mask; whole numbers are the centres of its pixels."""
        return _SMOOTH * (SCALE * point[0] - self.left) - 0.5, _SMOOTH * (SCALE * point[1] - self.top) - 0.5

    def line(self, points: Sequence[Point], width: float) -> None:
        """Draw a line with round ends and corners."""
        if len(points) > 1:
            thickness = round(_SMOOTH * SCALE * width)
            self.pen.line([self.at(point) for point in points], fill=255, width=thickness, joint="curve")
        for end in (points[0], points[-1]):
            self.disc(end, width / 2)

    def disc(self, centre: Point, radius: float, value: int = 255) -> None:
        (x, y), r = self.at(centre), _SMOOTH * SCALE * radius - 0.5
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=value)

    def paste(self, image: Image, colour: str) -> None:
        image.paste(colour, (self.left, self.top), self.mask.reduce(_SMOOTH))


def _dashed(points: Sequence[Point], dashes: tuple[float, float]) -> Iterator[list[Point]]:
    """Yield the dashes of a line, the lengths of a dash and of a gap being given."""
    drawn, rest = True, dashes[0]
    part = [points[0]]
    for begin, end in itertools.pairwise(points):
        length, passed = math.dist(begin, end), 0.0
        while length - passed > rest:
            passed += rest
            corner = tuple(b + (e - b) * passed / length for b, e in zip(begin, end, strict=True))
            point = (corner[0], corner[1])
            if drawn:
                yield [*part, point]
            drawn = not drawn
            part, rest = [point], dashes[0] if drawn else dashes[1]
        rest -= length - passed
        part.append(end)
    if drawn:
        yield part


_SHARE_BEFORE: dict[Anchor, float] = {"start": 0, "middle": 0.5, "end": 1}


def _draw_text(image: Image, style: _Style, item: Text, place: Point) -> None:
    from PIL.Image import Transpose

    for colour, outline in ((_GROUND, round(2 * SCALE)), (style.colour, 0)) if style.halo else ((style.colour, 0),):
        lettered = lettering.mask(item.text, SCALE * style.size, bold=style.bold, outline=outline)
        left, top, mask = lettered.left - lettered.advance * _SHARE_BEFORE[item.anchor], lettered.top, lettered.mask
        if item.turned:
            left, top, mask = top, -left - mask.width, mask.transpose(Transpose.ROTATE_90)
        image.paste(colour, (round(SCALE * place[0] + left), round(SCALE * place[1] + top)), mask)


def _draw_cells(image: Image, item: Cells, corner: Point) -> None:
    from PIL import Image

    left, top = (round(SCALE * length) for length in corner)
    right, bottom = round(SCALE * (corner[0] + item.width)), round(SCALE * (corner[1] + item.height))
    pale, full = np.array(_PALE), np.array(_FULL)
    colours = np.rint(pale + (full - pale) * item.values[..., None]).astype(np.uint8)
    table = Image.fromarray(colours).resize((right - left, bottom - top), Image.Resampling.NEAREST)
    image.paste(table, (left, top))


__all__ = ["SCALE", "STYLES", "png"]
