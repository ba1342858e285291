"""WAV files for tests."""

import io
import wave

import numpy as np

RATE = 16000


def wav(values: np.ndarray, width: int = 2, rate: int = RATE) -> bytes:
    """`[n]` or `[n, channels]` in -1..1, as integers."""
    values = values.reshape(len(values), -1)
    if width == 1:
        frames = np.round(values * 127 + 128).astype(np.uint8).tobytes()
    else:
        integers = np.round(values * (2 ** (8 * width - 1) - 1)).astype(np.int64)
        frames = b"".join(int(v).to_bytes(width, "little", signed=True) for v in integers.reshape(-1))
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((values.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(frames)
    return stream.getvalue()


def tone(count: int, hertz: float = 440, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(count) / rate)
