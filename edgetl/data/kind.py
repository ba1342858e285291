"""What the samples of data are, as far as the data themselves say it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgetl.data import arrays, table

RECORDINGS = {".wav", ".wave", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aif", ".aiff"}
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_LOOKED_AT = 100


@dataclass(frozen=True)
class Kind:
    """The modality of samples, and of arrays the shape of one; the modality is None if nothing tells it."""

    modality: str | None
    shape: tuple[int, ...] | None = None

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
        return Kind(_modality_of(list(islice(files, _LOOKED_AT))))
    if suffix in arrays.SUFFIXES:
        return Kind("array", arrays.sample_shape(data))
    if suffix in table.SUFFIXES:
        modality, example = table.samples_of(data, tuple(label_columns))
        if modality == "array":
            return Kind("array", (int(example),))
        return Kind(modality if modality == "text" else _modality_of([example]))
    return Kind(None)


def _modality_of(names: Sequence[str]) -> str | None:
    """Return the modality that all files have whose endings tell one."""
    endings = {os.path.splitext(name)[1].lower() for name in names}  # noqa: PTH122  # many
    if endings & PICTURES:
        return None if endings & RECORDINGS else "image"
    return "audio" if endings & RECORDINGS else None
