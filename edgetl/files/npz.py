"""Archives of arrays: .npz files that come out the same for the same arrays, and are read without unpickling."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_npz(stream: IO[bytes], arrays: Iterable[tuple[str, NDArray[Any]]], *, comment: bytes = b"") -> None:
    """Write named arrays, which are taken one by one; the comment is the file's end."""
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays:
            # not numpy.savez, whose keyword arguments take names of their own; a fixed date, as it writes
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
        archive.comment = comment


def npz_bytes(arrays: Iterable[tuple[str, NDArray[Any]]]) -> bytes:
    """Return what `write_npz` writes."""
    content = io.BytesIO()
    write_npz(content, arrays)
    return content.getvalue()


def read_npz(stream: IO[bytes], *, keep: Callable[[str], bool] = lambda name: True) -> dict[str, NDArray[Any]]:
    """Read the arrays whose names are to be kept; zip files have a CRC-32 of each.

    Raises:
        edgetl.files.storage.UNREADABLE_NPZ: the file is damaged.
    """
    with np.load(stream, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if keep(name)}
