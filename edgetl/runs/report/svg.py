"""A drawing as SVG for the page, which brings the colours in its style sheet."""

from __future__ import annotations

from edgetl.runs.report.drawing import Cells, Dot, Drawing, Item, Line, Text
from edgetl.runs.report.text import escaped


def figure(drawing: Drawing) -> str:
    """The drawing under its title and its keys, as an element `figure`."""
    keys = "".join(
        f'<span class="key"><svg viewBox="0 0 22 8" aria-hidden="true">'
        f'<path class="line {style}" d="M1 4H21"/></svg>{escaped(name)}</span>'
        for style, name in drawing.keys
    )
    return (
        f'<figure class="card"><figcaption><strong>{escaped(drawing.title)}</strong>{keys}</figcaption>'
        f"{svg(drawing)}</figure>"
    )


def svg(drawing: Drawing) -> str:
    """The drawing alone, as an element `svg`."""
    size, elements = f"{drawing.width:g} {drawing.height:g}", "".join(map(_element, drawing.items))
    return f'<svg viewBox="0 0 {size}" role="img" aria-label="{escaped(drawing.description)}">{elements}</svg>'


def _element(item: Item) -> str:
    if isinstance(item, Line):
        points = item.points if len(item.points) > 1 else item.points * 2
        return f'<path class="line {item.style}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'
    if isinstance(item, Dot):
        centre = f'cx="{item.x:.1f}" cy="{item.y:.1f}"'
        if not item.hint:
            return f'<circle class="{item.style}" {centre} r="{item.radius}"/>'
        return (
            f'<g class="point {item.style}"><title>{escaped(item.hint)}</title>'
            f'<circle class="reach" {centre} r="9"/><circle {centre} r="{item.radius}"/></g>'
        )
    if isinstance(item, Text):
        turn = f' transform="rotate(-90 {item.x:.1f} {item.y:.1f})"' if item.turned else ""
        return (
            f'<text class="{item.style}" x="{item.x:.1f}" y="{item.y:.1f}" text-anchor="{item.anchor}"{turn}>'
            f"{escaped(item.text)}</text>"
        )
    return "".join(_cells(item))


def _cells(item: Cells) -> list[str]:
    rows, columns = item.values.shape
    width, height = item.width / columns, item.height / rows
    return [
        f'<rect class="cell" x="{item.x + width * column:.2f}" y="{item.y + height * row:.2f}" '
        f'width="{width:.2f}" height="{height:.2f}" fill-opacity="{value:.3g}"/>'
        for row, values in enumerate(item.values.tolist())
        for column, value in enumerate(values)
        if value
    ]


__all__ = ["figure", "svg"]
