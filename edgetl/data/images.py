"""A picture file to pixels, or one sentence that says why not."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults
from edgetl.data.depth import PixelRange, deep_values, scaled
from edgetl.data.metadata import without_metadata
from edgetl.errors import DataError, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

_ORIENTATION = 0x0112  # the EXIF tag
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_NEARLY_WHITE = 240
_MOST = 0.9
_STRIP = 1 << 16
"""Pixels."""


def read_rgb(data: bytes, *, at_least: int | None = None, pixel_range: PixelRange | None = None) -> NDArray[np.uint8]:
    """Decode an encoded picture (JPEG, PNG, WebP, … what Pillow reads), turned upright as its EXIF data says.

    Metadata that are damaged are passed over, and the picture is taken as upright. What is transparent is laid on
    white, or on black where nearly all that is visible is nearly white.

    Args:
        at_least: a number of pixels; a JPEG whose sides are both at least twice as long may be
            decoded at a half, a quarter or an eighth of its size, for a fraction of time and memory.
        pixel_range: of pictures with more than 8 bits, which values become black and white
            (`edgetl.data.depth`); None takes 16 bits as 0 to 65535.

    Returns:
        `[height, width, 3]` uint8, RGB.

    Raises:
        DataError: truncated, not a picture, larger than `defaults.MAX_PIXELS`, or of numbers without an
            agreed range and without a `pixel_range`. The message does not name the file.
    """
    try:
        return _as_rgb(_decoded(data, at_least, pixel_range))
    except _Damaged as error:
        bare = without_metadata(data)
        if bare == data:
            raise
        try:
            return _as_rgb(_decoded(bare, at_least, pixel_range))
        except DataError:
            raise error from None


class _Damaged(DataError):
    """The decoder stopped, perhaps at something else than pixels."""


def _decoded(data: bytes, at_least: int | None, pixel_range: PixelRange | None) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

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
            extent = image.size if at_least is None else draft(image, at_least)
            deep = deep_values(image, data, pixel_range)
            image.load()
            turn = _turn(image)
            shallow = image if deep is None else _with_colours(image, scaled(deep, pixel_range))
            if extent != image.size:
                shallow = _in_whole_pixels(shallow, extent)
            return shallow if turn is None else shallow.transpose(turn)
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
            raise DataError("is a HEIC picture, which is not read: save it as JPEG") from None
        raise _Damaged("is not a picture" if data else "is empty") from None
    except Image.DecompressionBombError:
        raise DataError(f"declares more than the {defaults.MAX_PIXELS / 1e6:.0f} million pixels allowed") from None
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they like on damaged input
        if "truncated" in str(error):
            raise _Damaged("is truncated") from None
        raise _Damaged(f"is damaged ({first_line(error)})") from None


def draft(image: Image.Image, at_least: int) -> tuple[float, float]:
    """Let a JPEG that is not loaded yet be decoded at a part of its size, if both sides keep `at_least` pixels.

    Returns:
        Width and height of what it shows, in pixels as they will be decoded: 755.25 of a side of 3021 at a quarter. The
        picture's own size is then 756, and most of the last pixel lies beyond what the camera took.
    """
    drafted = image.draft(None, (at_least, at_least))
    return image.size if drafted is None else drafted[1][2:]


def _in_whole_pixels(image: Image.Image, extent: tuple[float, float]) -> Image.Image:
    """Resample a picture so that its pixels end where it does, as all pixels of a full decode do.

    Else all that is computed from its size, the aspect ratio and where the crop begins, is off by up to a pixel.
    """
    from PIL import Image

    width, height = extent
    return image.resize((round(width), round(height)), Image.Resampling.LANCZOS, box=(0, 0, width, height))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How a picture is turned upright, as `PIL.ImageOps.exif_transpose` does it; None if its EXIF data do not say."""
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow's parsers raise whatever they like on damaged metadata, which say nothing
        return None
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return turns.get(orientation) if isinstance(orientation, int) else None


def _with_colours(image: Image.Image, values: NDArray[np.uint8]) -> Image.Image:
    """Return an 8-bit picture of these values, `[height, width]` or `[height, width, 3]`, as transparent as `image`."""
    from PIL import Image

    shallow = Image.fromarray(values)
    if image.mode == "RGBA":
        shallow.putalpha(image.getchannel("A"))
    elif (key := image.info.get("transparency")) is not None and values.ndim == 2 and isinstance(key, int):
        shallow.putalpha(Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)))
    return shallow


def _as_rgb(image: Image.Image) -> NDArray[Any]:
    """Return the pixels of an 8-bit picture, `[height, width, 3]` uint8; what is transparent on white, or on black.

    The snippet in docs/deploy.md does the same.
    """
    from PIL import Image

    if not image.has_transparency_data:
        return _pixels(image if image.mode == "RGB" else image.convert("RGB"))
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    visible = image.convert("L").histogram(image.getchannel("A"))
    is_bright = sum(visible[_NEARLY_WHITE:]) > _MOST * sum(visible)
    background = Image.new("RGB", image.size, "black" if is_bright else "white")
    background.paste(image, mask=image.getchannel("A"))
    return _pixels(background)


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Return a picture as an array; strip by strip, where NumPy would copy all of it twice."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(_STRIP // width, 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels
