"""What a misspelt name may have meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


def similar(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names most like a word, the nearest first; letter case does not count."""
    lower: dict[str, str] = {}
    for name in known:
        lower.setdefault(name.lower(), name)
    found = difflib.get_close_matches(word.lower(), lower, n=most, cutoff=0.7)
    return [lower[name] for name in found]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'a' or 'b'?` for the known names that are like the word, or nothing."""
    found = similar(word, known)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def similar_path(path: Path) -> str:
    """Return `; did you mean 'DIR/NAME'?` for what lies beside a path that does not exist, or nothing."""
    if os.path.lexists(path):
        return ""
    try:
        beside = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except (OSError, ValueError):
        return ""
    found = [str(path.with_name(name)) for name in similar(path.name, beside)] if path.name else []
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""
