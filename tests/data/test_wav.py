import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import RATE, tone, wav

from edgetl.data.audio import open_wav, read_wav, resample
from edgetl.errors import DataError


def riff(form: bytes, frames: bytes, between: bytes = b"") -> bytes:
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + between + b"data" + struct.pack("<I", len(frames)) + frames
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content


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


def sized(declared: int, content: bytes, after: bytes = b"", before: bytes = b"", name: bytes = b"RIFF") -> bytes:
    """A file whose data chunk declares another size than it has, and whose RIFF size says nothing."""
    return (
        name + bytes(4) + b"WAVE" + before + chunk(b"fmt ", form()) + b"data" + struct.pack("<I", declared)
        + content + after
    )  # fmt: skip


def samples_of(values: np.ndarray) -> bytes:
    return np.round(values * 32767).astype("<i2").tobytes()


def ds64(size: int) -> bytes:
    return chunk(b"ds64", struct.pack("<QQQI", 0, size, 0, 0))


NOISE = np.random.default_rng(3).uniform(-0.9, 0.9, 800)
"""Whose bytes are no names of chunks."""
BYTES = samples_of(NOISE)


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        pytest.param(sized(1600, BYTES), None, id="right"),
        pytest.param(sized(1644, BYTES), 822, id="counts its header"),
        pytest.param(sized(0, BYTES), 0, id="never closed"),
        pytest.param(sized(0xFFFFFFFF, BYTES), 0, id="streamed"),
        pytest.param(sized(0x7FFFFFFF - 36, BYTES), 0, id="streamed by SoX"),
        pytest.param(sized(0x80000000, BYTES), 0, id="streamed by arecord"),
        pytest.param(sized(32000, BYTES), 16000, id="cut"),
        pytest.param(sized(400, BYTES), 200, id="closed too early"),
        pytest.param(sized(1600, BYTES, chunk(b"LIST", bytes(9000))), None, id="chunk behind"),
        pytest.param(sized(1600, BYTES, bytes(9000)), None, id="filled up"),
        pytest.param(sized(1600, BYTES, before=chunk(b"LIST", bytes(20))), None, id="chunk before the format"),
        pytest.param(sized(1600, BYTES, before=chunk(b"LIST", bytes(21)) + b"\0"), None, id="odd chunk"),
        pytest.param(sized(1600, BYTES, before=chunk(b"LIST", bytes(21))), None, id="odd chunk without its padding"),
        pytest.param(sized(0xFFFFFFFF, BYTES, chunk(b"id3 ", bytes(64)), ds64(1600), b"RF64"), None, id="RF64"),
        pytest.param(sized(0xFFFFFFFF, BYTES, b"", ds64(0), b"RF64"), 0, id="RF64 never closed"),
        pytest.param(sized(0xFFFFFFFF, BYTES, b"", ds64(1600), b"BW64"), None, id="BW64"),
    ],
)
def test_every_sample_is_read_whatever_the_header_declares(data: bytes, declared: int | None) -> None:
    recording = open_wav(data)
    assert (recording.count, recording.declared) == (800, declared)
    np.testing.assert_allclose(recording.read(RATE), NOISE, atol=1e-4)


@pytest.mark.parametrize(("kind", "decode"), [(7, "ulaw2lin"), (6, "alaw2lin")])
@pytest.mark.filterwarnings("ignore:'audioop'")
def test_logarithmic_codes_are_those_of_the_standard_library(kind: int, decode: str) -> None:
    audioop = pytest.importorskip("audioop")  # until Python 3.12
    codes = bytes(range(256))
    expected = np.frombuffer(getattr(audioop, decode)(codes, 2), "<i2") / 32768
    np.testing.assert_array_equal(read_wav(riff(form(kind, bits=8), codes), RATE), expected.astype(np.float32))


def test_logarithmic_codes_of_g711() -> None:
    few = {7: {0x00: -32124, 0x7F: 0, 0x80: 32124, 0xFF: 0}, 6: {0x2A: -32256, 0x55: -8, 0xAA: 32256, 0xD5: 8}}
    for kind, values in few.items():
        found = read_wav(riff(form(kind, bits=8), bytes(values)), RATE)
        np.testing.assert_array_equal(found * 32768, list(values.values()))


def test_integers_lie_at_the_upper_end_of_their_bytes() -> None:
    twelve = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 12)
    found = read_wav(riff(twelve, np.array([0x7FF0, -0x8000, 0x10], "<i2").tobytes()), RATE)
    np.testing.assert_array_equal(found * 2048, [2047, -2048, 1])
    wide = struct.pack("<HHIIHH", 1, 1, RATE, 4 * RATE, 4, 24)
    found = read_wav(riff(wide, np.array([1 << 8, -(1 << 31)], "<i4").tobytes()), RATE)
    np.testing.assert_array_equal(found * 2**23, [1, -(2**23)])


@pytest.mark.parametrize("rate", [RATE, 8000, 44100, 22050])
def test_a_part_is_what_the_whole_has_there(rate: int) -> None:
    values = np.random.default_rng(0).uniform(-0.9, 0.9, (6000, 2))
    recording = open_wav(wav(values, 2, rate))
    whole = recording.read(RATE)
    assert len(whole) == recording.length(RATE)
    for start, stop in ((0, 1), (0, 700), (1000, 2000), (len(whole) - 900, len(whole)), (0, len(whole))):
        np.testing.assert_allclose(recording.read(RATE, start, stop), whole[start:stop], atol=1e-6)


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
        (riff(form(), b""), "has no samples"),
        (riff(form(), b"") + chunk(b"LIST", bytes(200)), "has no samples"),
        (wav(tone(100))[:44], "has no samples"),
        (riff(form(2), bytes(8)), "Microsoft ADPCM with 16 bits"),
        (riff(form(17, bits=4), bytes(8)), "IMA ADPCM with 4 bits"),
        (riff(form(99, bits=8), bytes(8)), "format 99 with 8 bits"),
        (riff(form(1, bits=40), bytes(8)), "40 bits"),
        (b"fLaC" + bytes(20), "is not a WAV file, but FLAC: convert it to WAV"),
        (b"\0\0\0\x18ftypM4A ", "is not a WAV file, but MPEG-4"),
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
