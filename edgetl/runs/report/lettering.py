"""Text as pixels: in Pillow's own font, and in the system's where that one lacks a character."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_OWN = ""
"""Stands for the font inside of Pillow, which has little more than ASCII."""

_NO_CHARACTER = "\uffff"
"""Unicode assigns it to nothing, so every font shows for it what it shows for whatever it lacks."""

_PREFERRED = (
    *("DejaVuSans", "NotoSans-Regular", "LiberationSans-Regular", "segoeui", "arial", "Arial Unicode"),
    *("NotoSansCJK-Regular", "NotoSansCJKsc-Regular", "DroidSansFallbackFull", "wqy-microhei", "wqy-zenhei"),
    *("PingFang", "Hiragino Sans GB", "AppleSDGothicNeo", "msyh", "msgothic", "malgun"),
    *("NotoEmoji-Regular", "Symbola", "seguisym", "seguiemj", "Apple Symbols", "unifont"),
)


@dataclass(frozen=True)
class Lettered:
    """A text's mask in pixels, where its upper left corner lies from the begin of the baseline, and how far it goes."""

    mask: Image
    left: int
    top: int
    advance: float


def width(text: str, size: float) -> float:
    """How far a text goes, in the unit of `size`.

    Raises:
        ImportError: Pillow has no FreeType.
    """
    return sum(_font(name, size).getlength(part) for name, part in _parts(text))


@lru_cache(256)
def mask(text: str, size: float, *, bold: bool = False, outline: int = 0) -> Lettered:
    """Draw a text; `size` and `outline` are in pixels.

    Raises:
        ImportError: Pillow has no FreeType.
    """
    from PIL import Image, ImageDraw

    parts, boxes, advance = [], [], 0.0
    for name, part in _parts(text):
        font = _font(name, size)
        left, top, right, bottom = font.getbbox(part, anchor="ls", stroke_width=outline)
        parts.append((advance, part, font))
        boxes.append((advance + left, top, advance + right, bottom))
        advance += font.getlength(part)
    left, top = (int(min((box[side] for box in boxes), default=0)) - 1 for side in (0, 1))
    right, bottom = (int(max((box[side] for box in boxes), default=0)) + 2 for side in (2, 3))
    drawn = Image.new("L", (right - left, bottom - top))
    pen = ImageDraw.Draw(drawn)
    for begin, part, font in parts:
        for shift in (0, 1) if bold else (0,):
            pen.text((begin - left + shift, -top), part, 255, font, anchor="ls", stroke_width=outline)
    return Lettered(drawn, left, top, advance)


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a text with the font of each; one font for all of it, if one has all of it."""
    clusters = list(_clusters(text))
    missing = {cluster for cluster in clusters if not _has(_OWN, cluster)}
    if not missing:
        yield _OWN, text
        return
    for name in _system_fonts():
        if all(_has(name, cluster) for cluster in clusters):
            yield name, text
            return
    begun, part = _OWN, ""
    for cluster in clusters:
        name, shown = _shown(cluster)
        if name != begun and part:
            yield begun, part
            part = ""
        begun, part = name, part + shown
    if part:
        yield begun, part


def _clusters(text: str) -> Iterator[str]:
    """Yield characters, each with the marks and joiners that belong to it."""
    cluster = ""
    for character in text:
        if cluster and not _is_mark(character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _is_mark(character: str) -> bool:
    return not character.isascii() and unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf")


def _shown(cluster: str) -> tuple[str, str]:
    """Return a font and what it shows for a character: a box where it is in none and is no letter with an accent."""
    for name in (_OWN, *_system_fonts()):
        if _has(name, cluster):
            return name, cluster
    bare = "".join(c for c in unicodedata.normalize("NFKD", cluster) if not _is_mark(c))
    return _OWN, bare or " "


def _has(name: str, cluster: str) -> bool:
    """Whether a font shows every character of a cluster; what shows nothing anywhere doesn't matter."""
    visible = (c for c in cluster if not (c.isspace() or unicodedata.category(c) == "Cf" or "\ufe00" <= c <= "\ufe0f"))
    try:
        return all(_glyph(name, character) != _glyph(name, _NO_CHARACTER) for character in visible)
    except OSError:  # of a damaged font, or of one without outlines
        return False


@lru_cache(4096)
def _glyph(name: str, character: str) -> tuple[tuple[int, int], bytes]:
    drawn = _font(name, 16).getmask(character)
    return drawn.size, bytes(drawn)


@lru_cache(256)
def _font(name: str, size: float) -> FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size) if name == _OWN else ImageFont.FreeTypeFont(name, size)
    assert isinstance(font, ImageFont.FreeTypeFont), "with a size it is none of the old bitmaps"
    return font


@lru_cache(1)
def _system_fonts() -> tuple[str, ...]:
    """Fonts of the system that have many characters, the first choice first; looked for only where one is needed."""
    found: dict[str, str] = {}
    for folder in _font_folders():
        for place, _, files in os.walk(folder):
            for file in files:
                font = Path(place, file)
                if font.suffix.lower() in (".ttf", ".otf", ".ttc"):
                    found.setdefault(font.stem, str(font))
    others = sorted(name for name in found if name.startswith("NotoSans") and name.endswith("-Regular"))
    return tuple(found[name] for name in dict.fromkeys((*_PREFERRED, *others)) if name in found)


def _font_folders() -> tuple[Path, ...]:
    if sys.platform == "win32":
        return (Path(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"),)
    if sys.platform == "darwin":
        return Path("/System/Library/Fonts"), Path("/Library/Fonts")
    return Path("/usr/share/fonts"), Path("/usr/local/share/fonts")


__all__ = ["Lettered", "mask", "width"]
