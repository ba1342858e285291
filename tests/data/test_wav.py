import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import RATE, tone, wav

from edgetl.data.audio import read_wav, resample
from edgetl.errors import DataError


def riff(form: bytes, frames: bytes, between: bytes = b"") -> bytes:
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + between + b"data" + struct.pack("<I", len(frames)) + frames
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


def form(kind: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    block = channels * bits // 8
    return struct.pack("<HHIIHH", kind, channels, rate, rate * block, block, bits)


@pytest.mark.parametrize(("width", "tolerance"), [(1, 1e-2), (2, 1e-4), (3, 1e-6), (4, 1e-6)])
def test_integers_of_every_width(width: int, tolerance: float) -> None:
    values = tone(500)
    np.testing.assert_allclose(read_wav(wav(values, width), RATE), values, atol=tolerance)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_floats_and_other_chunks(dtype: str) -> None:
    values = tone(500)
    size = np.dtype(dtype).itemsize
    between = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    data = riff(form(3, bits=8 * size), values.astype(dtype).tobytes(), between)
    np.testing.assert_allclose(read_wav(data, RATE), values, atol=1e-7)
    guid = struct.pack("<HHIH", 22, 8 * size, 0, 3) + bytes(14)
    extensible = form(0xFFFE, bits=8 * size) + guid
    np.testing.assert_allclose(read_wav(riff(extensible, values.astype(dtype).tobytes()), RATE), values, atol=1e-7)


def test_channels_are_averaged() -> None:
    left, right = tone(400), tone(400, 1000)
    np.testing.assert_allclose(read_wav(wav(np.stack([left, right], 1)), RATE), (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("rate", "new"), [(44100, 16000), (8000, 16000), (48000, 16000), (22050, 8000), (16000, 44100)]
)
def test_resampling_keeps_what_both_rates_carry(rate: int, new: int) -> None:
    seconds, hertz = 0.5, 0.35 * min(rate, new)
    found = resample(tone(int(seconds * rate), hertz, rate).astype(np.float32), rate, new)
    assert len(found) == math.ceil(int(seconds * rate) * new / rate)
    inside = slice(len(found) // 10, -len(found) // 10)
    np.testing.assert_allclose(found[inside], tone(len(found), hertz, new)[inside], atol=1e-3)


def test_resampling_takes_out_what_the_new_rate_cannot_carry() -> None:
    found = resample(tone(44100, 12000, 44100).astype(np.float32), 44100, 16000)
    assert np.abs(found[500:-500]).max() < 1e-3


def test_resampling_agrees_with_scipy() -> None:
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(0)
    smooth = signal.resample_poly(rng.standard_normal(4000), 4, 1).astype(
        np.float32
    )  # nothing near the ends of the band
    found, expected = resample(smooth, 44100, 16000), signal.resample_poly(smooth, 160, 441, window=("kaiser", 9.0))
    error = found[200:-200] - expected[200:-200]
    assert np.sqrt((error**2).mean()) < 0.01 * smooth.std()


@given(st.integers(1, 3000), st.sampled_from([(3, 2), (2, 3), (441, 160), (1, 4)]))
@settings(max_examples=40, deadline=None)
def test_resampling_is_linear_and_keeps_a_constant(count: int, rates: tuple[int, int]) -> None:
    old, new = rates
    values = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    np.testing.assert_allclose(resample(2 * values, old, new), 2 * resample(values, old, new), atol=1e-5)
    assert len(resample(values, old, new)) == math.ceil(count * new / old)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello", "not a WAV"),
        (wav(tone(100))[:40], "truncated"),
        (wav(tone(100))[:-10], "truncated"),
        (riff(form(), b""), "has no samples"),
        (riff(form(2), bytes(8)), "format 2 with 16 bits"),
        (riff(form(1, bits=12), bytes(8)), "12 bits"),
        (riff(form(channels=0), bytes(8)), "damaged"),
        (riff(form(rate=0), bytes(8)), "damaged"),
        (riff(form()[:10], bytes(8)), "cut off"),
        (riff(form(3, bits=32), np.array([0, np.nan], "<f4").tobytes()), "not finite"),
        (riff(form(rate=100), bytes(2000)), "seconds"),
    ],
)
def test_what_is_refused(data: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.defaults.MAX_AUDIO_SAMPLES", 100_000)
    with pytest.raises(DataError, match=message):
        read_wav(data, RATE)


@given(st.integers(0, 10**6), st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_damage_is_a_sentence_or_does_no_harm(position: int, bit: int) -> None:
    data = bytearray(wav(tone(40), 3))
    data[position % len(data)] ^= 1 << bit
    try:
        values = read_wav(bytes(data), RATE)
    except DataError:
        return
    assert values.dtype == np.float32
    assert values.ndim == 1
