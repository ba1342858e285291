"""The parts of a data set, training, validation and test, by the names of folders, files, columns and arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgetl.data import arrays, table
from edgetl.data.names import part_of, parts_of
from edgetl.data.sample import composed, entries_of, files_of, is_hidden, listed
from edgetl.errors import DataError

_DOCUMENTS = re.compile(
    r"(?i)(read[ _-]?me|licen[cs]e|copying|notice|citation|changelog)"
    r"|.*\.(md|txt|rst|pdf|html?|json|ya?ml|toml|xml|db|ini|log|sha256|md5)"
)
_FEWEST_IN_CLASS = 2  # parts inside of a class's folder that tell of an unusual layout


@dataclass(frozen=True)
class Layout:
    """What lies in a folder.

    Attributes:
        parts: the folders, tables and archives of its parts; empty if its folders are classes.
        loose: folders of parts that hold files without a folder for each class.
        unused: names of what is not read, though it looks like data.
    """

    parts: dict[str, Path] = field(default_factory=dict)
    loose: dict[str, Path] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def find_layout(root: Path, labels: Iterable[str] = ()) -> Layout:
    """Find the parts of a folder, by names such as `train`, `Validation` or `test_set`.

    A class may be called like a part, too. So a folder's folders are classes if the labels name them all; and if those
    called like parts are called like one part only, unless it is a training part with folders of its own, or a part
    whose folders the labels name.

    Args:
        labels: the names of the classes, if they are known.

    Raises:
        DataError: it is not a folder, two of its entries are the same part, or a class's folder holds parts.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}: give a folder with one folder of files per class")
    entries = [entry for entry in sorted(entries_of(root)) if not is_hidden(entry.name)]
    folders = [entry for entry in entries if entry.is_dir()]
    files = loose_files(root)
    tables = [file for file in files if file.suffix.lower() in (*table.SUFFIXES, *arrays.SUFFIXES)]
    named = _named(folders)
    from_files = _named(tables)
    known = set(map(composed, labels))
    others = [folder for folder in folders if folder not in named]
    structured = {folder: part for folder, part in named.items() if _is_structured(folder)}
    if not named and (folders or not from_files):
        return _classes(folders)
    if folders and _are_classes(named, structured, others, known):
        return _classes(folders)
    parts: dict[str, Path] = {}
    loose: dict[str, Path] = {}
    unused = [*others, *(file for file in files if file not in from_files)]
    for part in ("train", "val", "test"):
        candidates = [folder for folder, name in structured.items() if name == part]
        candidates = candidates or [file for file, name in from_files.items() if name == part]
        if len(candidates) > 1:
            raise DataError(
                f"{root} holds {listed([entry.name for entry in candidates])}, which are both its part {part} by their "
                f"names: rename one, or give the folder that trains as DATA and the other with --val"
            )
        rest = [entry for entry, name in {**named, **from_files}.items() if name == part and entry not in candidates]
        if candidates:
            parts[part] = candidates[0]
            unused += rest
        elif full := [folder for folder in rest if files_of(folder)]:
            loose[part] = full[0]
        else:
            unused += rest
    return Layout(parts, loose, tuple(entry.name for entry in sorted(unused)))


def loose_files(folder: Path) -> list[Path]:
    """Return the files that lie in a folder itself, but for hidden ones and documents; sorted."""
    entries = (entry for entry in sorted(entries_of(folder)) if not is_hidden(entry.name))
    return [entry for entry in entries if entry.is_file() and not _DOCUMENTS.fullmatch(entry.name)]


def _named(entries: list[Path]) -> dict[Path, str]:
    parts = parts_of(entry.stem if entry.is_file() else entry.name for entry in entries)
    names = {entry: parts.get(entry.stem if entry.is_file() else entry.name) for entry in entries}
    return {entry: part for entry, part in names.items() if part is not None}


def _are_classes(named: dict[Path, str], structured: dict[Path, str], others: list[Path], known: set[str]) -> bool:
    if {composed(folder.name) for folder in named} <= known:
        return True
    if not others or len(set(named.values())) > 1 or "train" in structured.values():
        return False
    return not any(_class_names(folder) & known for folder in structured)


def _classes(folders: list[Path]) -> Layout:
    for folder in folders:
        inside = [entry.name for entry in sorted(entries_of(folder)) if entry.is_dir() and part_of(entry.name)]
        if len({part_of(name) for name in inside}) >= _FEWEST_IN_CLASS:
            raise DataError(
                f"{folder} holds {listed(inside)}, which are parts of a data set by their names, where samples of the "
                f"class {folder.name!r} were expected: give {folder}, or put the parts outside and the classes inside "
                f"({Path(inside[0], folder.name)})"
            )
    return Layout()


def _is_structured(folder: Path) -> bool:
    """Whether a part has a folder for each class, or a table."""
    return table.metadata_of(folder) is not None or bool(_class_names(folder))


def _class_names(folder: Path) -> set[str]:
    return {composed(entry.name) for entry in entries_of(folder) if entry.is_dir() and not is_hidden(entry.name)}
