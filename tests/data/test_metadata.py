"""Pictures whose pixels are whole and whose metadata are not: viewers show them, so they are read, upright."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from edgetl.data.dataset import read_rgb
from edgetl.data.metadata import without_metadata
from edgetl.errors import DataError

PIXELS = np.kron(np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
TURN = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # EXIF: rotate clockwise to show

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL")


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes, checksum: bytes | None = None) -> bytes:
    crc = zlib.crc32(kind + body).to_bytes(4, "big") if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + crc


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


PNG_CHUNKS = {
    "EXIF that is none": (b"eXIf", b"junk"),
    "EXIF that leads nowhere": (b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "text": (b"tEXt", b"\xff\xfe"),
    "text that is no text": (b"zTXt", b"k\0\0junk"),
    "text that is a bomb": (b"zTXt", b"k\0\0" + zlib.compress(bytes(20_000_000))),
    "international text": (b"iTXt", b"k\0\1\0\0\0junk"),
    "EXIF as text": (b"tEXt", b"Raw profile type exif\0\nexif\n   8\nzz"),
    "profile": (b"iCCP", b"x"),
    "density": (b"pHYs", b"\0\0"),
    "gamma": (b"gAMA", b"\0"),
    "chromaticities": (b"cHRM", b"\0\1"),
    "rendering": (b"sRGB", b""),
    "animation": (b"acTL", b"1"),
}
JPEG_SEGMENTS = {
    "EXIF that is none": (0xE1, b"Exif\0\0junk"),
    "EXIF that leads nowhere": (0xE1, b"Exif\0\0II*\0\xff\xff\xff\x0f"),
    "EXIF that is cut": (0xE1, b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"),
    "EXIF that turns unheard of": (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\1\0\x63\0\0\0\0\0\0"),
    "density": (0xE0, b"JFIF\0"),
    "profile": (0xE2, b"ICC_PROFILE\0\x05\x01xx"),
    "several pictures": (0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
    "Photoshop": (0xED, b"Photoshop 3.0\x008BI"),
    "Adobe": (0xEE, b"Adobe"),
    "comment": (0xFE, b"\xff\xfe\0"),
}


@pytest.mark.parametrize("is_checked", [True, False], ids=["checksum", "no checksum"])
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize(("kind", "body"), PNG_CHUNKS.values(), ids=PNG_CHUNKS)
def test_png(kind: bytes, body: bytes, is_before: bool, is_checked: bool) -> None:
    whole = encoded("PNG")
    place = 33 if is_before else len(whole) - 12
    data = whole[:place] + chunk(kind, body, None if is_checked else b"\0\1\2\3") + whole[place:]
    np.testing.assert_array_equal(read_rgb(data), PIXELS)


@pytest.mark.parametrize(("marker", "body"), JPEG_SEGMENTS.values(), ids=JPEG_SEGMENTS)
def test_jpeg(marker: int, body: bytes) -> None:
    whole = encoded("JPEG", quality=95)
    for place in (2, 20):  # before and behind JFIF's own
        data = whole[:place] + segment(marker, body) + whole[place:]
        np.testing.assert_array_equal(read_rgb(data), read_rgb(whole))


@pytest.mark.skipif(not features.check("webp"), reason="this Pillow does not read WebP")
def test_webp() -> None:
    whole = encoded("WEBP", lossless=True, exif=b"Exif\0\0" + TURN, xmp=b"<x/>", icc_profile=b"junk" * 20)
    place = whole.index(b"EXIF") + 8
    damaged = {
        "junk": whole[:place] + b"\xff" * (len(TURN) + 6) + whole[place + len(TURN) + 6 :],
        "cut in EXIF": whole[: place + 2],
        "too large": whole[: place - 4] + b"\xff\xff\0\0" + whole[place:],
        "cut in XMP": whole[: whole.index(b"XMP ") + 9],
    }
    turned = np.rot90(PIXELS, -1)
    np.testing.assert_array_equal(read_rgb(whole), turned)
    for name, data in damaged.items():
        expected = turned if name == "cut in XMP" else PIXELS
        np.testing.assert_array_equal(read_rgb(data), expected, name)


def test_what_is_whole_beside_it_still_turns_the_picture() -> None:
    png = encoded("PNG", exif=TURN)
    data = png[:33] + chunk(b"pHYs", b"\0") + png[33:]
    np.testing.assert_array_equal(read_rgb(data), np.rot90(PIXELS, -1))
    jpeg = encoded("JPEG", exif=b"Exif\0\0" + TURN)
    data = jpeg[:2] + segment(0xEE, b"Adobe") + jpeg[2:]
    np.testing.assert_array_equal(read_rgb(data), np.rot90(read_rgb(encoded("JPEG")), -1))


def test_every_turn_is_pillows() -> None:
    from PIL import ImageOps

    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded("PNG", exif=exif)
        np.testing.assert_array_equal(read_rgb(data), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def test_damaged_pixels_are_still_refused() -> None:
    png, jpeg = encoded("PNG"), encoded("JPEG")
    for data in (png[:-40], jpeg[: len(jpeg) // 2], png.replace(b"IDAT", b"IDAU"), b"\x89PNG\r\n\x1a\n", b"\xff\xd8"):
        with pytest.raises(DataError):
            read_rgb(data)


def test_colours_stay_what_they_are() -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(stream, "JPEG")
    data = stream.getvalue()
    np.testing.assert_array_equal(read_rgb(without_metadata(data)), read_rgb(data))
    for kind in ("GIF", "BMP", "TIFF"):
        assert without_metadata(encoded(kind)) == encoded(kind)
