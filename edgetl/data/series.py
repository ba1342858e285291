"""A file of numbers that is one sample: a CSV file whose rows follow each other in time, or an .npy file."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.data.sample import Converted, Dataset, Sample, Samples, listed, read_file
from edgetl.errors import DataError, first_line
from edgetl.events import Note, OnEvent, ignore

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS = (".csv", ".tsv")
SUFFIXES = (*TEXTS, ".npy")
_INDEX = ("", "Unnamed: 0")  # what pandas writes over its index


@dataclass(frozen=True)
class Series:
    """What a file holds.

    Attributes:
        values: `[rows, columns]`, or of an .npy file an array of any shape.
        columns: their names; empty if the file has none.
    """

    values: NDArray[Any]
    columns: tuple[str, ...] = ()


def read_series(data: bytes, suffix: str) -> Series:
    """Read a file's content.

    In CSV a first line that is not numbers names the columns, lines that begin with `#` are passed over, and so is a
    first column without a name; `,`, `;` or a tab is between values, whichever the first line has most of, or else
    spaces.

    Raises:
        DataError: it is something else, or holds nothing; the message does not name it.
    """
    found = _read_npy(data) if suffix == ".npy" else _read_text(data)
    if found.values.size == 0:
        raise DataError("holds no numbers")
    return found


def _read_npy(data: bytes) -> Series:
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy's parser raises whatever it likes on damage
        raise DataError(f"is not an .npy file of numbers ({first_line(error, 200)})") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub" or values.ndim == 0:
        raise DataError("is not an .npy file of numbers")
    return Series(values)


def _read_text(data: bytes) -> Series:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 text (byte {error.start})") from None
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]
    lines = [line for line in lines if not line.startswith("#")]
    if not lines:
        raise DataError("is empty" if not data else "holds no numbers")
    delimiter = max(",;\t", key=lines[0].count)
    between = delimiter if delimiter in lines[0] else None
    cells = [cell.strip().strip('"') for cell in lines[0].split(between)]
    names = () if all(map(_is_number, cells)) else tuple(cells)
    if len(set(names)) < len(names):
        raise DataError("has a repeated column name: give each column a name of its own")
    rows = lines[1:] if names else lines
    if not rows:
        raise DataError("holds names of columns, but no numbers")
    quote = None if between is None else '"'
    has_index = bool(names) and names[0] in _INDEX and len(names) > 1
    used = range(1, len(names)) if has_index else None
    try:
        values = np.loadtxt(rows, delimiter=between, ndmin=2, usecols=used, comments=None, quotechar=quote)
    except Exception as error:
        raise DataError(
            f"does not hold rows of numbers ({first_line(error, 200)}; its first row of numbers is 0)"
        ) from None
    names = names[1:] if has_index else names
    if names and len(names) != values.shape[1]:
        raise DataError(f"names {len(names)} columns, but has {values.shape[1]}")
    return Series(values, names)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def fitted(series: Series, shape: tuple[int, ...], columns: Sequence[str] = ()) -> NDArray[np.float32]:
    """Return the numbers in the shape that the network takes.

    Of rows in time only their number may differ: of more the middle is taken, and fewer are continued with the first
    row before and the last one behind. A network that takes `[columns, rows]` gets them turned.

    Args:
        columns: names of those to take, in order, where the file names its own; empty takes all.

    Raises:
        DataError: it has no such columns, or another number of them; the message does not name the file.
    """
    values = series.values
    if columns and series.columns:
        if lacking := [name for name in columns if name not in series.columns]:
            raise DataError(f"has no column {listed(lacking)}; it has {listed(series.columns)}")
        values = values[:, [series.columns.index(name) for name in columns]]
    target = _without_ones(shape)
    values = values.reshape(_without_ones(values.shape) or (1,))
    is_row = series.values.ndim == 2 and len(series.values) == 1  # which has no time
    turned = None if is_row and values.shape != target else _turned(values, target)
    if turned is None:
        raise DataError(f"holds {_times(series.values.shape)} numbers, but the network takes {_times(shape)}")
    for axis, length in enumerate(target):
        turned = _of_length(turned, axis, length)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused as not finite
        return np.ascontiguousarray(turned.reshape(shape), dtype="<f4")


def _turned(values: NDArray[Any], target: tuple[int, ...]) -> NDArray[Any] | None:
    """Return the array so that it differs from the target in at most the axis of time; None if it cannot."""
    if values.ndim != len(target):
        return None
    if values.ndim == 1 or values.shape == target:
        return values
    if values.ndim != 2:
        return None
    if values.shape == target[::-1] or values.shape[1] == target[0] != target[1]:
        return values.T
    return values if values.shape[1] == target[1] or values.shape[0] == target[0] else None


def _of_length(values: NDArray[Any], axis: int, length: int) -> NDArray[Any]:
    have = values.shape[axis]
    if have >= length:
        start = (have - length) // 2
        return values.take(range(start, start + length), axis=axis)
    before = (length - have) // 2
    padding = [(0, 0)] * values.ndim
    padding[axis] = (before, length - have - before)
    return np.pad(values, padding, mode="edge")


def of_files(
    dataset: Dataset, shape: tuple[int, ...] | None, columns: Sequence[str] = (), on_event: OnEvent = ignore
) -> Dataset:
    """Return a data set whose files are such samples; how many are cut or continued is told.

    Args:
        shape: what the network takes.
        columns: names of those to take; empty takes those of the first file that names its own.

    Raises:
        DataError: no file holds numbers.
    """
    paths = [sample.path for sample in dataset.samples if sample.path is not None]
    shapes, names = _look(paths)
    if not shapes:
        raise DataError(
            f"{dataset.root} has a folder for each class, but no .csv, .tsv or .npy file of numbers in them, which the "
            "network takes: give such files, an .npz file or a table of numbers"
        )
    if shape is None:
        return dataset
    taken = tuple(columns) or names
    lengths = [_rows(found, len(taken), shape) for found in shapes]
    longer, shorter = (sum(length is not None and test(*length) for length in lengths) for test in (_exceeds, _lacks))
    if longer or shorter:
        parts = [f"{longer} are longer, of which the middle is taken"] * bool(longer)
        parts += [f"{shorter} are shorter and are continued with their first and last row"] * bool(shorter)
        on_event(
            Note(f"of {len(paths)} files in {dataset.root}, {', and '.join(parts)} (the network takes {_times(shape)})")
        )
    convert = partial(_converted, shape, taken)
    samples = dataset.samples

    def sample(index: int) -> Sample:
        found = samples[index]
        assert found.path is not None
        return replace(found, source=Converted(found.path, convert))

    return replace(dataset, samples=Samples(sample, range(len(samples))), input_columns=taken)


def _exceeds(have: int, length: int) -> bool:
    return have > length


def _lacks(have: int, length: int) -> bool:
    return have < length


def _rows(found: tuple[int, ...], columns: int, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return how many rows a file has and how many the network takes; None if that cannot be compared."""
    plain = np.empty((found[0], columns)) if columns and len(found) == 2 else np.empty(found)
    target = _without_ones(shape)
    turned = _turned(plain.reshape(_without_ones(plain.shape) or (1,)), target)
    if turned is None:
        return None
    return next(((have, want) for have, want in zip(turned.shape, target, strict=True) if have != want), None)


def _converted(shape: tuple[int, ...], columns: tuple[str, ...], path: Path, data: bytes) -> bytes:
    return fitted(read_series(data, path.suffix.lower()), shape, columns).tobytes()


def as_sample(path: Path, shape: tuple[int, ...], columns: Sequence[str] = ()) -> Sample:
    """Return a file as one sample without a label."""
    return Sample(str(path), None, Converted(path, partial(_converted, shape, tuple(columns))))


def series_shape(files: Sequence[str | Path]) -> tuple[int, ...] | None:
    """Return the shape of a sample of such files, the longest's if only their rows differ.

    None if they differ otherwise, or none can be read.
    """
    shapes, _ = _look([Path(file) for file in files])
    if not shapes or len({found[1:] for found in shapes}) > 1:
        return None
    return (max(found[0] for found in shapes), *(size for size in shapes[0][1:] if size != 1))


def is_series(file: Path, shape: tuple[int, ...] | None, columns: Sequence[str] = ()) -> bool:
    """Whether a file is one sample for a network that takes arrays of this shape, and not a table of several.

    A CSV file is one where the network takes rows, or a single column, of as many numbers as the file has columns.
    """
    if file.suffix.lower() == ".npy":
        return True
    target = _without_ones(shape or ())
    if file.suffix.lower() not in TEXTS or len(target) not in (1, 2):
        return False
    try:
        found = read_series(read_file(file), file.suffix.lower())
    except DataError:
        return False
    count = len(columns) if columns and set(columns) <= set(found.columns) else found.values.shape[1]
    rows = target if len(target) == 2 else (1,)
    return count in rows and count != math.prod(target)


def _look(paths: Sequence[Path]) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
    """Return the shapes of the files that can be read, and the names of the columns of the first that names them."""
    shapes: list[tuple[int, ...]] = []
    names: tuple[str, ...] = ()
    for path in sorted(paths):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            found = read_series(read_file(path), path.suffix.lower())
        except DataError:  # which will be told when the sample is read
            continue
        shapes.append(found.values.shape)
        names = names or found.columns
    return shapes, names


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
