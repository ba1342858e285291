"""Zip archives that models come in."""

from __future__ import annotations

import zipfile
from pathlib import Path

from edgetl.errors import ModelError

_RATIO = 10  # weights hardly compress, and both PyTorch and Keras store them as they are


def refuse_bomb(file: Path) -> None:
    """Refuse an archive that would unpack to far more than it is.

    Raises:
        ModelError: it declares so.
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    with zipfile.ZipFile(file) as archive:
        declared, held = sum(info.file_size for info in archive.infolist()), file.stat().st_size
    if declared > _RATIO * held:
        raise ModelError(
            f"{file} declares {declared / 1e9:.3g} GB in {held / 1e9:.3g} GB, which is no model: save it anew"
        )
