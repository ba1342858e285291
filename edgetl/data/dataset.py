"""From what lies on the disk to labelled samples, seeded splits and decoded content."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

from edgetl.data import arrays, series, table
from edgetl.data.folder import open_folder, split_stratified, strata
from edgetl.data.images import read_rgb
from edgetl.data.parts import find_layout, loose_files
from edgetl.data.sample import Dataset, Label, Sample, Samples, Wanted, content_digest, files_of, listed, wanted_by
from edgetl.errors import DataError
from edgetl.events import Note, OnEvent, ignore
from edgetl.files.kinds import DATA, belongs_elsewhere, mistaken
from edgetl.suggest import similar_path

_FILES = {*table.SUFFIXES, *arrays.SUFFIXES, ".txt"}


def open_training(
    data: Path, val: Path | None, wanted: Wanted, on_event: OnEvent = ignore, *, keep_test: bool = False
) -> tuple[Dataset, Dataset | None]:
    """Open what trains, and what validates: `val` if given, else the part `val` or `test` of `data`, or None.

    Args:
        keep_test: whether the part `test` is left alone, even where nothing else validates.

    Raises:
        DataError: it cannot be read, or its labels are not those wanted; what trains lacks a class.
    """
    parts = _parts(data, wanted, on_event, trains=True)
    if "train" not in parts:
        raise DataError(
            f"{data} holds what validates or tests ({', '.join(parts)}), but nothing to train with: give data with a "
            "training part, or give these with --val"
        )
    train = parts["train"](wanted.labels)
    test = None if keep_test else parts.get("test")
    opener = _main(_parts(val, wanted, on_event)) if val else parts.get("val") or test
    if test is not None and opener is not test:
        on_event(Note(f"the test part of {data} is left for 'edgetl evaluate'"))
    return train, opener(train.labels) if opener else None


def has_test(data: Path, wanted: Wanted) -> bool:
    """Return whether data that train have a part `test` as well.

    Raises:
        DataError: as `open_training`.
    """
    return {"train", "test"} <= _parts(data, wanted, trains=True).keys()


def open_measured(data: Path, wanted: Wanted, on_event: OnEvent = ignore) -> Dataset:
    """Open what a model is measured on: the part `test`, or else `val`, or else all; it may lack classes.

    Raises:
        DataError: as `open_training`.
    """
    parts = _parts(data, wanted, on_event)
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
    if wanted.modality == "array" and wanted.shape is not None and path.exists():
        files = [Path(file) for file in files_of(path)] if path.is_dir() else [path]
        if path.is_dir() or series.is_series(path, wanted.shape, wanted.input_columns):
            return tuple(series.as_sample(file, wanted.shape, wanted.input_columns) for file in files)
    if path.suffix.lower() in (*table.SUFFIXES, *arrays.SUFFIXES) and not path.is_dir():
        parts = _parts(path, wanted, labelled=False)
        return tuple(sample for opener in parts.values() for sample in opener(wanted.labels).samples)
    if not path.exists():
        raise DataError(
            f"{path} does not exist{similar_path(path)}: give files, a folder of them, a .csv or .jsonl table, or an "
            ".npz file"
        )
    if belongs_elsewhere(path):
        raise DataError(mistaken(path, DATA))
    if wanted.modality == "array":
        raise DataError(f"{path} is neither a table nor an archive: give a .csv, .jsonl or .npz file of numbers")
    names = files_of(path) if path.is_dir() else [str(path)]
    return tuple(Sample(name, None, Path(name)) for name in names)


def label_names(data: Path, task: str, label_columns: tuple[str, ...], on_event: OnEvent = ignore) -> tuple[str, ...]:
    """Return the names of the labels of what trains, whatever the samples are.

    Raises:
        DataError: as `open_training`.
    """
    file = _label_file(data)
    where = data if file is None else file
    wanted = Wanted(
        modality="array" if where.suffix.lower() in arrays.SUFFIXES else "image", task=task, label_columns=label_columns
    )
    if file is not None and file.suffix.lower() in table.SUFFIXES:
        return table.table_labels(file, wanted)
    return _main(_parts(where, wanted, on_event, trains=True))(()).labels


def task_of(data: Path, label_columns: tuple[str, ...] = (), on_event: OnEvent = ignore) -> str:
    """Return the task that labels are clearly of; `classification` where they tell of no other.

    Lists of labels, and columns that hold 0 and 1 alone, are of several labels; numbers that are not whole, and
    several of them for each sample, are of regression.

    Raises:
        DataError: as `open_training`.
    """
    file = _label_file(data)
    if file is None:
        return "classification"
    if file.suffix.lower() in arrays.SUFFIXES:
        task, why = arrays.task_of(file)
    elif file.suffix.lower() in table.SUFFIXES:
        task, why = table.task_of(file, label_columns)
    else:
        return "classification"
    if task != "classification":
        on_event(Note(f"{why} in {file}, so the task is {task}; --task says otherwise"))
    return task


def _label_file(data: Path) -> Path | None:
    """Return the table or the archive that has the labels of what trains; None if folders have them."""
    if not data.is_dir():
        return data
    if (described := table.metadata_of(data)) is not None:
        return described
    layout = find_layout(data)
    train = layout.parts.get("train") or next(iter(layout.parts.values()), data)
    return train if train.is_file() else table.metadata_of(train)


Opener = Callable[[tuple[str, ...]], Dataset]


def _parts(
    data: Path, wanted: Wanted, on_event: OnEvent = ignore, *, labelled: bool = True, trains: bool = False
) -> dict[str, Opener]:
    """Return how to open each part of a data set, given the labels expected; at least one of train, val and test."""
    if not data.exists() or belongs_elsewhere(data):
        raise DataError(mistaken(data, DATA))
    if data.is_file():
        if data.suffix.lower() in arrays.SUFFIXES:
            return arrays.open_arrays(data, wanted, labelled=labelled, on_event=on_event)
        if data.suffix.lower() in table.SUFFIXES:
            return table.open_table(data, wanted, labelled=labelled)
        raise DataError(mistaken(data, DATA))
    if (described := table.metadata_of(data)) is not None:
        return table.open_table(described, wanted)
    layout = find_layout(data, wanted.labels)
    if layout.unused:
        read = listed([path.name for path in layout.parts.values()])
        on_event(Note(f"not used: {listed(layout.unused)} in {data}, beside {read}"))
    if not layout.parts and not layout.loose:
        return {"train": _opened(data, wanted, on_event, complete=trains)}
    openers = {
        part: _opened(path, wanted, on_event, complete=trains and part == "train")
        for part, path in {**layout.parts, **layout.loose}.items()
    }
    if trains and "test" in layout.loose and "train" in layout.parts:
        on_event(Note(f"{layout.loose['test']} holds files, but no folders of classes and no table, so it is not used"))
        del openers["test"]
    return openers


def _opened(path: Path, wanted: Wanted, on_event: OnEvent, *, complete: bool) -> Opener:
    """Return how to open a part that is a file of its own, or a folder with a folder for each class or a table."""

    def opener(labels: tuple[str, ...]) -> Dataset:
        if path.is_file() or (table.metadata_of(path)) is not None:
            return _main(_parts(path, wanted))(labels)
        if wanted.task != "classification":
            raise DataError(
                f"{path} has a folder for each class, which says nothing of {wanted.task}: give a table with a path "
                "and labels, or put it into the folder as metadata.csv"
            )
        dataset = open_folder(path, labels, complete=complete)
        if loose := loose_files(path):
            what = listed([file.name for file in loose])
            on_event(Note(f"not used: {what} in {path}, outside of its folders of classes"))
        if wanted.modality == "array":
            return series.of_files(dataset, wanted.shape, wanted.input_columns, on_event)
        return dataset

    return opener


def _main(parts: dict[str, Opener]) -> Opener:
    return parts.get("train") or next(iter(parts.values()))


__all__ = [
    "Dataset",
    "Label",
    "Sample",
    "Samples",
    "Wanted",
    "content_digest",
    "has_test",
    "label_names",
    "open_folder",
    "open_inputs",
    "open_measured",
    "open_training",
    "read_rgb",
    "split_stratified",
    "strata",
    "task_of",
    "wanted_by",
]
