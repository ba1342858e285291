"""A sample's content to what `preprocess.onnx` takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.artifacts import ARRAY, AUDIO, IMAGE, TEXT, AudioPreprocessing, Preprocessing, TensorSpec, TextPreprocessing
from edgetl.data.audio import open_wav, read_wav
from edgetl.data.images import read_rgb
from edgetl.data.pixel_range import PixelRange
from edgetl.data.text import Tokenize
from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Span = tuple[int, int]
"""Start and end of a part of a recording, in samples at the network's rate."""


SECONDS = "s"
TOKENS = "tokens"


@dataclass(frozen=True)
class Extent:
    """How long a sample is, and how much of it the network takes, in seconds or tokens.

    Attributes:
        misdeclared: how a recording's length differs from what its header declares; else empty.
    """

    length: float
    limit: float
    unit: str
    misdeclared: str = ""


@dataclass(frozen=True)
class Decoder:
    """From a sample's content to the inputs of `preprocess.onnx`; raises DataError without the sample's name.

    Attributes:
        whole: decodes all of a sample.
        extent: of a sample that may be longer than what the network takes; None where there are none.
        audio: of recordings, which can be decoded in parts.
    """

    whole: Callable[[bytes], dict[str, NDArray[Any]]]
    extent: Callable[[bytes], Extent] | None = None
    audio: AudioPreprocessing | None = None

    def __call__(self, content: bytes, span: Span | None = None) -> dict[str, NDArray[Any]]:
        """Return the inputs for a sample, or for a part of a recording.

        Of a whole recording that is longer than what the network hears it is the middle, as `preprocess.onnx` takes
        it: an hour in memory would take a gigabyte.
        """
        if self.audio is None:
            return self.whole(content)
        recording = open_wav(content)
        if span is None:
            count = recording.length(self.audio.sample_rate)
            start = max(0, count - self.audio.samples) // 2
            span = start, min(count, start + self.audio.samples)
        return {AUDIO: recording.read(self.audio.sample_rate, *span)}


def open_decoder(
    modality: str,
    inputs: Sequence[TensorSpec],
    audio: AudioPreprocessing | None,
    text: TextPreprocessing | None = None,
    tokenizer: str = "",
    pixel_range: PixelRange | None = None,
    at_least: int | None = None,
) -> Decoder:
    """Return how samples of a modality are decoded; callable from several threads.

    Args:
        modality: as in `edgetl.artifacts.Manifest`, as are the others.
        tokenizer: of texts, the content of `tokenizer.json`.
        pixel_range: of pictures of more than 8 bits; see `edgetl.data.depth`.
        at_least: of pictures, see `enough_pixels`.

    Raises:
        DataError: this edgetl does not know the modality, or a library is missing.
    """
    if modality == IMAGE:
        return Decoder(partial(_image, pixel_range, at_least))
    if modality == AUDIO and audio is not None:
        return Decoder(partial(_audio, audio.sample_rate), partial(_audio_extent, audio), audio)
    if modality == ARRAY:
        return Decoder(partial(_array, inputs[0].shape))
    if modality == TEXT and text is not None:
        tokenize = Tokenize(text, tokenizer)
        return Decoder(tokenize, lambda content: Extent(tokenize.count(content), text.max_length, TOKENS))
    raise DataError(f"this edgetl does not read samples of the modality {modality!r}: update it")


def enough_pixels(preprocessing: Preprocessing | None, decode: str, part: float = 1.0) -> int | None:
    """Return how many pixels the sides of a decoded picture must have; None for all that are there.

    Args:
        preprocessing: None for other samples than pictures.
        decode: `scaled` or `full`.
        part: share of a side that is looked at.
    """
    if preprocessing is None or preprocessing.enough is None or decode != "scaled":
        return None
    return math.ceil(preprocessing.enough / part)


def _image(pixel_range: PixelRange | None, at_least: int | None, content: bytes) -> dict[str, NDArray[Any]]:
    return {IMAGE: read_rgb(content, at_least=at_least, pixel_range=pixel_range)}


def _audio(sample_rate: int, content: bytes) -> dict[str, NDArray[Any]]:
    return {AUDIO: read_wav(content, sample_rate)}


def _audio_extent(audio: AudioPreprocessing, content: bytes) -> Extent:
    recording = open_wav(content)
    misdeclared = ""
    if recording.declared is not None:
        misdeclared = f"holds {recording.count} samples where its header declares {recording.declared or 'no number'}"
    return Extent(recording.count / recording.rate, audio.samples / audio.sample_rate, SECONDS, misdeclared)


def _array(shape: tuple[int, ...], content: bytes) -> dict[str, NDArray[Any]]:
    values = np.frombuffer(content, dtype="<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError("holds numbers that are not finite, or too large for 32 bits (3.4e38)")
    return {ARRAY: values.reshape(shape)}
