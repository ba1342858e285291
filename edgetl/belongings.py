"""Files that lie in a prepared directory or a run and are not edgetl's: nothing replaces or removes them."""

from __future__ import annotations

import json
from pathlib import Path

from edgetl import artifacts, run, storage
from edgetl.artifacts import MANIFEST
from edgetl.errors import EdgetlError


def own_names(directory: Path) -> set[str]:
    """Return the names of the files that edgetl writes into a prepared directory or a run.

    Another version may have written others into a prepared directory, whose manifest names them.
    """
    if not (directory / MANIFEST).is_file():
        return set(run.FILES)
    try:
        return {*artifacts.FILES, *map(str, json.loads((directory / MANIFEST).read_bytes())["files"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set(artifacts.FILES)


def refuse_others(directory: Path) -> None:
    """Refuse to replace a prepared directory or a run that holds a file of somebody else's.

    Raises:
        EdgetlError: it holds one.
    """
    own = own_names(directory)
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if (path.is_symlink() or not path.is_dir()) and name not in own and not storage.is_aside(Path(name)):
            raise EdgetlError(
                f"{path} was not written by edgetl and would be lost: move it elsewhere, or choose another --out"
            )
