"""What is transparent is laid on a background on which it shows, however a file says what is transparent."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from edgetl.data.dataset import read_rgb

SIZE = 24
HIDDEN = (10, 20, 30)  # the colour below the transparency


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ring(mode: str, colour: tuple[int, int, int], background: tuple[int, int, int] = HIDDEN) -> bytes:
    """A ring of a colour, transparent elsewhere."""
    image = Image.new("RGBA", (SIZE, SIZE), (*background, 0))
    ImageDraw.Draw(image).ellipse((3, 3, 20, 20), outline=(*colour, 255), width=3)
    if mode == "RGBA":
        return encoded(image)
    if mode == "LA":
        return encoded(image.convert("LA"))
    if mode == "WebP":
        return encoded(image, "WEBP", lossless=True, exact=True)
    opaque = image.convert("RGB")
    if mode == "RGB with tRNS":
        return encoded(opaque, transparency=background)
    if mode == "L with tRNS":
        return encoded(opaque.convert("L"), transparency=opaque.convert("L").getpixel((0, 0)))
    palette = opaque.quantize(4, dither=Image.Dither.NONE)
    hidden = palette.getpixel((0, 0))
    if mode == "palette with one":
        return encoded(palette, transparency=hidden)
    if mode == "palette with several":
        return encoded(palette, transparency=bytes(0 if index == hidden else 255 for index in range(4)))
    return encoded(palette, "GIF", transparency=hidden)


MODES = ["RGBA", "LA", "WebP", "RGB with tRNS", "L with tRNS", "palette with one", "palette with several", "GIF"]


@pytest.mark.parametrize(
    ("colour", "expected"), [((200, 200, 200), 255), ((0, 0, 0), 255), ((255, 255, 255), 0), ((250, 250, 250), 0)]
)
@pytest.mark.parametrize("mode", MODES)
def test_a_ring_shows(mode: str, colour: tuple[int, int, int], expected: int) -> None:
    if mode == "WebP" and not features.check("webp"):
        pytest.skip("this Pillow does not read WebP")
    pixels = read_rgb(ring(mode, colour))
    assert (pixels[0, 0] == expected).all()
    assert (pixels[12, 12] == expected).all()
    np.testing.assert_allclose(pixels[4, 12], colour, atol=1)


def test_half_transparent_is_mixed() -> None:
    pixels = read_rgb(encoded(Image.new("RGBA", (2, 2), (200, 100, 0, 51))))  # a fifth
    np.testing.assert_allclose(pixels[0, 0], [0.2 * 200 + 0.8 * 255, 0.2 * 100 + 0.8 * 255, 0.8 * 255], atol=1)


def test_nothing_visible_is_white() -> None:
    assert (read_rgb(encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 0)))) == 255).all()


def test_an_opaque_picture_is_as_without_its_alpha() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.putalpha(255)
    np.testing.assert_array_equal(read_rgb(encoded(image)), pixels)


def test_sixteen_bits_with_a_transparent_value() -> None:
    values = np.full((4, 4), 30_000, np.uint16)
    values[0, 0] = 7
    data = encoded(Image.fromarray(values))
    chunk = b"tRNS\x00\x07"
    import zlib

    trns = b"\0\0\0\x02" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    pixels = read_rgb(data[:33] + trns + data[33:])
    assert (pixels[0, 0] == 255).all()
    assert (pixels[1, 1] == 30_000 >> 8).all()
