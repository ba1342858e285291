"""What the samples of data are, as far as the data themselves say it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgetl.data import arrays, series, table
from edgetl.data.parts import find_layout
from edgetl.data.sample import files_of

RECORDINGS = {".wav", ".wave", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aif", ".aiff"}
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_LOOKED_AT = 100


@dataclass(frozen=True)
class Kind:
    """The modality of samples, and of arrays the shape of one; the modality is None if nothing tells it.

    Attributes:
        is_series: whether the arrays are files of rows, which may be turned.
    """

    modality: str | None
    shape: tuple[int, ...] | None = None
    is_series: bool = False

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes in which a network can be given such arrays, the likeliest first: turned, or with an axis more."""
        if self.shape is None:
            return ()
        turned = (self.shape, self.shape[::-1]) if self.is_series and len(self.shape) == 2 else (self.shape,)
        return (*turned, *((1, *shape) for shape in turned))

    @property
    def what(self) -> str:
        """A word for several of them."""
        if self.modality == "array":
            return f"arrays of {'×'.join(map(str, self.shape))}" if self.shape else "arrays"
        return {"image": "pictures", "audio": "recordings", "text": "texts"}.get(str(self.modality), "samples")


def kind_of(data: Path, label_columns: Sequence[str] = ()) -> Kind:
    """Return what the samples of a folder, a table or an archive are.

    Raises:
        DataError: it cannot be read.
    """
    suffix = data.suffix.lower()
    if data.is_dir():
        files = (name for _, _, names in os.walk(data) for name in names if not name.startswith("."))
        modality = _modality_of(list(islice(files, _LOOKED_AT)))
        return Kind(modality) if modality is not None else _in_folder(data)
    if suffix in arrays.SUFFIXES:
        return Kind("array", arrays.sample_shape(data))
    if suffix in table.SUFFIXES:
        modality, example = table.samples_of(data, tuple(label_columns))
        if modality == "array":
            return Kind("array", (int(example),))
        return Kind(modality if modality == "text" else _modality_of([example]))
    return Kind(None)


def _in_folder(data: Path) -> Kind:
    """Return what the samples of a folder are that holds neither pictures nor recordings."""
    train = find_layout(data).parts.get("train", data)
    if train.is_file():
        return kind_of(train)
    if table.metadata_of(train) is not None:
        return Kind(None)
    files = [Path(file) for file in files_of(train)]
    numbers = [file for file in files if file.suffix.lower() in series.SUFFIXES and file.parent != train]
    return Kind("array", series.series_shape(numbers), is_series=True) if numbers else Kind(None)


def _modality_of(names: Sequence[str]) -> str | None:
    """Return the modality that all files have whose endings tell one."""
    endings = {os.path.splitext(name)[1].lower() for name in names}  # noqa: PTH122  # many
    if endings & PICTURES:
        return None if endings & RECORDINGS else "image"
    return "audio" if endings & RECORDINGS else None
