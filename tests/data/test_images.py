import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.data import read_rgb
from edgetl.errors import DataError


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (7, 5)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = noise(mode)
    pixels = read_rgb(encode(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert pixels.shape == (5, 7, 3)
    assert pixels.dtype == np.uint8
    if mode in ("RGB", "L"):
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_sixteen_bits_are_scaled() -> None:
    values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    pixels = read_rgb(encode(Image.fromarray(values)))
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 0, 1, 255])


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to show
    turned = read_rgb(encode(noise(), "JPEG", exif=exif, quality=95))
    upright = read_rgb(encode(noise(), "JPEG", quality=95))
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize(("size", "expected"), [((640, 480), (160, 120)), ((200, 150), (200, 150))])
def test_a_large_jpeg_may_be_decoded_smaller(size: tuple[int, int], expected: tuple[int, int]) -> None:
    smooth = noise(size=(4, 3)).resize(size)
    data = encode(smooth, "JPEG", quality=95)
    pixels = read_rgb(data, at_least=100)
    assert pixels.shape[1::-1] == expected
    difference = pixels.astype(float) - np.asarray(smooth.resize(expected))
    assert np.abs(difference).mean() < 4
    assert read_rgb(encode(smooth), at_least=100).shape[1::-1] == size  # PNG has no such way


@pytest.mark.parametrize("turn", [1, 6])
def test_a_scaled_decode_ends_where_the_picture_does(turn: int) -> None:
    # 1003 / 8 = 125.375: libjpeg gives 126 pixels, of which the last shows three camera's pixels and five of nothing
    width, height = 1003, 820
    ramp = np.broadcast_to((np.arange(width) + 0.5) / width * 255, (height, width)).round().astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(Image.fromarray(ramp).convert("RGB"), "JPEG", quality=100, subsampling=0, exif=exif)
    pixels = read_rgb(data, at_least=100)
    if turn == 6:
        pixels = np.rot90(pixels)
    assert pixels.shape == (102, 125, 3)
    expected = (np.arange(125) + 0.5) / 125 * 255
    # the mean over a stretch, for each pixel is rounded; cut off instead it is 0.46, and with 126 pixels 1.1
    assert abs((pixels[10:-10].mean(axis=(0, 2)) - expected)[-50:-5].mean()) < 0.3


def test_large_pictures_are_put_together_from_strips() -> None:
    image = noise(size=(1500, 301))
    np.testing.assert_array_equal(read_rgb(encode(image)), np.asarray(image))


def test_a_truncated_picture_says_so() -> None:
    data = encode(noise(size=(64, 64)), "JPEG")
    with pytest.raises(DataError, match="truncated"):
        read_rgb(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC picture, which is not read: save it as JPEG"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_rgb(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_declared_size() -> None:
    header = bytearray(encode(Image.new("L", (1, 1))))
    for width, height in ((11_000, 11_000), (60_000, 60_000)):
        header[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        # the header's checksum would be wrong too, so rebuild it
        import zlib

        header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
        with pytest.raises(DataError, match="million"):
            read_rgb(bytes(header))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=40), st.integers(0, 10_000), st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]))
def test_damaged_bytes_end_in_a_picture_or_in_one_sentence(junk: bytes, position: int, kind: str) -> None:
    import warnings

    data = bytearray(encode(noise(size=(16, 16)), kind))
    position %= len(data)
    data[position : position + len(junk)] = junk
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = read_rgb(bytes(data))
        except DataError:
            pass
        else:
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
