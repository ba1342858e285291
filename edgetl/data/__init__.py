"""From what lies on the disk to labelled samples, seeded splits and decoded content."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import shorten

from edgetl.data import arrays, table
from edgetl.data.folder import Split, files_of, find_split, open_folder, split_stratified, strata
from edgetl.data.images import read_rgb
from edgetl.data.sample import Dataset, Label, Sample, Samples, Wanted, content_digest, wanted_by
from edgetl.errors import DataError

_FILES = {*table.SUFFIXES, *arrays.SUFFIXES, ".txt"}
_FORMS = "a folder with one folder of files per class, a .csv or .jsonl table, or an .npz file"


def open_training(data: Path, val: Path | None, wanted: Wanted) -> tuple[Dataset, Dataset | None]:
    """Open what trains, and what validates: `val` if given, else the part `val` or `test` of `data`, or None.

    Raises:
        DataError: it cannot be read, or its labels are not those wanted.
    """
    parts = _parts(data, wanted)
    train = _main(parts)(wanted.labels)
    opener = _main(_parts(val, wanted)) if val else parts.get("val") or parts.get("test")
    return train, opener(train.labels) if opener else None


def open_measured(data: Path, wanted: Wanted) -> Dataset:
    """Open what a model is measured on: the part `test`, or else `val`, or else all.

    Raises:
        DataError: as `open_training`.
    """
    parts = _parts(data, wanted)
    return (parts.get("test") or parts.get("val") or _main(parts))(wanted.labels)


def open_inputs(given: str | Path, wanted: Wanted) -> tuple[Sample, ...]:
    """Open samples without labels: a file, all files of a folder, or all of a table or an archive.

    Of the modality text, what is neither there nor named like a file is a text itself.

    Raises:
        DataError: the path does not exist, or is not of the modality wanted.
    """
    path = Path(given)
    if wanted.modality == "text" and not os.path.lexists(given) and path.suffix.lower() not in _FILES:
        return (Sample(shorten(str(given), 60, placeholder=" …") or repr(given), None, str(given)),)
    if path.suffix.lower() in (*table.SUFFIXES, *arrays.SUFFIXES) and not path.is_dir():
        parts = _parts(path, wanted, labelled=False)
        return tuple(sample for opener in parts.values() for sample in opener(wanted.labels).samples)
    if not path.exists():
        raise DataError(f"{path} does not exist: give files, a folder of them, a .csv or .jsonl table, or an .npz file")
    if wanted.modality == "array":
        raise DataError(f"{path} is neither a table nor an archive: give a .csv, .jsonl or .npz file of numbers")
    files = files_of(path) if path.is_dir() else [str(path)]
    return tuple(Sample(file, None, Path(file)) for file in files)


def label_names(data: Path, task: str, label_columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the labels that data have, whatever their samples are.

    Raises:
        DataError: as `open_training`.
    """
    wanted = Wanted(
        modality="array" if data.suffix.lower() in arrays.SUFFIXES else "image", task=task, label_columns=label_columns
    )
    described = data if data.suffix.lower() in table.SUFFIXES else table.metadata_of(data)
    if described is None and data.is_dir():
        described = table.metadata_of(find_split(data).train)
    return table.table_labels(described, wanted) if described else open_training(data, None, wanted)[0].labels


Opener = Callable[[tuple[str, ...]], Dataset]


def _parts(data: Path, wanted: Wanted, *, labelled: bool = True) -> dict[str, Opener]:
    """Return how to open each part of a data set, given the labels expected; at least one of train, val and test."""
    if not data.exists():
        raise DataError(f"{data} does not exist: give {_FORMS}")
    if data.is_file():
        if data.suffix.lower() in arrays.SUFFIXES:
            return arrays.open_arrays(data, wanted, labelled=labelled)
        if data.suffix.lower() in table.SUFFIXES:
            return table.open_table(data, wanted, labelled=labelled)
        raise DataError(f"{data} is a file: give {_FORMS}")
    if (described := table.metadata_of(data)) is not None:
        return table.open_table(described, wanted)
    split = find_split(data)
    folders = {"train": split.train, "val": split.val, "test": split.test}
    return {part: _folder(folder, wanted) for part, folder in folders.items() if folder is not None}


def _folder(folder: Path, wanted: Wanted) -> Opener:
    if (described := table.metadata_of(folder)) is not None:
        return _main(table.open_table(described, wanted))
    if wanted.modality == "array":
        raise DataError(f"{folder} is a folder, but the network takes arrays: give an .npz file or a table of numbers")
    if wanted.task != "classification":
        raise DataError(
            f"{folder} has a folder for each class, which says nothing of {wanted.task}: give a table with a path and "
            "labels, or put it into the folder as metadata.csv"
        )
    return partial(open_folder, folder)


def _main(parts: dict[str, Opener]) -> Opener:
    return parts.get("train") or next(iter(parts.values()))


__all__ = [
    "Dataset",
    "Label",
    "Sample",
    "Samples",
    "Split",
    "Wanted",
    "content_digest",
    "label_names",
    "open_folder",
    "open_inputs",
    "open_measured",
    "open_training",
    "read_rgb",
    "split_stratified",
    "strata",
    "wanted_by",
]
