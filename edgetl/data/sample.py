"""A sample: what messages call it, its label, and its content as bytes."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import threading
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from edgetl import defaults
from edgetl.artifacts import Manifest
from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LONGEST_SHOWN = 100

Label = int | tuple[float, ...] | None
"""The index of a class; or 0 or 1 for each label, or numbers; None where labels were not asked for."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row of an array `[N, *shape]`, which is read when it is asked for."""

    array: NDArray[Any]
    index: int


@dataclass(frozen=True, eq=False)
class Converted:
    """A file whose content becomes the sample's: of a table of numbers one array.

    Attributes:
        convert: from the path and the file's bytes to the content; raises DataError without the file's name.
    """

    path: Path
    convert: Callable[[Path, bytes], bytes]


@dataclass(frozen=True)
class Sample:
    """One sample, not read yet.

    Attributes:
        name: what messages and reports call it: the path of a file, or `table.csv line 12`.
        label: see `Label`.
        source: a file, a text, a row of an array, or a file that becomes one.
        span: of a recording, the part that is the sample: its start and end in samples at the network's rate.
    """

    name: str
    label: Label
    source: Path | str | Row | Converted
    span: tuple[int, int] | None = None

    @property
    def path(self) -> Path | None:
        """The file that is the sample; None if it lies in a table or an array."""
        if isinstance(self.source, Converted):
            return self.source.path
        return self.source if isinstance(self.source, Path) else None

    @property
    def place(self) -> str:
        """Where to find it again, from any working directory: a file's absolute path, or its name in its data."""
        return self.name if self.path is None else str(self.path.resolve())

    def read(self) -> bytes:
        """Return the content, whose hash is the sample's identity: a file's bytes, UTF-8, or little-endian float32.

        Raises:
            DataError: it cannot be read; the message does not name the sample.
        """
        if isinstance(self.source, Path):
            return read_file(self.source)
        if isinstance(self.source, Converted):
            return self.source.convert(self.source.path, read_file(self.source.path))
        if isinstance(self.source, str):
            return self.source.encode()
        # what float32 cannot hold becomes infinite, and is refused as such
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(self.source.array[self.source.index], dtype="<f4").tobytes()


def read_file(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        DataError: it cannot be read, is larger than `defaults.MAX_FILE_BYTES`, or is a pipe or a device, which may
            never end; the message does not name it.
    """
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= defaults.MAX_FILE_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError("is not a file")
    raise DataError(f"has {status.st_size / 1e9:.1f} GB, more than the {defaults.MAX_FILE_BYTES / 1e9:.0f} GB allowed")


def content_digest(data: bytes) -> bytes:
    """Return the 16 bytes by which a file's content is known, whatever its name: its BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).digest()


class Reader(threading.local):
    """Reads samples; each thread reads a recording once for windows of it that follow each other."""

    _last: tuple[Path | str | Row | Converted, bytes, bytes] | None = None

    def __call__(self, sample: Sample) -> tuple[bytes, bytes]:
        """Return the content of a sample, for a window that of the whole recording, and the sample's digest.

        The digest is the 16 bytes by which the sample is known: the hash of its content, for a window also of where
        it lies.

        Raises:
            DataError: it cannot be read; the message does not name the sample.
        """
        if sample.span is None:
            content = sample.read()
            return content, content_digest(content)
        if self._last is None or self._last[0] != sample.source:
            content = sample.read()
            self._last = sample.source, content, content_digest(content)
        _, content, digest = self._last
        return content, content_digest(digest + struct.pack("<qq", *sample.span))


class Samples(Sequence[Sample]):
    """Samples that are made when they are asked for: kept as objects they would take half a kilobyte each.

    Args:
        make: a sample by its index.
        indices: which ones, in order.
    """

    def __init__(self, make: Callable[[int], Sample], indices: range | NDArray[np.int64]) -> None:
        self._make = make
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, key: int) -> Sample: ...
    @overload
    def __getitem__(self, key: slice) -> Samples: ...
    def __getitem__(self, key: int | slice) -> Sample | Samples:
        if isinstance(key, slice):
            return Samples(self._make, self._indices[key])
        return self._make(int(self._indices[key]))

    def __add__(self, other: Samples) -> Samples:
        first = len(self)
        return Samples(lambda index: self[index] if index < first else other[index - first], range(first + len(other)))

    def take(self, indices: NDArray[np.int64]) -> Samples:
        """Return those at `indices`, in that order."""
        return Samples(self._make, np.asarray(self._indices)[indices])


def packed(labels: Sequence[Label]) -> Callable[[int], Label]:
    """Return how to look up labels that are kept in one array."""
    if not labels or labels[0] is None:
        return lambda index: None
    if isinstance(labels[0], int):
        classes = np.array(labels, dtype=np.int64)
        return lambda index: int(classes[index])
    table = np.array(labels, dtype=np.float64)
    return lambda index: tuple(table[index].tolist())


class Texts(Sequence[str]):
    """Many texts as the bytes of one, which takes a quarter of what they would take as objects."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._bytes = bytearray()
        ends = [0]
        for text in texts:
            # names of files may hold anything
            self._bytes += text.encode("utf-8", "surrogatepass")
            ends.append(len(self._bytes))
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[str]: ...
    def __getitem__(self, key: int | slice) -> str | Sequence[str]:
        if isinstance(key, slice):
            return [self[index] for index in range(*key.indices(len(self)))]
        start, end = self._ends[key], self._ends[key + 1]
        return self._bytes[start:end].decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Dataset:
    """Labelled samples.

    Attributes:
        root: the folder or file that was read.
        labels: names of the classes, labels or numbers, in the order asked for or else sorted.
        samples: in the order of the data; of class folders sorted by class, then by path.
        input_columns: of a table whose columns are the numbers of an array, which ones, in order.
    """

    root: Path
    labels: tuple[str, ...]
    samples: Samples
    input_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What data are opened for.

    Attributes:
        modality, task: as in `edgetl.artifacts.Manifest`.
        labels: the names expected, in order; empty takes those of the data.
        outputs: how many; 0 if any number will do.
        shape: of an array; None if any will do.
        input_columns, label_columns: of a table; empty looks for the usual names.
    """

    modality: str = "image"
    task: str = "classification"
    labels: tuple[str, ...] = ()
    outputs: int = 0
    shape: tuple[int, ...] | None = None
    input_columns: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()


def wanted_by(
    manifest: Manifest,
    labels: tuple[str, ...],
    input_columns: Sequence[str] = (),
    label_columns: Sequence[str] = (),
) -> Wanted:
    """Return what data for a prepared directory must be, with these names of its outputs."""
    return Wanted(
        modality=manifest.modality,
        task=manifest.task,
        labels=labels,
        outputs=manifest.outputs,
        shape=manifest.inputs[0].shape if manifest.modality == "array" else None,
        input_columns=tuple(input_columns),
        label_columns=tuple(label_columns),
    )


def known_labels(root: Path, found: Sequence[str], wanted: Wanted) -> tuple[str, ...]:
    """Return the labels in order: those wanted, or those found, sorted.

    Raises:
        DataError: a label was found that is not wanted; or none is, and there is but one class.
    """
    names = sorted(set(found))
    if unwritable := [name for name in names if any("\ud800" <= c <= "\udfff" or c == "\0" for c in name)]:
        raise DataError(
            f"{root} has labels that hold half a surrogate pair or the character NUL: {listed(unwritable)}: rename them"
        )
    if not wanted.labels:
        if wanted.task == "classification" and len(names) < 2:
            only = f"one class only ({shown(names[0])})" if names else "no classes"
            raise DataError(f"{root} holds {only}: a classifier needs at least two")
        if not names:
            raise DataError(f"{root} holds no labels: give some sample a label")
        return tuple(names)
    if foreign := [name for name in names if name not in wanted.labels]:
        raise DataError(
            f"{root} has labels that the artifacts do not know: {listed(foreign)}; they know "
            f"{listed(wanted.labels)}. Rename them, or prepare again with --labels-from this data"
        )
    return wanted.labels


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which names are compared: a Mac may take them apart."""
    return unicodedata.normalize("NFC", name)


def unreadable(folder: str | Path, error: OSError) -> DataError:
    """Return the error of a folder that may not be read."""
    return DataError(f"{folder} cannot be read ({error.strerror}): allow it, or give other data")


def entries_of(folder: Path) -> list[Path]:
    """Return what lies in a folder.

    Raises:
        DataError: it may not be read.
    """
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None


def is_hidden(name: str) -> bool:
    """Whether an entry of this name is passed over: systems and tools keep their own things so."""
    return name.startswith(".") or name == "__MACOSX"


def files_of(folder: Path) -> list[str]:
    """Return the files at and below a folder, sorted; hidden ones are passed over.

    Raises:
        DataError: a folder may not be read.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(error.filename, error)

    found: list[str] = []
    for directory, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        paths = (Path(directory, name) for name in sorted(files) if not is_hidden(name))
        found.extend(str(path) for path in paths if path.is_file())
    return found


def listed(names: Sequence[str], limit: int = 8) -> str:
    """Return names for a message, quoted, the first few of many."""
    few = ", ".join(map(shown, names[:limit]))
    return few + (f" and {len(names) - limit} more" if len(names) > limit else "")


def shown(value: object) -> str:
    """Return a value for a message: quoted, and the beginning of a long one."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} …"
