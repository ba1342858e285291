"""`python -m edgetl` is `edgetl`."""

from __future__ import annotations

import locale
import os
import sys

from edgetl.cli.main import main


def run() -> None:
    """Run the command line as a process of its own, whatever the locale."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.ignore_environment:
        # with other encodings names differ from those in a prepared directory or run that was made elsewhere
        os.environ["PYTHONUTF8"] = "1"
        os.environ.setdefault("PYTHONIOENCODING", locale.getpreferredencoding(False))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    # NumPy's matrix products and factorisations here are small: threads that wait for each other gain nothing, and
    # where other programs run they take a hundred times as long
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main(prog_name="edgetl")


if __name__ == "__main__":
    run()
