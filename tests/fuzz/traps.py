"""What hostile files are made of."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path

ESCAPES = ("../evil", "../../evil", "/tmp/edgetl-evil", "assets/../../evil", "..\\evil", "a/../../../evil")
"""Names of an archive's members that lead out of the directory that it is unpacked into."""


class Trap:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.file,))


def pickled(file: Path) -> bytes:
    return pickle.dumps(Trap(file))


@contextlib.contextmanager
def unchanged(root: Path) -> Iterator[Path]:
    """Yield a directory deep below `root`; nothing may appear anywhere else."""
    inner = root / "a" / "b" / "c"
    inner.mkdir(parents=True)
    outside = Path("/tmp/edgetl-evil")
    assert not outside.exists()
    yield inner
    found = {file for file in root.rglob("*") if inner not in (file, *file.parents)}
    assert found == {root / "a", root / "a" / "b"}
    assert not outside.exists()
