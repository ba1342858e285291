"""Pictures of more than 8 bits: the range is found over a data set, told, kept with the run, and used by the model."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from edgetl import deploy, evaluate, finetune, predict
from edgetl.data import Sample, read_rgb
from edgetl.data.depth import FULL_RANGE, find_pixel_range, scaled
from edgetl.data.memory import Budget
from edgetl.errors import DataError, EdgetlError
from edgetl.events import Event, Note
from edgetl.run import Run


def encoded(values: NDArray[np.generic], kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


def colour_png(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits for each of 3 or 4 channels, which Pillow does not write."""
    height, width, channels = values.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def colour_tiff(values: NDArray[np.uint16], order: str, compression: int) -> bytes:
    """A TIFF of 16 bits for each of 3 channels, plain (1) or deflated (8), in either order of bytes."""
    height, width, _ = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if compression == 8 else data
    bits = 8 + 2 + 12 * 9 + 4
    long, short = 4, 3
    tags = [(256, long, 1, width), (257, long, 1, height), (258, short, 3, bits), (259, short, 1, compression),
            (262, short, 1, 2), (273, long, 1, bits + 6), (277, short, 1, 3), (278, long, 1, height),
            (279, long, 1, len(data))]  # fmt: skip
    found = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, count, value in tags:
        body = struct.pack(f"{order}HH", value, 0) if kind == short and count == 1 else struct.pack(f"{order}I", value)
        found += struct.pack(f"{order}HHI", tag, kind, count) + body
    return found + struct.pack(f"{order}IHHH", 0, 16, 16, 16) + data


GREY = np.random.default_rng(0).integers(0, 1024, (5, 7), np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 1024, (5, 7, 3), np.uint16)


@pytest.mark.parametrize("options", [{"kind": "PNG"}, {"kind": "TIFF"}, {"kind": "TIFF", "compression": "tiff_lzw"}])
def test_ten_bits_of_grey(options: dict[str, str]) -> None:
    if "compression" in options and not features.check("libtiff"):
        pytest.skip("this Pillow does not compress TIFF")
    pixels = read_rgb(encoded(GREY, **options), pixel_range=(0, 1023))
    np.testing.assert_array_equal(pixels, np.repeat((GREY // 4)[:, :, None], 3, axis=2))


def test_ten_bits_of_colour() -> None:
    opaque = np.full((5, 7, 1), 65535, np.uint16)
    files = [colour_png(COLOUR), colour_png(np.concatenate([COLOUR, opaque], axis=2)), colour_tiff(COLOUR, "<", 1),
             colour_tiff(COLOUR, ">", 1)]  # fmt: skip
    if features.check("libtiff"):
        files += [colour_tiff(COLOUR, "<", 8), colour_tiff(COLOUR, ">", 8)]
    for data in files:
        np.testing.assert_array_equal(read_rgb(data, pixel_range=(0, 1023)), COLOUR // 4)
        np.testing.assert_array_equal(read_rgb(data), COLOUR // 256)  # nothing said: all 16 bits


def test_fractions_and_32_bits() -> None:
    fractions = np.array([[0, 0.25, 0.999, 1.0, np.nan]], np.float32)
    data = encoded(fractions, "TIFF")
    np.testing.assert_array_equal(read_rgb(data, pixel_range=(0, 1))[0, :, 0], [0, 64, 255, 255, 0])
    with pytest.raises(DataError, match="no agreed range"):
        read_rgb(data)
    depths = np.array([[-1000, 0, 1000]], np.int32)
    np.testing.assert_array_equal(read_rgb(encoded(depths, "TIFF"), pixel_range=(-1000, 1000))[0, :, 0], [0, 127, 255])


def test_a_declared_maximum_is_kept() -> None:
    # PGM says what is white, and Pillow scales by it
    data = b"P5 3 1 1023\n" + np.array([0, 512, 1023], ">u2").tobytes()
    np.testing.assert_array_equal(read_rgb(data)[0, :, 0], [0, 128, 255])


def test_sixteen_bits_are_cut_as_ever() -> None:
    values = np.array([0, 255, 256, 65535], np.uint16)
    for given in (None, FULL_RANGE):
        np.testing.assert_array_equal(scaled(values, given), [0, 0, 1, 255])
    np.testing.assert_array_equal(scaled(np.array([0, 2000]), (0, 1023)), [0, 255])
    # the quick way and the general one are the same
    for bits in (8, 10, 12, 14, 16):
        some = np.arange(0, 2**bits, 7)
        np.testing.assert_array_equal(scaled(some, (0, 2**bits - 1)), np.floor(some * 256 / 2**bits))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[3, 1000]], np.uint16), (0, 1023)),
        (np.array([[3, 4000]], np.uint16), (0, 4095)),
        (np.array([[3, 33_000]], np.uint16), (0, 65535)),
        (np.array([[3, 200]], np.uint16), (0, 255)),
        (np.array([[-5, 70_000]], np.int32), (-5, 70_000)),
        (np.array([[0.1, 0.7]], np.float32), (0, 1)),
        (np.array([[0.5, 200.5]], np.float32), (0, 255)),
        (np.array([[-2, 6.5, np.nan]], np.float32), (-2, 6.5)),
        (np.array([[4.5, 4.5]], np.float32), (4.5, 5.5)),
        (np.array([[3, 200]], np.uint8), None),
    ],
)
def test_a_range_is_found(tmp_path: Path, values: NDArray[np.generic], expected: tuple[float, float] | None) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(encoded(values, "TIFF"))
    (tmp_path / "b.tif").write_bytes(b"II*\0junk")
    notes: list[Event] = []
    samples = [Sample(str(path), None, path) for path in (file, tmp_path / "b.tif", tmp_path / "missing.png")]
    assert find_pixel_range(samples, on_event=notes.append) == expected
    assert len(notes) == (expected is not None)


def test_the_brightest_of_all_decides(tmp_path: Path) -> None:
    for number, top in enumerate((100, 900, 300)):
        (tmp_path / f"{number}.png").write_bytes(encoded(np.full((2, 2), top, np.uint16)))
    samples = [Sample(str(path), None, path) for path in sorted(tmp_path.iterdir())]
    assert find_pixel_range(samples) == (0, 1023)


def test_the_range_is_looked_for_within_a_budget(tmp_path: Path) -> None:
    # eight bytes a pixel and the file: 0.8 MB, and 8
    for name, side, largest in (("small", 300, 1023), ("large", 1000, 4095)):
        (tmp_path / f"{name}.png").write_bytes(encoded(np.full((side, side), largest, np.uint16)))
    samples = [Sample(name, 0, tmp_path / f"{name}.png") for name in ("small", "large")]
    assert find_pixel_range(samples, threads=2, budget=Budget(9)) == (0, 4095)
    assert find_pixel_range(samples, threads=2, budget=Budget(2)) == (0, 1023)


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """The digits as a camera of 10 bits writes them."""
    root = tmp_path_factory.mktemp("camera")
    for file in (digits / "train").rglob("*.png"):
        values = np.asarray(Image.open(file).convert("L")).astype(np.uint16) * 4
        target = root / file.relative_to(digits / "train")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encoded(values))
    return root


def test_from_training_to_the_deployed_file(
    camera: Path, digits: Path, digits_artifacts: Path, digits_run: Path, tmp_path: Path
) -> None:
    notes: list[Event] = []
    result = finetune(digits_artifacts, camera, out=tmp_path / "run", epochs=5, lr=1e-2, on_event=notes.append)
    assert any(isinstance(note, Note) and "0 becomes black and 1023 white" in note.text for note in notes)
    plain = Run(digits_run).read_metrics()
    assert plain is not None
    assert result.val_accuracy == plain["val_accuracy"]  # as of the same pictures of 8 bits
    assert Run(tmp_path / "run").read_args().pixel_range == (0, 1023)
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    metadata = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["edgetl"])["pixel_range"] == [0, 1023]
    deep = evaluate(tmp_path / "model.onnx", camera)
    assert deep.accuracy == evaluate(tmp_path / "model.onnx", digits / "train").accuracy
    file = next((camera / "7").iterdir())
    both = predict(tmp_path / "model.onnx", [file, digits / "train" / "7" / file.name])
    assert both[0].top == both[1].top
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_range_that_is_given_decides(camera: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    finetune(digits_artifacts, camera, out=tmp_path / "a", epochs=1, cache=tmp_path / "cache")
    again = finetune(
        digits_artifacts, camera, out=tmp_path / "b", epochs=1, cache=tmp_path / "cache", pixel_range=(0, 4095)
    )
    assert again.features_reused == 0  # they are other features
    assert Run(tmp_path / "b").read_args().pixel_range == (0, 4095)
    for wrong in ((1023, 0), (0,), (0, float("nan"))):
        with pytest.raises(EdgetlError, match="--pixel-range takes two numbers"):
            finetune(digits_artifacts, camera, out=tmp_path / "c", pixel_range=wrong)
