"""A .wav file to samples at the rate of the network, or one sentence that says why not."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults
from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_COMPRESSED = {2: "Microsoft ADPCM", 17: "IMA ADPCM", 49: "GSM", 80: "MPEG", 85: "MP3", 0x162: "WMA"}
_OTHERS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b"riff": "Wave64",
    b"RIFX": "RIFF with the highest byte first",
}
"""First bytes of files that people take for WAV; an MPEG-4 file has its mark later."""

_UNKNOWN = 0x7F000000  # sizes from here on stand for "not known": recorders write 2³¹ or 2³² less a bit
_ZEROS = 16  # of the sinc on either side
_KAISER_BETA = 9.0  # side lobes below -90 dB
_ROLLOFF = 0.945  # the window's transition ends at the lower rate's Nyquist frequency
_PIECE = 1 << 20  # values of kernels that are computed at a time
_CACHED = 1 << 14  # samples that are made at a time, so that those they are made of stay in the processor's cache
_LEAST_ROWS = 64  # of them with the same kernel


@dataclass(frozen=True)
class Recording:
    """A RIFF WAVE file, not decoded yet.

    Attributes:
        rate: in Hz.
        count: samples of each channel that the file holds.
        declared: samples of each channel that its header declares where that is another number, else None;
            0 if the header does not know.
    """

    rate: int
    channels: int
    count: int
    declared: int | None
    kind: int
    width: int
    frames: memoryview

    def length(self, sample_rate: int) -> int:
        """Return how many samples it has at another rate."""
        return -(-self.count * sample_rate // self.rate)

    def read(self, sample_rate: int, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Decode the samples from `start` to `stop`, counted at `sample_rate`, channels averaged.

        Returns:
            `[stop - start]` float32 at `sample_rate`, full scale ±1.

        Raises:
            DataError: samples are not finite, or it is longer than `defaults.MAX_AUDIO_SAMPLES`.
        """
        stop = self.length(sample_rate) if stop is None else stop
        divisor = math.gcd(self.rate, sample_rate)
        up, down = sample_rate // divisor, self.rate // divisor
        reach = 0 if up == down else _reach(up, down)
        first = max(0, start * down // up - reach)
        last = min(self.count, (stop - 1) * down // up + reach + 2)
        if max(last - first, stop - start) * self.channels > defaults.MAX_AUDIO_SAMPLES:
            raise DataError(
                f"lasts {self.count / self.rate:.0f} seconds of {self.channels} channels at {self.rate} Hz, more than "
                f"the {defaults.MAX_AUDIO_SAMPLES / 1e6:.0f} million samples allowed: cut it into pieces"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # the outcome is looked at
            mono = self._mono(first, last)
            part = mono[: stop - start] if up == down else _resample(mono, up, down, first, start, stop)
        if not np.isfinite(part).all():
            raise DataError("holds samples that are not finite")
        return part

    def is_silent(self, sample_rate: int, start: int, stop: int) -> bool:
        """Whether the samples from `start` to `stop`, counted at `sample_rate`, are below `defaults.SILENCE_DB`."""
        first, last = start * self.rate // sample_rate, stop * self.rate // sample_rate
        return is_silent(self._mono(first, max(last, first + 1)))

    def _mono(self, first: int, last: int) -> NDArray[np.float32]:
        block = self.width * self.channels
        values = _decode(self.frames[first * block : last * block], self.kind, self.width)
        mono: NDArray[np.float64] = values.reshape(-1, self.channels).mean(axis=1, dtype=np.float64)
        return mono.astype(np.float32)


def is_silent(values: NDArray[np.float32]) -> bool:
    """Whether the deviation of `[samples]`, full scale ±1, is below `defaults.SILENCE_DB`."""
    return float(values.std(dtype=np.float64)) < 10 ** (defaults.SILENCE_DB / 20)


def open_wav(data: bytes) -> Recording:
    """Find the samples of a RIFF WAVE file: integers of up to 32 bits, floats of 32 or 64, A-law or μ-law.

    Where the header declares more than there is, or less than nothing but samples, the file's end counts: recorders
    write the size before they know it.

    Raises:
        DataError: no such file, or it holds no samples. The message does not name it.
    """
    if not data:
        raise DataError("is empty")
    if len(data) < 12 or data[:4] not in (b"RIFF", b"RF64", b"BW64") or data[8:12] != b"WAVE":
        found = next((name for magic, name in _OTHERS.items() if data.startswith(magic)), "")
        found = found or ("MPEG-4" if data[4:8] == b"ftyp" else "")
        raise DataError(f"is not a WAV file, but {found}: convert it to WAV" if found else "is not a WAV file")
    form: tuple[int, int, int, int] | None = None
    large: int | None = None
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        position += 8
        body = memoryview(data)[position : position + size]
        if name == b"ds64" and len(body) >= 16:
            (large,) = struct.unpack_from("<Q", body, 8)
        elif name == b"fmt ":
            form = _format(body)
        elif name == b"data":
            if form is None:
                raise DataError("is damaged (its data come before their format)")
            return _recording(data, position, large if size == 0xFFFFFFFF and large is not None else size, form)
        position += size
        # some writers leave out the byte that fills an odd chunk up
        if size % 2 and not _is_name(data, position):
            position += 1
    raise DataError("is truncated (it holds no samples)")


def read_wav(data: bytes, sample_rate: int) -> NDArray[np.float32]:
    """Decode all of a file, `[samples]` float32 at `sample_rate`; see `open_wav` and `Recording.read`."""
    return open_wav(data).read(sample_rate)


def _recording(data: bytes, position: int, size: int, form: tuple[int, int, int, int]) -> Recording:
    kind, channels, rate, width = form
    block, rest = width * channels, len(data) - position
    declared: int | None = None
    # more than half unnamed: the header is of an earlier moment
    if size > rest or (2 * size < rest and not _are_chunks(data, position + size)):
        declared, size = 0 if size >= _UNKNOWN else size // block, rest
    count = size // block
    if count == 0:
        raise DataError("has no samples")
    frames = memoryview(data)[position : position + count * block]
    return Recording(rate, channels, count, None if declared == count else declared, kind, width, frames)


def _are_chunks(data: bytes, position: int) -> bool:
    """Whether what follows a chunk is nothing, chunks, or filling."""
    position += 0 if _is_name(data, position) else position % 2
    while _is_name(data, position) and position + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, position + 4)
        position += 8 + size + size % 2
    return abs(len(data) - position) < 8 or not data[position:].strip(b"\0")


def _is_name(data: bytes, position: int) -> bool:
    name = data[position : position + 4]
    return len(name) == 4 and all(0x20 <= letter < 0x7F for letter in name)


def _format(body: memoryview) -> tuple[int, int, int, int]:
    """Return format, channels, rate, and bytes of a sample of one channel."""
    if len(body) < 16:
        raise DataError("is damaged (its format is cut off)")
    kind, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", body)
    if kind == _EXTENSIBLE and len(body) >= 26:
        (kind,) = struct.unpack_from("<H", body, 24)
    # 12 bits lie in 2 bytes and 24 in 3 or 4, always at their upper end
    width = block // channels if channels else 0
    sizes = {_PCM: range(1, 33), _FLOAT: (32, 64), _A_LAW: (8,), _MU_LAW: (8,)}
    if bits not in sizes.get(kind, ()):
        called = f"{_COMPRESSED.get(kind, f'format {kind}')} with {bits} bits"
        raise DataError(f"is WAV of {called}, which is not read: convert it to 16-bit PCM")
    fits = width * 8 == bits if kind != _PCM else -(-bits // 8) <= width <= 4
    if not channels or block % channels or not fits or not 100 <= rate <= 1_000_000:
        raise DataError(f"is damaged (it declares {channels} channels, {rate} Hz and {block} bytes for each sample)")
    return kind, channels, rate, width


def _decode(frames: memoryview, kind: int, width: int) -> NDArray[Any]:
    if kind == _FLOAT:
        return np.frombuffer(frames, f"<f{width}")
    if kind in (_A_LAW, _MU_LAW):
        return (_a_law() if kind == _A_LAW else _mu_law())[np.frombuffer(frames, np.uint8)]
    if width == 1:  # the only width without a sign
        return (np.frombuffer(frames, np.uint8).astype(np.float32) - 128) / 128
    if width == 3:
        parts = np.frombuffer(frames, np.uint8).reshape(-1, 3).astype(np.int32)
        joined = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16
        return ((joined ^ 0x800000) - 0x800000).astype(np.float32) / 2**23
    integers = np.frombuffer(frames, f"<i{width}").astype(np.float32 if width == 2 else np.float64)
    scaled: NDArray[Any] = integers / 2 ** (8 * width - 1)
    return scaled


def _mu_law() -> NDArray[np.float32]:
    """Values of the 256 codes of ITU-T G.711 μ-law: sign, 3 bits of exponent, 4 of mantissa, all inverted."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    magnitude = ((2 * mantissa + 33) << exponent) - 33  # of 14 bits
    return np.asarray(np.where(code & 0x80, -magnitude, magnitude) / 2**13, np.float32)


def _a_law() -> NDArray[np.float32]:
    """Values of the 256 codes of ITU-T G.711 A-law: as μ-law's, but every second bit is inverted."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    # the first two segments are alike
    magnitude = np.where(exponent > 0, (2 * mantissa + 33) << np.maximum(exponent - 1, 0), 2 * mantissa + 1)
    return np.asarray(np.where(code & 0x80, magnitude, -magnitude) / 2**12, np.float32)


def resample(values: NDArray[np.float32], rate: int, new_rate: int) -> NDArray[np.float32]:
    """Change the sample rate, `[n]` to `[⌈n · new_rate / rate⌉]`, with a sinc in a Kaiser window.

    Frequencies that the lower of both rates cannot carry are taken out.
    """
    divisor = math.gcd(rate, new_rate)
    up, down = new_rate // divisor, rate // divisor
    if up == down or len(values) == 0:
        return values
    return _resample(values, up, down, 0, 0, -(-len(values) * up // down))


def _cutoff(up: int, down: int) -> float:
    """As a share of the old rate's Nyquist frequency."""
    return _ROLLOFF * min(1.0, up / down)


def _reach(up: int, down: int) -> int:
    return math.ceil(_ZEROS / _cutoff(up, down))


def _resample(
    values: NDArray[np.float32], up: int, down: int, first: int, start: int, stop: int
) -> NDArray[np.float32]:
    """Return the samples from `start` to `stop` at the new rate of values that begin with the old rate's `first`.

    Samples whose distance from the old ones is the same have one kernel; there are `up` such distances.
    """
    reach = _reach(up, down)
    padded = np.concatenate([np.zeros(reach, np.float32), values, np.zeros(reach + 1, np.float32)])
    parts = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach)
    result = np.empty(stop - start, np.float32)
    at_once = max(1, _PIECE // (2 * reach))
    piece = up * max(_LEAST_ROWS, _CACHED // up)
    for begin in range(start, stop, piece):
        end = min(begin + piece, stop)
        places = range(begin, min(begin + up, end))
        for some in (places[i : i + at_once] for i in range(0, len(places), at_once)):
            phases = [place * down % up for place in some]
            kernels = _all_kernels(up, down)[phases] if up <= at_once else _kernels(up, down, np.array(phases))
            for place, kernel in zip(some, kernels, strict=True):
                rows = parts[place * down // up - first + 1 :: down][: len(range(place, end, up))]
                result[place - start : end - start : up] = np.einsum("nk,k->n", rows, kernel)
    return result


@lru_cache(maxsize=4)
def _all_kernels(up: int, down: int) -> NDArray[np.float32]:
    return _kernels(up, down, np.arange(up))


def _kernels(up: int, down: int, phases: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the kernels of samples that lie `phases / up` behind an old one, `[phases, 2 · reach]`."""
    cutoff, reach = _cutoff(up, down), _reach(up, down)
    distance = phases[:, None] / up - np.arange(1 - reach, reach + 1)
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None))) / np.i0(_KAISER_BETA)
    kernels: NDArray[np.float64] = cutoff * np.sinc(cutoff * distance) * window
    return kernels.astype(np.float32)
