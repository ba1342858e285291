"""A .wav file to samples at the rate of the network, or one sentence that says why not."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults
from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_ZEROS = 16  # of the sinc on either side
_KAISER_BETA = 9.0  # side lobes below -90 dB
_ROLLOFF = 0.945  # the window's transition ends at the lower rate's Nyquist frequency
_PIECE = 1 << 21  # values of the window that are computed at a time


def read_wav(data: bytes, sample_rate: int) -> NDArray[np.float32]:
    """Decode a RIFF WAVE file (integers of 8, 16, 24 or 32 bits, floats of 32 or 64), channels averaged.

    Returns:
        `[samples]` float32 at `sample_rate`, full scale ±1.

    Raises:
        DataError: no such file, truncated, or longer than `defaults.MAX_AUDIO_SAMPLES`. The message
            does not name it.
    """
    kind, channels, rate, bits, frames = _parse(data)
    width = bits // 8
    count = len(frames) // (width * channels)
    if count == 0:
        raise DataError("has no samples")
    if max(count, math.ceil(count * sample_rate / rate)) * channels > defaults.MAX_AUDIO_SAMPLES:
        raise DataError(
            f"lasts {count / rate:.0f} seconds of {channels} channels at {rate} Hz, more than the "
            f"{defaults.MAX_AUDIO_SAMPLES / 1e6:.0f} million samples allowed: cut it into pieces"
        )
    values = _decode(frames[: count * width * channels], kind, width).reshape(count, channels)
    with np.errstate(over="ignore", invalid="ignore"):  # the outcome is looked at
        resampled = resample(values.mean(axis=1, dtype=np.float64).astype(np.float32), rate, sample_rate)
    if not np.isfinite(resampled).all():
        raise DataError("holds samples that are not finite")
    return resampled


def resample(values: NDArray[np.float32], rate: int, new_rate: int) -> NDArray[np.float32]:
    """Change the sample rate, `[n]` to `[⌈n · new_rate / rate⌉]`, with a sinc in a Kaiser window.

    Frequencies that the lower of both rates cannot carry are taken out.
    """
    divisor = math.gcd(rate, new_rate)
    up, down = new_rate // divisor, rate // divisor
    if up == down or len(values) == 0:
        return values
    cutoff = _ROLLOFF * min(1.0, up / down)  # as a share of the old rate's Nyquist frequency
    reach = math.ceil(_ZEROS / cutoff)
    offsets = np.arange(1 - reach, reach + 1)
    padded = np.concatenate([np.zeros(reach, np.float32), values, np.zeros(reach + 1, np.float32)])
    result = np.empty(-(-len(values) * up // down), np.float32)
    piece = max(1, _PIECE // len(offsets))
    for start in range(0, len(result), piece):
        positions = np.arange(start, min(start + piece, len(result)), dtype=np.int64) * down
        whole, phase = np.divmod(positions, up)
        phases, which = np.unique(phase, return_inverse=True)
        distance = phases[:, None] / up - offsets
        window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None))) / np.i0(_KAISER_BETA)
        kernels = (cutoff * np.sinc(cutoff * distance) * window).astype(np.float32)
        pieces = np.lib.stride_tricks.sliding_window_view(padded, len(offsets))[whole + 1]
        result[start : start + len(positions)] = np.einsum("nk,nk->n", pieces, kernels[which])
    return result


def _parse(data: bytes) -> tuple[int, int, int, int, memoryview]:
    """Return format, channels, rate, bits, and the sample data."""
    if not data:
        raise DataError("is empty")
    if len(data) < 12 or data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        raise DataError("is not a WAV file")
    form: tuple[int, int, int, int] | None = None
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        body = memoryview(data)[position + 8 : position + 8 + size]
        if name == b"fmt ":
            form = _format(body)
        elif name == b"data":
            if form is None:
                raise DataError("is damaged (its data come before their format)")
            if len(body) < size and size not in (0xFFFFFFFF, 0x7FFFFFFF):  # what streams write, not knowing better
                raise DataError("is truncated")
            return *form, body
        position += 8 + size + size % 2
    raise DataError("is truncated (it holds no samples)")


def _format(body: memoryview) -> tuple[int, int, int, int]:
    if len(body) < 16:
        raise DataError("is damaged (its format is cut off)")
    kind, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", body)
    if kind == _EXTENSIBLE and len(body) >= 26:
        (kind,) = struct.unpack_from("<H", body, 24)
    if (kind, bits) not in [(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)]:
        raise DataError(f"is WAV of format {kind} with {bits} bits, which is not read: convert it to 16-bit PCM")
    if not channels or block != channels * bits // 8 or not 100 <= rate <= 1_000_000:
        raise DataError(f"is damaged (it declares {channels} channels, {rate} Hz and {block} bytes for each sample)")
    return kind, channels, rate, bits


def _decode(frames: memoryview, kind: int, width: int) -> NDArray[Any]:
    if kind == _FLOAT:
        return np.frombuffer(frames, f"<f{width}")
    if width == 1:  # the only width without a sign
        return (np.frombuffer(frames, np.uint8).astype(np.float32) - 128) / 128
    if width == 3:
        parts = np.frombuffer(frames, np.uint8).reshape(-1, 3).astype(np.int32)
        joined = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16
        return ((joined ^ 0x800000) - 0x800000).astype(np.float32) / 2**23
    integers = np.frombuffer(frames, f"<i{width}").astype(np.float32 if width == 2 else np.float64)
    scaled: NDArray[Any] = integers / 2 ** (8 * width - 1)
    return scaled
