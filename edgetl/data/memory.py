"""How much memory decoding a picture takes, by its header alone, and what several threads may take at once."""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl import defaults
from edgetl.data.images import draft
from edgetl.errors import DataError
from edgetl.runtime import process

if TYPE_CHECKING:
    from PIL import Image

    from edgetl.artifacts import Preprocessing
    from edgetl.data.sample import Sample

_RGB = 8
"""Bytes of a pixel while an RGB picture is decoded: Pillow's four, and four more to turn it, or three in an array."""

_RESAMPLED = 12
"""The same, of a scaled JPEG whose last pixels lie beyond it: Pillow's four before and after, and those in between."""

_OTHER = 7
"""Bytes of a pixel beside those of another mode: Pillow's RGB, and the array."""

_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}
"""Bytes of a pixel in Pillow, where they are not four."""

_LIBRARY = {"WEBP": 12, "AVIF": 6, "JPEG2000": 16}
"""Bytes of a pixel that a decoder holds beside its result, as measured."""

_RESIZING = {3: 6, 1: 21}
"""Bytes of a pixel in preprocess.onnx, by the network's channels: the array and its middle; grey comes from float32."""

_SHARE = 0.8
"""Of the memory that is free, where no limit was named."""

_SOME = 32
"""Samples whose headers stand for all."""

_FILE = 0.4
"""Bytes of a pixel in a photograph's file."""


def decoding_bytes(source: bytes | Path, preprocessing: Preprocessing | None, at_least: int | None = None) -> int:
    """Return what decoding and preprocessing a picture take beside its content, by its header.

    0 for other samples than pictures (`preprocessing` is None), and for what is not a picture, which decoding tells.

    Args:
        source: the content, or the file.
        at_least: as in `edgetl.data.images.read_rgb`.
    """
    if preprocessing is None:
        return 0
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if math.prod(image.size) > defaults.MAX_PIXELS:
                return 0  # refused before it is decoded
            coefficients = _coefficients(image)
            extent = image.size if at_least is None else draft(image, at_least)
            stored, library = _STORED.get(image.mode, 4), _LIBRARY.get(image.format or "", 0)
            pixels = math.prod(image.size)
            converting = pixels * (_RGB if image.mode == "RGB" else stored + _OTHER)
            if extent != image.size:
                converting = max(converting, pixels * _RESAMPLED)
            resizing = pixels * _RESIZING[preprocessing.channels]
            return max(coefficients + pixels * (stored + library), converting, resizing)
    except Exception:  # Pillow raises whatever it likes on damaged input, and will again
        return 0


def _coefficients(image: Image.Image) -> int:
    """Return what a progressive JPEG keeps of the whole picture until its last scan: two bytes for each coefficient."""
    if image.format != "JPEG" or "progressive" not in image.info:
        return 0
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    widest, highest = (max((layer[axis] for layer in layers), default=1) for axis in (1, 2))
    share = sum(layer[1] * layer[2] for layer in layers) / max(widest * highest, 1)
    return int(2 * share * math.prod(image.size))


def photograph_mb(width: int, height: int, preprocessing: Preprocessing, at_least: int | None) -> float:
    """Return what a JPEG of that size takes to be read, decoded and preprocessed, 10^6 bytes."""
    scale = 1
    if at_least is not None:
        scale = max(s for s in (1, 2, 4, 8) if s == 1 or min(width, height) // at_least >= s)
    decoding = _RESAMPLED if width % scale or height % scale else _RGB
    return width * height * (_FILE + max(decoding, _RESIZING[preprocessing.channels]) / scale**2) / 1e6


def typical_mb(samples: Sequence[Sample], preprocessing: Preprocessing | None, at_least: int | None) -> float:
    """Return what decoding one of the samples takes, 10^6 bytes: the median of a few, by their headers."""
    if preprocessing is None or not samples:
        return 0.0
    some = [samples[index * len(samples) // _SOME] for index in range(_SOME)]
    files = [sample.path for sample in some if sample.path is not None and sample.path.is_file()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of large pictures, which decoding tells in its own words
        found = [decoding_bytes(file, preprocessing, at_least) + file.stat().st_size for file in files]
    return statistics.median(found) / 1e6 if found else 0.0


class Budget:
    """Memory for decoding that several threads share: who needs more than is left waits for the others.

    Args:
        limit_mb: 10^6 bytes; None takes a share of what is free.
    """

    def __init__(self, limit_mb: float | None = None) -> None:
        if limit_mb is None:
            free = process.available_memory_mb()
            limit_mb = math.inf if free is None else _SHARE * free
        self._limit = max(limit_mb, 0.0) * 1e6
        self._taken = 0.0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, nbytes: int) -> Iterator[None]:
        """Hold so much memory while the block runs; wait for it before.

        Raises:
            DataError: it is more than all threads may take together. The message does not name the sample.
        """
        if nbytes > self._limit:
            raise DataError(
                f"takes {nbytes / 1e6:.0f} MB to decode, where {self._limit / 1e6:.0f} MB are left for it: make it "
                "smaller, or save it as a baseline JPEG"
            )
        with self._changed:
            self._changed.wait_for(lambda: self._taken + nbytes <= self._limit)
            self._taken += nbytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= nbytes
                self._changed.notify_all()
