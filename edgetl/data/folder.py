"""A folder with one folder per class, and seeded splits of it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetl.data.sample import Dataset, Label, Sample, listed
from edgetl.data.table import metadata_of
from edgetl.errors import DataError

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
    if train is None or not (metadata_of(train) or any(entry.is_dir() for entry in train.iterdir())):
        val, test = _child(root, _VAL_NAMES), _child(root, _TEST_NAMES)
        others = [e for e in root.iterdir() if e.is_dir() and e not in (val, test) and not e.name.startswith(".")]
        if not others and (val or test):  # a data set that only measures
            return Split(val or test or root, val, test)
        return Split(root, None, None)
    return Split(train, _child(root, _VAL_NAMES), _child(root, _TEST_NAMES))


def open_folder(root: Path, labels: Sequence[str] | None = None) -> Dataset:
    """List the files of a folder with one folder per class; they are not opened.

    Hidden files are passed over; whether the others are pictures shows when they are read.

    Args:
        labels: expected class names, in order; an empty sequence or None takes the folders' names.

    Raises:
        DataError: no folder, no class, one class only, an empty class, or names that differ from
            `labels`.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}: give a folder with one folder of pictures per class")
    names = sorted(e.name for e in root.iterdir() if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise DataError(f"{root} holds no folders: put the pictures of each class into a folder named after it")
    if labels:
        _compare(root, names, labels)
    elif len(names) == 1:
        raise DataError(f"{root} holds one class only ({names[0]!r}): a classifier needs at least two")
    order = tuple(labels) if labels else tuple(names)
    samples: list[Sample] = []
    for index, name in enumerate(order):
        files = files_of(root / name)
        if not files:
            raise DataError(f"{root / name} is empty: put pictures of the class {name!r} into it, or remove it")
        samples.extend(Sample(str(file), index, file) for file in files)
    return Dataset(root, order, tuple(samples))


def split_stratified(labels: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split sample indices into training and validation, class by class.

    Of each class with n samples, round(n · fraction) go to validation, at least one where n > 1 and
    fraction > 0, and at least one stays. The same labels, fraction and seed give the same split.

    Returns:
        Two sorted lists of indices into `labels`: training, validation.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_class[label].append(index)
    train: list[int] = []
    val: list[int] = []
    for label in sorted(by_class):
        indices = np.array(by_class[label])
        order = np.random.default_rng([seed, label]).permutation(len(indices))
        count = min(max(round(len(indices) * fraction), 1), len(indices) - 1) if fraction > 0 else 0
        val.extend(indices[order[:count]].tolist())
        train.extend(indices[order[count:]].tolist())
    return sorted(train), sorted(val)


def strata(task: str, labels: Sequence[Label]) -> list[int]:
    """Return the stratum of each sample, for `split_stratified`.

    Of classification it is the class; of several labels the rarest that the sample has (or none); of
    numbers one of up to ten bins of the first with as many samples each.
    """
    if task == "classification":
        return [label for label in labels if isinstance(label, int)]
    table = np.array(labels, dtype=np.float64)
    if task == "multilabel":
        order = np.argsort(table.sum(axis=0), kind="stable")
        rarest = order[table[:, order].argmax(axis=1)]
        return [int(stratum) for stratum in np.where(table.any(axis=1), rarest, table.shape[1])]
    ranks = np.argsort(np.argsort(table[:, 0], kind="stable"), kind="stable")
    bins = min(10, max(1, len(table) // _LEAST_IN_BIN))
    return [int(stratum) for stratum in ranks * bins // len(table)]


def _child(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def files_of(folder: Path) -> list[Path]:
    """Return the files at and below a folder, sorted; hidden ones are passed over."""
    found: list[Path] = []
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(Path(directory) / name for name in sorted(files) if not name.startswith("."))
    return [path for path in found if path.is_file()]


def _compare(root: Path, found: Sequence[str], expected: Sequence[str]) -> None:
    missing = [name for name in expected if name not in found]
    foreign = [name for name in found if name not in expected]
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
