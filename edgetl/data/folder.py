"""A folder with one folder per class, and seeded splits of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.data.sample import Dataset, Label, Sample, Samples, Texts, composed, entries_of, files_of, is_hidden, listed
from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST_IN_BIN = 10


def open_folder(root: Path, labels: Sequence[str] | None = None, *, complete: bool = True) -> Dataset:
    """List the files of a folder with one folder per class; they are not opened.

    Hidden files are passed over; whether the others are pictures shows when they are read. Names are compared in
    Unicode's composed form (NFC): some systems take them apart, and a name that has been there comes back otherwise.

    Args:
        labels: expected class names, in order; an empty sequence or None takes the folders' names.
        complete: whether every class must have a folder with files in it, as to train; else one of them is enough.

    Raises:
        DataError: no folder, no class, one class only, an empty class, names that differ from `labels`
            or are no text, or what may not be read.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}: give a folder with one folder of files per class")
    folders = _class_folders(root)
    names = sorted(folders)
    if not names:
        if files_of(root):
            raise DataError(
                f"{root} holds files, but no folders: put the files of each class into a folder named after it, or "
                "give a table with a path and a label in each line"
            )
        raise DataError(f"{root} holds no folders: put the files of each class into a folder named after it")
    if labels:
        _compare(root, names, labels, complete=complete)
    elif len(names) == 1:
        raise DataError(f"{root} holds one class only ({names[0]!r}): a classifier needs at least two")
    order = tuple(labels) if labels else tuple(names)
    counts = []

    def paths() -> Iterator[str]:
        for name in order:
            folder = folders.get(composed(name))
            files = files_of(folder) if folder is not None else []
            if not files and complete:
                raise DataError(f"{folder} is empty: put files of the class {name!r} into it, or remove it")
            counts.append(len(files))
            yield from files

    texts = Texts(paths())
    if not len(texts):
        raise DataError(f"{root} holds no files in the folders of its classes: put some there")
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


def _class_folders(root: Path) -> dict[str, Path]:
    """Return the folders of a folder by their names, composed."""
    folders: dict[str, Path] = {}
    for folder in entries_of(root):
        if not folder.is_dir() or is_hidden(folder.name):
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


def _compare(root: Path, found: Sequence[str], expected: Sequence[str], *, complete: bool) -> None:
    known = {composed(name): name for name in expected}
    missing = [name for written, name in known.items() if written not in found] if complete else []
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
