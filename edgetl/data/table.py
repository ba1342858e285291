"""A CSV or JSON Lines file: a line for each sample, with its path, text or numbers, and its labels."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from edgetl.data.names import parts_of
from edgetl.data.sample import (
    Dataset,
    Label,
    Row,
    Sample,
    Samples,
    Texts,
    Wanted,
    composed,
    known_labels,
    listed,
    packed,
    shown,
    unreadable,
)
from edgetl.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
METADATA = ("metadata.csv", "metadata.jsonl")
"""The tables that describe the files of their folder, as Hugging Face's image and audio folders have them."""

_SPLIT = "split"
_INPUTS = {
    "image": ("file_name", "path", "file", "image", "filename"),
    "audio": ("file_name", "path", "file", "audio", "filename"),
    "text": ("text", "sentence"),
}
_LABELS = ("label", "labels", "class", "target")


@dataclass(frozen=True)
class _Line:
    number: int
    values: dict[str, Any]


@dataclass(frozen=True)
class _Table:
    file: Path
    columns: tuple[str, ...]
    lines: tuple[_Line, ...]


Opener = Callable[[tuple[str, ...]], Dataset]


def open_table(file: Path, wanted: Wanted, *, labelled: bool = True) -> dict[str, Opener]:
    """Read a table; return how to open each of its parts, given the labels expected.

    The parts are `train`, `val` and `test`, as a column `split` says or, of a table that describes
    the files of its folder, their first folder; else all is `train`.

    Raises:
        DataError: it cannot be read, has no such columns, or a line is not what its column should hold.
    """
    table = _read(Path(file))
    labels = _label_columns(table, wanted) if labelled else ()
    inputs = _input_columns(table, wanted, labels)
    found = _parts(table, inputs)
    return {
        part: partial(_open, replace(table, lines=found[part]), wanted, inputs, labels)
        for part in ("train", "val", "test")
        if part in found
    }


def table_labels(file: Path, wanted: Wanted) -> tuple[str, ...]:
    """Return the names of the labels of what trains, without looking at anything else.

    Raises:
        DataError: as `open_table`.
    """
    table = _read(Path(file))
    training = _parts(table, ()).get("train", table.lines)
    return _labels(replace(table, lines=training), wanted, _label_columns(table, wanted))[0]


def task_of(file: Path, label_columns: tuple[str, ...]) -> tuple[str, str]:
    """Return the task that a table's labels are clearly of, and a clause that says why; else `classification`.

    Raises:
        DataError: it cannot be read.
    """
    table = _read(Path(file))
    columns = label_columns or tuple(name for name in _LABELS if name in table.columns)[:1]
    rows = [[line.values.get(name) for name in columns] for line in table.lines]
    values = [item for row in rows for value in row for item in (value if isinstance(value, list) else [value])]
    numbers = [_as_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    are_numbers = bool(known) and len(known) == len(numbers)
    if len(columns) > 1:
        if are_numbers and set(known) <= {0.0, 1.0}:
            return "multilabel", f"{listed(columns)} hold 0 and 1"
        return ("regression", f"{listed(columns)} hold numbers") if are_numbers else ("classification", "")
    if any(isinstance(value, list) for row in rows for value in row):
        kind = ("regression", "numbers") if are_numbers else ("multilabel", "labels")
        return kind[0], f"{listed(columns)} holds lists of {kind[1]}"
    if are_numbers and any(number != round(number) for number in known):
        return "regression", f"{listed(columns)} holds numbers that are not whole"
    return "classification", ""


def _as_number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def samples_of(file: Path, label_columns: tuple[str, ...]) -> tuple[str | None, str]:
    """Return the modality of a table's samples and an example: a path, a text, or how many numbers one sample has.

    The modality is None if no column tells it, and `image` for any paths.

    Raises:
        DataError: it cannot be read.
    """
    table = _read(Path(file))
    first = table.lines[0].values
    for modality in ("image", "audio", "text"):
        if column := next((name for name in _INPUTS[modality] if name in table.columns), None):
            return modality, str(first.get(column, ""))
    others = {*(label_columns or _LABELS), _SPLIT}
    columns = [name for name in table.columns if name not in others]
    try:
        numbers = [float(first[name]) for name in columns]
    except (KeyError, TypeError, ValueError):
        return None, ""
    return ("array", str(len(numbers))) if numbers else (None, "")


def metadata_of(folder: Path) -> Path | None:
    """Return the table that describes a folder's files, if it has one.

    Raises:
        DataError: the folder may not be read.
    """
    try:
        return next((folder / name for name in METADATA if (folder / name).is_file()), None)
    except PermissionError as error:
        raise unreadable(folder, error) from None


def _open(
    table: _Table, wanted: Wanted, inputs: tuple[str, ...], columns: tuple[str, ...], expected: tuple[str, ...]
) -> Dataset:
    if wanted.modality == "array":
        values = np.array([[_number(table, line, column) for column in inputs] for line in table.lines])
        if wanted.shape is not None:
            if len(inputs) != math.prod(wanted.shape):
                raise DataError(
                    f"{table.file} gives {len(inputs)} numbers for each sample ({listed(inputs)}), but the network "
                    f"takes {list(wanted.shape)}: choose its columns with --input-column"
                )
            values = values.reshape(-1, *wanted.shape)
    else:
        read = _text if wanted.modality == "text" else _path
        texts = Texts(str(read(table, line, inputs[0])) for line in table.lines)
    names, labels = _labels(table, replace(wanted, labels=expected or wanted.labels), columns)
    label = packed(labels)
    numbers = np.array([line.number for line in table.lines])
    file = table.file  # not the table, so that its lines can go

    def sample(index: int) -> Sample:
        if wanted.modality in ("image", "audio"):
            return Sample(texts[index], label(index), Path(texts[index]))
        source = Row(values, index) if wanted.modality == "array" else texts[index]
        return Sample(f"{file.name} line {numbers[index]}", label(index), source)

    samples = Samples(sample, range(len(numbers)))
    return Dataset(file, names, samples, inputs if wanted.modality == "array" else ())


def _read(file: Path) -> _Table:
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            lines = tuple(
                _json_lines(file, stream) if file.suffix.lower() in (".jsonl", ".ndjson") else _csv(file, stream)
            )
    except FileNotFoundError:
        raise DataError(f"{file} does not exist") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from None
    except csv.Error as error:
        if "field limit" in str(error):
            raise DataError(
                f"{file} has a value of more than {csv.field_size_limit()} characters: give such texts as JSON Lines"
            ) from None
        raise DataError(
            f"{file} is not a CSV file ({error}): save it anew, with a line of column names first"
        ) from None
    if not lines:
        raise DataError(f"{file} holds no samples: give a table with a line for each")
    columns = dict.fromkeys(column for line in lines for column in line.values)
    return _Table(file, tuple(columns), lines)


def _csv(file: Path, stream: Any) -> Iterator[_Line]:
    head = stream.readline()
    stream.seek(0)
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    columns = [name.strip() for name in next(reader, [])]
    if len(set(columns)) < len(columns) or "" in columns:
        raise DataError(f"{file} has an empty or repeated column name: give each column a name of its own")
    for values in reader:
        if not values:
            continue
        if len(values) != len(columns):
            raise DataError(
                f"{file} line {reader.line_num} has {len(values)} values for {len(columns)} columns: put values that "
                f"hold {delimiter!r} into double quotes"
            )
        yield _Line(reader.line_num, dict(zip(columns, values, strict=True)))


def _json_lines(file: Path, stream: Any) -> Iterator[_Line]:
    for number, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file} line {number} is not JSON ({error})") from None
        if not isinstance(values, dict):
            raise DataError(f'{file} line {number} is not an object such as {{"text": "…", "label": "…"}}')
        yield _Line(number, values)


def _present(table: _Table, columns: Sequence[str], option: str) -> tuple[str, ...]:
    if missing := [name for name in columns if name not in table.columns]:
        raise DataError(
            f"{table.file} has no column {listed(missing)}; it has {listed(table.columns)}: choose with {option}"
        )
    return tuple(columns)


def _label_columns(table: _Table, wanted: Wanted) -> tuple[str, ...]:
    several = wanted.task != "classification"
    columns = wanted.label_columns
    if not columns and several and wanted.labels and set(wanted.labels) <= set(table.columns):
        columns = wanted.labels
    columns = columns or next(((name,) for name in _LABELS if name in table.columns), ())
    if not columns:
        raise DataError(
            f"{table.file} has no column named {', '.join(_LABELS[:-1])} or {_LABELS[-1]}; it has "
            f"{listed(table.columns)}: say with --label-column which holds the labels"
        )
    if len(columns) > 1 and not several:
        raise DataError(f"classification takes one --label-column, not {len(columns)}: {listed(columns)}")
    return _present(table, columns, "--label-column")


def _input_columns(table: _Table, wanted: Wanted, labels: tuple[str, ...]) -> tuple[str, ...]:
    if wanted.input_columns:
        columns = _present(table, wanted.input_columns, "--input-column")
    elif wanted.modality == "array":
        # without labels asked for, they may still be there
        others = {*(labels or (*wanted.labels, *wanted.label_columns, *_LABELS)), _SPLIT}
        columns = tuple(name for name in table.columns if name not in others)
    else:
        columns = next(((name,) for name in _INPUTS[wanted.modality] if name in table.columns), ())
    if both := set(columns) & set(labels):
        raise DataError(f"{table.file}: the column {listed(sorted(both))} cannot be both input and label")
    if not columns:
        what = "a text" if wanted.modality == "text" else "numbers" if wanted.modality == "array" else "a path"
        raise DataError(
            f"{table.file} has no column with {what}; it has {listed(table.columns)}: choose with --input-column"
        )
    if len(columns) > 1 and wanted.modality != "array":
        raise DataError(f"{wanted.modality} takes one --input-column, not {len(columns)}: {listed(columns)}")
    return columns


def _parts(table: _Table, inputs: tuple[str, ...]) -> dict[str, tuple[_Line, ...]]:
    """Return the lines of each part: as the column `split` says, or the first folder of paths, or all to train."""
    names = ["train"] * len(table.lines)
    if _SPLIT in table.columns and _SPLIT not in inputs:
        names = [str(line.values.get(_SPLIT)) for line in table.lines]
        known = parts_of(names)
        if wrong := [line for line, name in zip(table.lines, names, strict=True) if name not in known]:
            raise DataError(
                f"{table.file} line {wrong[0].number}: split is {shown(str(wrong[0].values.get(_SPLIT)))}, where "
                "train, val or test was expected"
            )
        names = [known[name] for name in names]
    elif table.file.name in METADATA:
        column = inputs[0] if inputs else next((name for name in _INPUTS["audio"] if name in table.columns), "")
        paths = [PurePath(str(line.values.get(column, ""))).parts for line in table.lines]
        folders = [path[0] if len(path) > 1 else "" for path in paths]
        known = parts_of(folders)
        # folders may be classes, and one of them be called like a part
        if "train" in known.values() or set(known) >= set(folders):
            names = [known.get(folder, "train") for folder in folders]
    lines: dict[str, list[_Line]] = {}
    for line, name in zip(table.lines, names, strict=True):
        lines.setdefault(name, []).append(line)
    return {part: tuple(found) for part, found in lines.items()}


def _plain(column: str) -> str:
    """Return the name of a column for a message, which must stay one line."""
    return column if column.isprintable() and len(column) < 100 else shown(column)


def _value(table: _Table, line: _Line, column: str) -> Any:
    value = line.values.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{table.file} line {line.number}: {_plain(column)} is empty: fill it in, or remove the line")
    return value.strip() if isinstance(value, str) else value


def _text(table: _Table, line: _Line, column: str) -> str:
    value = _value(table, line, column)
    if not isinstance(value, str):
        raise DataError(
            f"{table.file} line {line.number}: {_plain(column)} is {shown(value)}, where a text was expected"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{table.file} line {line.number}: {_plain(column)} holds half a surrogate pair") from None
    return value


def _path(table: _Table, line: _Line, column: str) -> Path:
    text = _text(table, line, column)
    relative = PurePath(os.path.normpath(text))
    if "\0" in text or (relative.parts and relative.parts[0] == ".."):
        raise DataError(
            f"{table.file} line {line.number}: {_plain(column)} is {shown(text)}, which lies outside of the table's "
            "folder: move the table there, or write absolute paths"
        )
    return table.file.parent / text


def _number(table: _Table, line: _Line, column: str) -> float:
    value = _value(table, line, column)
    try:
        if isinstance(value, str | int | float):
            number = float(value)
            if math.isfinite(number):
                return number
    except (ValueError, OverflowError):
        pass
    raise DataError(
        f"{table.file} line {line.number}: {_plain(column)} is {shown(value)}, where a finite number was "
        "expected: mend it, or choose other columns"
    )


def _labels(table: _Table, wanted: Wanted, columns: tuple[str, ...]) -> tuple[tuple[str, ...], list[Label]]:
    if not columns:
        return wanted.labels, [None] * len(table.lines)
    known = replace(wanted, labels=tuple(map(composed, wanted.labels)))
    if wanted.task == "classification":
        found = [composed(str(_scalar(table, line, columns[0]))) for line in table.lines]
        names = known_labels(table.file, found, known)
        index = {name: position for position, name in enumerate(names)}
        return wanted.labels or names, [index[name] for name in found]
    if wanted.task == "multilabel" and len(columns) == 1 and columns != wanted.labels:
        sets = [list(map(composed, _several(table, line, columns[0]))) for line in table.lines]
        names = known_labels(table.file, [name for each in sets for name in each], known)
        return wanted.labels or names, [tuple(float(name in each) for name in names) for each in sets]
    rows = [_numbers(table, line, columns) for line in table.lines]
    if not rows[0]:
        raise DataError(f"{table.file} line {table.lines[0].number}: {_plain(columns[0])} holds no numbers")
    if wrong := [line.number for line, row in zip(table.lines, rows, strict=True) if len(row) != len(rows[0])]:
        raise DataError(f"{table.file} line {wrong[0]} has another number of labels than the first sample")
    if wanted.task == "multilabel" and any(value not in (0, 1) for row in rows for value in row):
        raise DataError(f"{table.file}: the label columns {listed(columns)} must hold 0 or 1")
    names = wanted.labels or (columns if len(columns) == len(rows[0]) else tuple(map(str, range(len(rows[0])))))
    if len(names) != len(rows[0]):
        raise DataError(
            f"{table.file} gives {len(rows[0])} numbers for each sample, where {len(names)} were expected "
            f"({listed(names)}): choose the columns with --label-column"
        )
    return names, list(rows)


def _scalar(table: _Table, line: _Line, column: str) -> Any:
    value = _value(table, line, column)
    if isinstance(value, list | dict):
        raise DataError(
            f"{table.file} line {line.number}: {_plain(column)} is {shown(value)}, where one label was expected"
        )
    return value


def _several(table: _Table, line: _Line, column: str) -> list[str]:
    """Return the labels of one sample: a list, or names with `;` or `|` between them; there may be none."""
    value = line.values.get(column)
    if isinstance(value, dict) or (isinstance(value, list) and not all(isinstance(v, str | int) for v in value)):
        raise DataError(
            f"{table.file} line {line.number}: {_plain(column)} is {shown(value)}, where labels were expected"
        )
    if isinstance(value, list):
        return [str(item) for item in value]
    text = "" if value is None else str(value)
    parts = (part.strip() for part in text.split("|" if "|" in text else ";"))
    return [part for part in parts if part]


def _numbers(table: _Table, line: _Line, columns: tuple[str, ...]) -> tuple[float, ...]:
    value = line.values.get(columns[0])
    if len(columns) == 1 and isinstance(value, list):
        names = [f"{columns[0]}[{index}]" for index in range(len(value))]
        inner = _Line(line.number, dict(zip(names, value, strict=True)))
        return tuple(_number(table, inner, name) for name in names)
    return tuple(_number(table, line, column) for column in columns)
