"""A folder with one folder per class, and seeded splits of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.data.sample import Dataset, Label, Sample, Samples, Texts, composed, listed, unreadable
from edgetl.data.table import metadata_of
from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRAIN_NAMES = ("train", "training")
_VAL_NAMES = ("val", "valid", "validation")
_TEST_NAMES = ("test", "testing")
_LEAST_IN_BIN = 10


@dataclass(frozen=True)
class Split:
    """Folders of a data set by purpose; `None` where there is none."""

    train: Path
    val: Path | None
    test: Path | None


def find_split(root: Path) -> Split:
    """Find `train/`, `val/` and `test/` below `root`; without a `train/` that has folders or a table, `root` is it.

    Raises:
        DataError: `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}: give a folder with one folder of pictures per class")
    train = _child(root, _TRAIN_NAMES)
    if train is None or not (metadata_of(train) or any(entry.is_dir() for entry in _entries(train))):
        val, test = _child(root, _VAL_NAMES), _child(root, _TEST_NAMES)
        others = [e for e in _entries(root) if e.is_dir() and e not in (val, test) and not e.name.startswith(".")]
        if not others and (val or test):  # a data set that only measures
            return Split(val or test or root, val, test)
        return Split(root, None, None)
    return Split(train, _child(root, _VAL_NAMES), _child(root, _TEST_NAMES))


def open_folder(root: Path, labels: Sequence[str] | None = None) -> Dataset:
    """List the files of a folder with one folder per class; they are not opened.

    Hidden files are passed over; whether the others are pictures shows when they are read. Names are compared in
    Unicode's composed form (NFC): some systems take them apart, and a name that has been there comes back otherwise.

    Args:
        labels: expected class names, in order; an empty sequence or None takes the folders' names.

    Raises:
        DataError: no folder, no class, one class only, an empty class, names that differ from `labels`
            or are no text, or what may not be read.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}: give a folder with one folder of pictures per class")
    folders = _class_folders(root)
    names = sorted(folders)
    if not names:
        raise DataError(f"{root} holds no folders: put the pictures of each class into a folder named after it")
    if labels:
        _compare(root, names, labels)
    elif len(names) == 1:
        raise DataError(f"{root} holds one class only ({names[0]!r}): a classifier needs at least two")
    order = tuple(labels) if labels else tuple(names)
    counts = []

    def paths() -> Iterator[str]:
        for name in order:
            folder = folders[composed(name)]
            files = files_of(folder)
            if not files:
                raise DataError(f"{folder} is empty: put pictures of the class {name!r} into it, or remove it")
            counts.append(len(files))
            yield from files

    texts = Texts(paths())
    classes = np.repeat(np.arange(len(order)), counts)
    samples = Samples(lambda i: Sample(texts[i], int(classes[i]), Path(texts[i])), range(len(texts)))
    return Dataset(root, order, samples)


def split_stratified(
    labels: Sequence[int] | NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split sample indices into training and validation, class by class.

    Of each class with n samples, round(n · fraction) go to validation, at least one where n > 1 and
    fraction > 0, and at least one stays. The same labels, fraction and seed give the same split.

    Returns:
        Indices into `labels`, sorted: training, validation.
    """
    strata = np.asarray(labels)
    train, val = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for label in np.unique(strata).tolist():
        indices = np.flatnonzero(strata == label)
        order = np.random.default_rng([seed, label]).permutation(len(indices))
        count = min(max(round(len(indices) * fraction), 1), len(indices) - 1) if fraction > 0 else 0
        val.append(indices[order[:count]])
        train.append(indices[order[count:]])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def strata(task: str, labels: Sequence[Label] | NDArray[Any]) -> NDArray[np.int64]:
    """Return the stratum of each sample, for `split_stratified`.

    Of classification it is the class; of several labels the rarest that the sample has (or none); of
    numbers one of up to ten bins of the first with as many samples each.
    """
    if task == "classification":
        return np.asarray(labels, dtype=np.int64)
    table = np.array(labels, dtype=np.float64)
    if task == "multilabel":
        order = np.argsort(table.sum(axis=0), kind="stable")
        rarest = order[table[:, order].argmax(axis=1)]
        return np.asarray(np.where(table.any(axis=1), rarest, table.shape[1]))
    ranks = np.argsort(np.argsort(table[:, 0], kind="stable"), kind="stable")
    bins = min(10, max(1, len(table) // _LEAST_IN_BIN))
    return np.asarray(ranks * bins // len(table))


def _child(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _class_folders(root: Path) -> dict[str, Path]:
    """Return the folders of a folder by their names, composed."""
    folders: dict[str, Path] = {}
    for folder in _entries(root):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        name = composed(folder.name)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{folder} names a class, but its name is not UTF-8: rename it") from None
        if name in folders:
            raise DataError(f"{root} holds two folders that are both called {name!r} in Unicode: merge them")
        folders[name] = folder
    return folders


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None


def files_of(folder: Path) -> list[str]:
    """Return the files at and below a folder, sorted; hidden ones are passed over.

    Raises:
        DataError: a folder may not be read.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(error.filename, error)

    found: list[str] = []
    for directory, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(directory, name) for name in sorted(files) if not name.startswith("."))
        found.extend(str(path) for path in paths if path.is_file())
    return found


def _compare(root: Path, found: Sequence[str], expected: Sequence[str]) -> None:
    known = {composed(name): name for name in expected}
    missing = [name for written, name in known.items() if written not in found]
    foreign = [name for name in found if name not in known]
    if not missing and not foreign:
        return
    parts = []
    if missing:
        parts.append(f"no folder for {listed(missing)}")
    if foreign:
        parts.append(f"folders that the artifacts do not know: {listed(foreign)}")
    raise DataError(
        f"the class folders of {root} differ from the artifacts' labels: {'; '.join(parts)}. "
        "Rename them, or prepare again with --labels-from this folder"
    )
