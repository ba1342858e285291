"""Small files that declare or unpack to much: refused by what they declare, before memory is taken.

They are read in a process of its own, whose address space is limited and whose peak is measured for each.
"""

import io
import json
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetl.data.audio import resample

MEGABYTES = 150
READ = """
import json, resource, sys
from pathlib import Path
from edgetl.data.dataset import Wanted, label_names, open_inputs, open_training
from edgetl.data.audio import read_wav
from edgetl.data.images import read_rgb
from edgetl.errors import DataError
from edgetl.runtime.process import peak_rss_mb
import numpy, numpy.random, zipfile, PIL.Image, PIL.ImageOps, PIL.PngImagePlugin, PIL.GifImagePlugin

WANTED = {".csv": Wanted("image")}

def read(file):
    if file.suffix == ".wav":
        read_wav(open_inputs(file, Wanted("audio"))[0].read(), 16000)
    elif file.suffix in (".npz", ".csv"):
        dataset = open_training(file, None, WANTED.get(file.suffix, Wanted("array")))[0]
        for sample in dataset.samples:
            sample.read()
    else:
        read_rgb(open_inputs(file, Wanted("image"))[0].read())

limit = 3_000_000_000 + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
found = {}
for file in sorted(Path(sys.argv[1]).iterdir()):
    before = peak_rss_mb()
    try:
        read(file)
        outcome = "accepted"
    except DataError as error:
        outcome = str(error)
    found[file.name] = outcome, peak_rss_mb() - before
print(json.dumps(found))
"""


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, extra: bytes = b"", rows: int = 0) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = zlib.compress(bytes((3 * width + 1) * rows), 9)
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def compressed(name: bytes) -> bytes:
    return chunk(name, b"a\0\0" + zlib.compress(bytes(2 * 10**8), 1))


def gif(canvas: int, frame: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", canvas, canvas, 0, 0, 0)
    return head + b"," + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\2\2L\1\0;"


def ico(content: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 1, 1, 0, 0, 1, 32, len(content), 22) + content


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff(width: int, height: int) -> bytes:
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 9)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + fields + bytes(16)


def wav(rate: int, content: bytes, declared: int = 0) -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, rate, rate, 1, 8)
    head = b"WAVEfmt " + struct.pack("<I", 16) + form
    return b"RIFF\0\0\0\0" + head + b"data" + struct.pack("<I", declared or len(content)) + content


def member(shape: tuple[int, ...], descr: str = "<f8", content: bytes = b"", header: int = 0) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    if header:
        return b"\x93NUMPY\x02\0" + struct.pack("<I", header) + text
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + content


def npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                out.write(content)
    return stream.getvalue()


def long_header() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as out:
            out.write(member((1,), header=200_000_000))
            for _ in range(20):
                out.write(bytes(10_000_000))
        archive.writestr("y.npy", member((1,), "<i8", bytes(8)))
    return stream.getvalue()


X = member((4,), "<f8", bytes(32))
Y = member((4,), "<i8", b"".join(struct.pack("<q", value) for value in (0, 1, 0, 1)))

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "pixels.png": (lambda: png(12_000, 12_000, rows=1_000), "declares 12000×12000 pixels"),
    "huge.png": (lambda: png(2**31 - 1, 2**31 - 1), "million"),
    "text.png": (lambda: png(8, 8, compressed(b"zTXt"), 8), "accepted|damaged"),
    "profile.png": (lambda: png(8, 8, compressed(b"iCCP"), 8), "accepted|damaged"),
    "inner.ico": (lambda: ico(png(20_000, 20_000, rows=1)), "million"),
    "huge.bmp": (lambda: bmp(50_000, 50_000), "declares"),
    "huge.gif": (lambda: gif(60_000, 1), "million"),
    "frame.gif": (lambda: gif(1, 60_000), "million"),
    "huge.ppm": (lambda: b"P6 40000 40000 255\n", "declares"),
    "huge.tiff": (lambda: tiff(60_000, 60_000), "million"),
    "script.eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n/x 9 def\n", "EPS file"),
    "long.wav": (lambda: wav(100, bytes(700_000)), "more than the 100 million samples"),
    "declared.wav": (lambda: wav(16_000, bytes(9), 0xFFFFFFF0), "accepted"),
    "rate.wav": (lambda: wav(999_983, bytes(200_000)), "accepted"),
    "declared.npz": (lambda: npz(x=member((10**9, 100)), y=Y), "declares 800.0 GB"),
    "countless.npz": (lambda: npz(x=member((10**400,)), y=Y), "damaged|declares"),
    "negative.npz": (lambda: npz(x=member((10**9,)), y=member((-(10**9),))), "damaged"),
    "negatives.npz": (lambda: npz(x=member((-(10**6), -(10**6))), y=Y), "damaged"),
    "nothing.npz": (lambda: npz(x=member((10**12, 0)), y=member((10**12, 0))), "numbers .* were expected"),
    "empty-names.npz": (lambda: npz(x=X, y=Y, labels=member((10**10,), "<U0")), "labels is|damaged"),
    "no-names.npz": (lambda: npz(x=X, y=Y, labels=member((10**10, 0))), "labels is|damaged"),
    "index.npz": (lambda: npz(x=X, y=member((4,), "<i8", struct.pack("<qqqq", 0, 1, 2, 10**15))), "no indices"),
    "header.npz": (long_header, "damaged"),
}  # fmt: skip


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    folder = tmp_path / "bombs"
    folder.mkdir()
    for name, (make, _) in BOMBS.items():
        (folder / name).write_bytes(make())
    with open(folder / "sparse.jpg", "wb") as stream:
        stream.truncate(10**12)
    command = [sys.executable, "-W", "ignore", "-c", READ, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = {name: message for name, (_, message) in BOMBS.items()} | {"sparse.jpg": "1000.0 GB, more than"}
    assert found.keys() == expected.keys()
    for name, (outcome, megabytes) in found.items():
        assert megabytes < MEGABYTES, f"{name} took {megabytes:.0f} MB: {outcome}"
        assert re.search(expected[name], outcome), f"{name}: {outcome}"


def test_an_odd_rate_gives_the_same_samples_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=3000).astype(np.float32)
    whole = resample(values, 999_983, 16_000)
    monkeypatch.setattr("edgetl.data.audio._PIECE", 5_000)
    np.testing.assert_array_equal(resample(values, 999_983, 16_000), whole)
