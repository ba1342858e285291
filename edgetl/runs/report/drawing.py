"""A drawing: what a chart consists of. `svg.py` puts it on the page, `png.py` into a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Anchor: TypeAlias = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Line:
    """A line through one point or more; through one, it is as long as it is wide."""

    style: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Dot:
    """A circle around a point; `hint` is shown where the pointer comes near."""

    style: str
    x: float
    y: float
    radius: float
    hint: str = ""


@dataclass(frozen=True)
class Text:
    """A line of text; `anchor` says which part of its baseline lies at x, y. Turned text reads upwards."""

    style: str
    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    turned: bool = False


@dataclass(frozen=True)
class Cells:
    """A table of colours in a rectangle; `values` is `[rows, columns]`, from 0 (pale) to 1 (full), top row first."""

    x: float
    y: float
    width: float
    height: float
    values: NDArray[np.float64]


Item: TypeAlias = Line | Dot | Text | Cells


@dataclass(frozen=True)
class Drawing:
    """A chart; lengths are in CSS pixels, y grows downwards, and later items cover earlier ones.

    Attributes:
        description: what a screen reader says.
        keys: style and name of each kind of line.
    """

    title: str
    description: str
    width: float
    height: float
    items: tuple[Item, ...]
    keys: tuple[tuple[str, str], ...] = ()


__all__ = ["Anchor", "Cells", "Dot", "Drawing", "Item", "Line", "Text"]
