"""Values as text for the page. Names come from folders and files and may hold anything."""

from __future__ import annotations

import html
import math

from edgetl.errors import visible
from edgetl.tasks.figures import called, is_share

MISSING = "–"
_EXPONENT_FROM = 1e6


def escaped(value: object) -> str:
    """Text that HTML shows as it is; what would show nothing, or control, becomes an escape."""
    return html.escape(visible(str(value)))


def breakable(value: str) -> str:
    """Text whose long paths break behind a slash."""
    return escaped(value).replace("/", "/<wbr>")


def named(value: str, *, long: int = 28) -> str:
    """A name in its own direction of writing; the style sheet cuts it where it is long, and then a hint has it all."""
    hint = f' title="{escaped(value)}"' if len(value) > long else ""
    return f'<bdi class="name"{hint}>{escaped(value)}</bdi>'


def percent(value: float | None) -> str:
    """A share with one decimal; what is not quite all or nothing is not shown as that."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.1%}"


def short_percent(value: float) -> str:
    """A share in at most five characters."""
    if value >= 0.995:
        return ">99%" if value < 1 else "100%"
    return f"{value:.0%}" if value >= 0.0995 else percent(value)


def axis_percent(value: float) -> str:
    """A share as a mark on an axis."""
    return f"{100 * value:.4g}%"


def number(value: float | None) -> str:
    """A loss or an error: at least three significant digits, without exponent where it can be avoided."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 1000 <= abs(value) < _EXPONENT_FROM:
        return f"{value:,.0f}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


def axis_number(value: float) -> str:
    """A loss or an error as a mark on an axis."""
    return f"{value:,.7g}" if abs(value) < _EXPONENT_FROM else f"{value:.4g}"


def count(value: float | None) -> str:
    """A whole number with separators."""
    return MISSING if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def megabytes(value: float | None) -> str:
    """A size given in 10^6 bytes."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 0.95:
        return f"{1e3 * value:.0f} kB"
    return f"{value / 1e3:.1f} GB" if value >= 1000 else f"{value:.0f} MB" if value >= 10 else f"{value:.1f} MB"


def titled(name: str) -> str:
    """A figure's name as a title."""
    title = called(name)
    return title[0].upper() + title[1:]


def figure_text(name: str, value: float | None) -> str:
    """A figure: a share in percent, or a number."""
    return percent(value) if is_share(name) else number(value)
