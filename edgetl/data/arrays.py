"""An .npz file with `x` and `y`: sensor windows, spectrograms, tables of numbers."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgetl import defaults
from edgetl.data.names import parts_of
from edgetl.data.sample import Dataset, Label, Row, Sample, Samples, Wanted, composed, known_labels, listed, packed
from edgetl.errors import DataError, first_line
from edgetl.events import Note, OnEvent, ignore

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".npz",)
_LABELS = "labels"
_ROLE = re.compile(r"(?i)([xy])(?:_?(.+))?|(.+?)_?([xy])")
"""A name of samples or their labels: `x`, `Y_train`, `testX`."""

_MOST_CLASSES = 1_000_000
_LONGEST_HEADER = 1 << 16
_LAST_LETTER, _SURROGATES = 0x10FFFF, 0xD800 >> 11

Opener = Callable[[tuple[str, ...]], Dataset]


def open_arrays(file: Path, wanted: Wanted, *, labelled: bool = True, on_event: OnEvent = ignore) -> dict[str, Opener]:
    """Return how to open each part (`train`, `val`, `test`) of an archive, given the labels expected.

    Raises:
        DataError: it is no such archive, holds Python objects, or declares more than
            `defaults.MAX_ARRAY_BYTES` compressed.
    """
    if wanted.modality != "array":
        raise DataError(
            f"{file} holds arrays, but the network takes samples of the modality {wanted.modality}: prepare with "
            "--modality array"
        )
    arrays, names = _read(Path(file))
    members = _members(arrays)
    found: dict[str, Opener] = {}
    for part, (x, y) in members.items():
        if x is not None and (y is not None or not labelled):
            found[part] = partial(_open, Path(file), arrays, wanted, x, y if labelled else None)
    if not found:
        raise DataError(f"{file} holds {listed(sorted(names))}: call the samples x and their labels y")
    if labelled and (unused := [x or y or "" for part, (x, y) in members.items() if part not in found]):
        on_event(Note(f"not used: {listed(unused)} in {file}, where samples or labels of the part are missing"))
    return found


def _members(names: Iterable[str]) -> dict[str, tuple[str | None, str | None]]:
    """Return the names of the samples and of the labels of each part, `train`, `val` and `test`, that has either."""
    roles = {name: match for name in sorted(names) if (match := _ROLE.fullmatch(name))}
    said = {name: match[2] or match[3] or "train" for name, match in roles.items()}
    parts = parts_of(said.values())
    found: dict[str, tuple[str | None, str | None]] = {}
    for part in ("train", "val", "test"):
        of_part = [name for name in roles if parts.get(said[name]) == part]
        of_part.sort(key=len)  # x before x_train
        pair = [
            next((name for name in of_part if (roles[name][1] or roles[name][4]).lower() == role), None)
            for role in ("x", "y")
        ]
        if any(pair):
            found[part] = (pair[0], pair[1])
    return found


def sample_shape(file: Path) -> tuple[int, ...] | None:
    """Return the shape of one sample of an archive; None if it is a single number, or there are none.

    Raises:
        DataError: as `open_arrays`.
    """
    arrays, _ = _read(Path(file))
    return next((arrays[x].shape[1:] or None for x, _ in _members(arrays).values() if x is not None), None)


def task_of(file: Path) -> tuple[str, str]:
    """Return the task that the labels of an archive are clearly of, and a clause that says why; else `classification`.

    Raises:
        DataError: as `open_arrays`.
    """
    arrays, _ = _read(Path(file))
    y = next((y for _, y in _members(arrays).values() if y is not None), None)
    values = arrays[y] if y is not None else np.empty(0, np.int64)
    if values.dtype.kind not in "fiub":
        return "classification", ""
    if values.ndim == 2 and values.shape[1] > 1:
        if np.isin(values, (0, 1)).all():
            return "multilabel", f"{y} holds 0 or 1 for each of {values.shape[1]} labels"
        return "regression", f"{y} holds {values.shape[1]} numbers for each sample"
    if values.dtype.kind == "f" and (values != np.round(values)).any():
        return "regression", f"{y} holds numbers that are not whole"
    return "classification", ""


def _open(
    file: Path, arrays: dict[str, NDArray[Any]], wanted: Wanted, x: str, y: str | None, expected: tuple[str, ...]
) -> Dataset:
    values = arrays[x]
    if values.ndim < 1 or values.size == 0 or values.dtype.kind not in "fiub":
        raise DataError(f"{file}: {x} is {_described(values)}, where numbers [samples, …] were expected")
    if wanted.shape is not None and values.shape[1:] != wanted.shape:
        if _without_ones(values.shape[1:]) != _without_ones(wanted.shape):
            raise DataError(
                f"{file}: {x} is {_described(values)}, but the network takes samples of {list(wanted.shape)}"
            )
        values = values.reshape(len(values), *wanted.shape)
    names = wanted.labels
    labels: list[Label] = [None] * len(values)
    if y is not None:
        if arrays[y].shape[:1] != values.shape[:1]:
            raise DataError(
                f"{file}: {y} is {_described(arrays[y])}, where {len(values)} labels were expected, as of {x}"
            )
        asked = expected or wanted.labels
        found, labels = _labels(file, y, arrays, replace(wanted, labels=tuple(map(composed, asked))))
        names = asked or found
    label = packed(labels)

    def sample(index: int) -> Sample:
        return Sample(f"{file.name} {x}[{index}]", label(index), Row(values, index))

    return Dataset(file, names, Samples(sample, range(len(values))))


def _labels(file: Path, y: str, arrays: dict[str, NDArray[Any]], wanted: Wanted) -> tuple[tuple[str, ...], list[Label]]:
    values = arrays[y]
    own = _own_names(file, arrays["labels"]) if "labels" in arrays else ()
    if wanted.task != "classification":
        table = values.reshape(len(values), -1).astype(np.float64) if values.dtype.kind in "fiub" else None
        if table is None or values.ndim > 2 or values.size == 0 or not np.isfinite(table).all():
            raise DataError(
                f"{file}: {y} is {_described(values)}, where finite numbers [samples, outputs] were expected"
            )
        if wanted.task == "multilabel" and not np.isin(table, (0, 1)).all():
            raise DataError(f"{file}: {y} must hold 0 or 1 for each label")
        names = wanted.labels or own or tuple(map(str, range(table.shape[1])))
        if len(names) != table.shape[1] or (own and own != names):
            raise DataError(
                f"{file}: {y} has {table.shape[1]} columns ({listed(own) if own else 'without names'}), where "
                f"{listed(names)} were expected"
            )
        return names, [tuple(row) for row in table.tolist()]
    if values.ndim != 1 or values.dtype.kind not in "iubU":
        raise DataError(
            f"{file}: {y} is {_described(values)}, where one whole number or name for each sample was expected"
        )
    if values.dtype.kind == "U":
        found = _names(file, y, values)
        names = known_labels(file, found, wanted)
        positions = {name: index for index, name in enumerate(names)}
        return names, [positions[name] for name in found]
    known = own or wanted.labels
    # without names they are counted: an index that is damage, or hostile, must not make billions of them
    count = min(max(int(values.max()) + 1, wanted.outputs), _MOST_CLASSES)
    given = known or tuple(map(str, range(count)))
    if values.min() < 0 or values.max() >= len(given):
        raise DataError(
            f"{file}: {y} holds {values.min()} to {values.max()}, which are no indices of {len(given)} classes "
            f"({listed(given)})"
        )
    names = wanted.labels or given
    if set(given) != set(names):
        raise DataError(
            f"{file}: its labels {listed(given)} differ from the artifacts', {listed(names)}: rename them, or "
            "prepare again with --labels-from this file"
        )
    places = [names.index(name) for name in given]
    return names, [places[index] for index in values.tolist()]


def _own_names(file: Path, values: NDArray[Any]) -> tuple[str, ...]:
    usable = values.ndim == 1 and len(values) <= _MOST_CLASSES and values.dtype.kind in "iubU"
    names = tuple(_names(file, "labels", values)) if usable else ()
    if not names or len(set(names)) < len(names):
        raise DataError(f"{file}: labels is {_described(values)}, where names [classes], each another, were expected")
    return names


def _names(file: Path, name: str, values: NDArray[Any]) -> list[str]:
    if values.dtype.kind == "U" and values.dtype.itemsize:
        # numpy makes strings of any four bytes, which no text can hold
        letters = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))).view(np.uint32)
        if ((letters > _LAST_LETTER) | (letters >> 11 == _SURROGATES)).any():
            raise DataError(f"{file}: {name} holds what is no text: write it anew")
    return [composed(str(value)) for value in values.tolist()]


def _read(file: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return samples and labels, and the names of all arrays.

    Those are mapped from the disk where they are stored plainly, else read, if their size is allowed.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = list(members)
            wanted = {name for pair in _members(names).values() for name in pair} | {_LABELS}
            members = {name: info for name, info in members.items() if name in wanted}
            headers = {name: _header(archive, info) for name, info in members.items()}
            for name, header in headers.items():
                if header.dtype.hasobject:
                    raise DataError(
                        f"{file}: {name} holds Python objects, which are not read: save numbers, or names as text"
                    )
            total = sum(headers[name].bytes for name, info in members.items() if not _is_plain(info, headers[name]))
            if total > defaults.MAX_ARRAY_BYTES:
                raise DataError(
                    f"{file} declares {total / 1e9:.1f} GB compressed, more than the "
                    f"{defaults.MAX_ARRAY_BYTES / 1e9:.0f} GB allowed: write it with numpy.savez, which does not "
                    "compress, or cut it into several files"
                )
            return {name: _array(file, archive, info, headers[name]) for name, info in members.items()}, names
    except FileNotFoundError:
        raise DataError(f"{file} does not exist") from None
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{file} is not an .npz archive ({first_line(error, 200)}): write it with numpy.savez"
        ) from None
    except DataError:
        raise
    except Exception as error:  # zipfile, its decompressors and numpy's parser raise whatever they like on damage
        raise DataError(f"{file} is damaged ({first_line(error, 200)})") from None


@dataclass(frozen=True)
class _Header:
    """What a member declares; `length` is the header's own, in bytes."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    length: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    with archive.open(info) as packed_stream:
        stream = io.BytesIO(packed_stream.read(_LONGEST_HEADER))  # a header declares its own length, up to 4 GB
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header = _Header(*read(stream), stream.tell())
    if min(header.shape, default=0) < 0:
        raise ValueError(f"an array of shape {list(header.shape)}")
    return header


def _is_plain(info: zipfile.ZipInfo, header: _Header) -> bool:
    """Whether a member can be mapped: stored as it is, and as long as it declares."""
    return info.compress_type == zipfile.ZIP_STORED and 0 < header.bytes == info.file_size - header.length


def _array(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: _Header) -> NDArray[Any]:
    with archive.open(info) as stream:
        if not _is_plain(info, header):
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return array
        while stream.read(1 << 20):  # to its end, so that zipfile compares the checksum
            pass
    with file.open("rb") as raw:
        # the length of the names in the member's own header may differ from those in the archive's directory
        raw.seek(info.header_offset + _ZIP_NAME_LENGTHS)
        names = sum(struct.unpack("<HH", raw.read(4)))
    start = info.header_offset + _ZIP_NAME_LENGTHS + 4 + names + header.length
    order: Literal["C", "F"] = "F" if header.fortran_order else "C"
    return np.memmap(file, header.dtype, "r", offset=start, shape=header.shape, order=order)


_ZIP_NAME_LENGTHS = 26
"""Where a member's header tells the length of its name and extra field; both follow (APPNOTE.TXT 4.3.7)."""


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
