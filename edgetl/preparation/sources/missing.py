"""What to say where a package that a source needs is not installed."""

from __future__ import annotations

from edgetl.errors import first_line


def lacking(what: str, package: str, error: ImportError, extra: str = "zoo") -> str:
    """Return the sentence; it names another module than the package where that one is broken."""
    missing = (error.name or package).partition(".")[0]
    if missing == package:
        return f"{what} needs {package}, which is not installed: pip install 'edgetl[{extra}]'"
    return f"{what} needs {package}, which cannot be imported ({first_line(error)}): pip install 'edgetl[{extra}]'"
