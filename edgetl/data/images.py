"""A picture file to pixels, or one sentence that says why not."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np

from edgetl import defaults
from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def content_digest(data: bytes) -> bytes:
    """Return the 16 bytes by which a file's content is known, whatever its name: its BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).digest()


def read_rgb(data: bytes, *, at_least: int | None = None) -> NDArray[np.uint8]:
    """Decode an encoded picture (JPEG, PNG, WebP, … what Pillow reads), turned upright as its EXIF data says.

    Args:
        at_least: a number of pixels; a JPEG whose sides are both at least twice as long may be
            decoded at a half, a quarter or an eighth of its size, for a fraction of time and memory.

    Returns:
        `[height, width, 3]` uint8, RGB; transparent parts keep their colour.

    Raises:
        DataError: truncated, not a picture, or larger than `defaults.MAX_PIXELS`. The message does
            not name the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "EPS":  # a program, which Pillow would hand to Ghostscript
                raise DataError("is an EPS file, which is not read: save it as PNG")
            width, height = image.size
            if width * height > defaults.MAX_PIXELS:
                raise DataError(
                    f"declares {width}×{height} pixels, more than the {defaults.MAX_PIXELS / 1e6:.0f} million allowed"
                )
            if width * height == 0:
                raise DataError("has no pixels")
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _to_rgb(upright)
    except UnidentifiedImageError:
        raise DataError("is not a picture" if data else "is empty") from None
    except Image.DecompressionBombError:
        raise DataError(f"declares more than the {defaults.MAX_PIXELS / 1e6:.0f} million pixels allowed") from None
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they like on damaged input
        if "truncated" in str(error):
            raise DataError("is truncated") from None
        raise DataError(f"is damaged ({error})") from None


def _to_rgb(image: object) -> NDArray[np.uint8]:
    from PIL import Image

    assert isinstance(image, Image.Image)
    if image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would clip instead of scale
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise DataError(f"has pixels of mode {image.mode}, which have no agreed range: save it as 8-bit")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))
