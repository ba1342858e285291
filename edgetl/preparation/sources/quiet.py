"""Keep what other libraries print, log, warn of and raise out of the terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from textwrap import shorten

from edgetl.errors import EdgetlError, ModelError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence output, warnings and log messages up to WARNING in the block."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def one_sentence(source: str) -> Iterator[None]:
    """Let the block end in success or in a ModelError, whatever libraries raise on a source that is damaged or hostile.

    Raises:
        ModelError: the source cannot be used.
    """
    try:
        yield
    except EdgetlError:
        raise
    except Exception as error:
        raise ModelError(f"{source} cannot be used, it may be damaged: {first_line(error)}") from error


def first_line(error: BaseException | str) -> str:
    """Return the first line of what an exception says, or its name if it says nothing; without control characters."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return shorten("".join(c if c.isprintable() else " " for c in lines[0]), 500, placeholder=" …")
