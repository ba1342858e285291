"""Pictures of more than 8 bits: which of their values are black and white, and how they become 8 bits.

A camera of 10 bits writes 0 to 1023 into a file of 16 bits, which declares nothing of it, so the range is found over a
data set. It is recorded with the run, and the deployed file's metadata have it, so that all read alike.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults, runtime
from edgetl.data.sample import Sample
from edgetl.errors import DataError, EdgetlError
from edgetl.events import Note, OnEvent, ignore

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from edgetl.data.memory import Budget

PixelRange = tuple[float, float]
"""The values that become black and white."""

FULL_RANGE: PixelRange = (0.0, 65535.0)
_NOT_YET_KNOWN: PixelRange = (0.0, 0.0)
_EXAMINED = 64
"""Pictures whose values are looked at; a range is a power of two, which one bright pixel among them decides."""

_GREY, _COLOURS = 8, 24
"""Bytes of a pixel while its values are looked at: in Pillow, on their way to an array, and there."""

_HEAD = 32
_PNG = b"\x89PNG\r\n\x1a\n"
# those that may hold more than 8 bits and do not say what is white: TIFF, JPEG 2000, PFM
_PERHAPS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"Pf", b"PF")
_SIXTEEN_BITS = ("PNG", "PPM")  # at most, though Pillow 10 has room for 32
_SHALLOW = (".jpg", ".jpeg", ".webp", ".gif", ".bmp")  # a thousand files need not be opened to see it
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def check_pixel_range(given: Sequence[float]) -> PixelRange:
    """Return a range as it was given.

    Raises:
        EdgetlError: it is not two finite numbers, the smaller first.
    """
    if len(given) != 2 or not all(map(math.isfinite, given)) or not given[0] < given[1]:
        raise EdgetlError(
            f"--pixel-range takes two numbers, which become black and white, such as 0,1023, not "
            f"{','.join(f'{value:g}' for value in given)}"
        )
    return float(given[0]), float(given[1])


def find_pixel_range(
    samples: Sequence[Sample], *, threads: int = 1, budget: Budget | None = None, on_event: OnEvent = ignore
) -> PixelRange | None:
    """Return the range of the pictures of more than 8 bits among samples, and say it; None if there are none.

    Whole numbers from 0 on have the range of as many bits as their largest needs; fractions the range 0 to 1 or
    0 to 255, if they fill at least half of it; others that from their smallest to their largest value. A picture that
    takes more than the whole `budget` is passed over, as it will be left out when it is to be decoded.
    """
    deep = [sample for sample in samples if _may_be_deep(sample)]
    chosen = [deep[i] for i in np.unique(np.linspace(0, len(deep) - 1, min(len(deep), _EXAMINED)).astype(int))]
    found = [
        each for each in runtime.map_in_order(partial(_extremes, budget), chosen, threads=threads) if each is not None
    ]
    if not found:
        return None
    lows, highs, whole = zip(*found, strict=True)
    low, high = _rounded(min(lows), max(highs), whole=all(whole))
    on_event(
        Note(
            f"pictures of more than 8 bits hold values from {min(lows):g} to {max(highs):g} ({len(found)} were looked "
            f"at): {low:g} becomes black and {high:g} white, in the deployed file too; --pixel-range LOW,HIGH says "
            "otherwise"
        )
    )
    return low, high


def _rounded(low: float, high: float, *, whole: bool) -> PixelRange:
    if whole and low >= 0:
        return 0.0, float(2 ** max(8, int(high).bit_length()) - 1)
    for end in (1.0, 255.0):
        if low >= 0 and end / 2 < high <= end:
            return 0.0, end
    return (low, high) if high > low else (low, low + 1)


def _may_be_deep(sample: Sample) -> bool:
    """Tell by the first bytes of a file."""
    if sample.path is None or sample.path.suffix.lower() in _SHALLOW:
        return False
    try:
        if not sample.path.is_file():  # a pipe may never end
            return False
        with open(sample.path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:  # which will be told when the sample is read
        return False
    return head[24:25] == b"\x10" if head.startswith(_PNG) else head.startswith(_PERHAPS)


def _extremes(budget: Budget | None, sample: Sample) -> tuple[float, float, bool] | None:
    """Return a picture's smallest and largest value, and whether they are whole numbers; None if it has but 8 bits."""
    from PIL import Image

    try:
        data = sample.read()
        with Image.open(io.BytesIO(data)) as image:
            pixels = image.width * image.height
            if pixels > defaults.MAX_PIXELS:
                return None
            needed = len(data) + pixels * (_GREY if image.mode.startswith("I;16") else _COLOURS)
            with contextlib.nullcontext() if budget is None else budget.taken(needed):
                values = deep_values(image, data, _NOT_YET_KNOWN)
                if values is not None:
                    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
                    if finite.size:
                        return float(finite.min()), float(finite.max()), values.dtype.kind != "f"
    except Exception:  # what cannot be read will be left out, and named, when it is decoded
        return None
    return None


def deep_values(image: Image.Image, data: bytes, pixel_range: PixelRange | None) -> NDArray[Any] | None:
    """Return a picture's numbers, `[height, width]` or `[height, width, 3]`, where they have more than 8 bits, or None.

    Args:
        image: as it was opened from `data`; it gets loaded.

    Raises:
        DataError: nothing says which numbers are black and white.
    """
    tiles = list(image.tile) if hasattr(image, "tile") else []
    if image.mode in ("I", "F") and pixel_range is None and image.format not in _SIXTEEN_BITS:
        raise DataError(
            f"has pixels of mode {image.mode}, which have no agreed range: save it as 8-bit, or train with such "
            "pictures, too, whose range is then kept"
        )
    if image.mode.startswith("I") or image.mode == "F":
        image.load()
        return np.asarray(image)
    # of colours Pillow keeps the upper byte; the lower one matters only if the range is not the full one
    if image.mode not in ("RGB", "RGBA") or pixel_range in (None, FULL_RANGE):
        return None
    if not tiles or any(";16" not in _raw_mode(tile) for tile in tiles):
        return None
    image.load()
    upper = np.asarray(image)[:, :, :3].astype(np.uint16)
    return upper << 8 | _lower_bytes(data)


def _raw_mode(tile: Any) -> str:
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _lower_bytes(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture with 16 bits for each colour as if its bytes came in the other order."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        tiles: list[Any] = []
        for tile in image.tile:
            raw = _raw_mode(tile)
            swapped = raw[:-1] + _OTHER_BYTE[raw[-1]]
            arguments = (swapped, *tile[3][1:]) if isinstance(tile[3], tuple) else swapped
            tiles.append(tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments))
        image.tile = tiles
        image.load()
        return np.asarray(image)[:, :, :3]


def scaled(values: NDArray[Any], pixel_range: PixelRange | None) -> NDArray[np.uint8]:
    """Return numbers as 8 bits: the range in 256 equal steps.

    What lies outside takes the nearer end, and what is not a number becomes black.
    """
    low, high = pixel_range or FULL_RANGE
    if values.dtype.kind != "f" and low == 0 and high in _SHIFTS:  # the same, quickly
        eight: NDArray[np.uint8] = (np.clip(values, 0, int(high)) >> _SHIFTS[high]).astype(np.uint8)
        return eight
    step = 0.0 if values.dtype.kind == "f" else 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.floor((values.astype(np.float64) - low) * (256 / (high - low + step)))
    found: NDArray[np.uint8] = np.clip(np.nan_to_num(steps, nan=0.0), 0, 255).astype(np.uint8)
    return found


_SHIFTS = {float(2**bits - 1): bits - 8 for bits in range(8, 32)}
