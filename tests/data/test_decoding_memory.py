"""What decoding takes is counted from headers alone, and shared out between threads."""

import io
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from edgetl.artifacts import Preprocessing
from edgetl.data.memory import Budget, decoding_bytes, photograph_mb, typical_mb
from edgetl.data.sample import Sample
from edgetl.errors import DataError

RGB = Preprocessing()
SIDES = (2400, 1600)
PEAK = """
import re, sys
from pathlib import Path
from edgetl.data.images import read_rgb
content, at_least = Path(sys.argv[1]).read_bytes(), int(sys.argv[2]) or None
read_rgb(Path(sys.argv[3]).read_bytes())  # its libraries are loaded
def mb(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6
Path("/proc/self/clear_refs").write_text("5")
before = mb("VmRSS")
read_rgb(content, at_least=at_least)
print(mb("VmHWM") - before)
"""


def encode(kind: str, mode: str = "RGB", size: tuple[int, int] = SIDES, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 40).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "mode", "at_least", "options"),
    [
        ("JPEG", "RGB", 800, {"size": (2401, 1601)}),
        ("JPEG", "RGB", 0, {}),
        ("JPEG", "RGB", 800, {}),
        ("JPEG", "RGB", 400, {"progressive": True, "subsampling": 0}),
        ("JPEG", "CMYK", 0, {}),
        ("PNG", "RGB", 0, {"compress_level": 1}),
        ("PNG", "L", 0, {"compress_level": 1}),
        ("WEBP", "RGB", 0, {"method": 0}),
        ("GIF", "P", 0, {}),
    ],
)
def test_it_is_what_decoding_takes(
    kind: str, mode: str, at_least: int, options: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(encode(kind, mode, **options))
    (tmp_path / "small").write_bytes(encode(kind, mode, (64, 64)))
    needs = decoding_bytes((tmp_path / "large").read_bytes(), RGB, at_least or None) / 1e6
    assert needs == decoding_bytes(tmp_path / "large", RGB, at_least or None) / 1e6
    command = [sys.executable, "-c", PEAK, tmp_path / "large", str(at_least), tmp_path / "small"]
    taken = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0.75 * taken - 2 < needs < 1.35 * taken + 4


def test_a_scaled_jpeg_takes_a_part() -> None:
    content = encode("JPEG")
    whole, half, eighth = (decoding_bytes(content, RGB, n) for n in (None, 800, 200))
    assert (whole, half, eighth) == (8 * 2400 * 1600, 8 * 1200 * 800, 8 * 300 * 200)
    assert decoding_bytes(content, RGB, 390) == 8 * 600 * 400
    assert decoding_bytes(encode("JPEG", size=(2402, 1601)), RGB, 390) == 12 * 601 * 401  # resampled to 600×400
    assert decoding_bytes(encode("PNG", compress_level=1), RGB, 200) == whole  # has no such way
    assert decoding_bytes(content, Preprocessing(channels=1, mean=(0,), std=(1,))) > 2 * whole
    assert decoding_bytes(content, None) == 0  # not a picture to the network
    for damaged in (b"", b"no picture", content[:30]):
        assert decoding_bytes(damaged, RGB) == 0  # which decoding tells


def test_photographs_are_expected_to_take_what_jpegs_take() -> None:
    for at_least in (None, 200, 800, 1000):
        exact = decoding_bytes(encode("JPEG"), RGB, at_least) / 1e6
        assert exact <= photograph_mb(*SIDES, RGB, at_least) <= exact + 0.5 * 2400 * 1600 / 1e6
    odd = decoding_bytes(encode("JPEG", size=(2402, 1601)), RGB, 390) / 1e6
    assert photograph_mb(2402, 1601, RGB, 390) == pytest.approx(odd + 0.4 * 2402 * 1601 / 1e6, abs=0.1)


def test_typical_is_the_median(tmp_path: Path) -> None:
    samples = []
    for number, size in enumerate([(100, 100)] * 3 + [(1000, 1000)] * 4 + [(3000, 3000)]):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
        samples.append(Sample(f"{number}", None, tmp_path / f"{number}.png"))
    samples.append(Sample("gone", None, tmp_path / "gone.png"))
    assert typical_mb(samples, RGB, None) == pytest.approx(8, abs=0.1)
    assert typical_mb(samples, None, None) == typical_mb([], RGB, None) == 0


def test_threads_wait_for_each_other() -> None:
    budget = Budget(10)
    entered = threading.Event()

    def second() -> None:
        with budget.taken(6_000_000):
            entered.set()

    with budget.taken(6_000_000), budget.taken(4_000_000):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()


def test_what_is_more_than_all_is_refused() -> None:
    message = re.escape("takes 11 MB to decode, where 10 MB are left for it: make it smaller")
    with pytest.raises(DataError, match=message), Budget(10).taken(11_000_000):
        pass
    with Budget(10).taken(10_000_000):
        pass
    with Budget(None).taken(1_000_000):  # a share of what is free
        pass
