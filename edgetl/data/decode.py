"""A sample's content to what `preprocess.onnx` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.artifacts import AudioPreprocessing, TensorSpec, TextPreprocessing
from edgetl.data.audio import read_wav
from edgetl.data.depth import PixelRange
from edgetl.data.images import read_rgb
from edgetl.data.text import Tokenize
from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE = "image"
AUDIO = "audio"
ARRAY = "array"
"""Inputs of `preprocess.onnx`, and modalities: `[height, width, 3]` uint8, `[samples]` and `[*shape]` float32."""

TEXT = "text"
"""The modality whose inputs are those of `TextPreprocessing`."""

Decoder = Callable[[bytes], dict[str, "NDArray[Any]"]]
"""From a sample's content to the inputs of `preprocess.onnx`; raises DataError without the sample's name."""


def open_decoder(
    modality: str,
    inputs: Sequence[TensorSpec],
    audio: AudioPreprocessing | None,
    text: TextPreprocessing | None = None,
    tokenizer: str = "",
    pixel_range: PixelRange | None = None,
) -> Decoder:
    """Return how samples of a modality are decoded; callable from several threads.

    Args:
        modality: as in `edgetl.artifacts.Manifest`, as are the others.
        tokenizer: of texts, the content of `tokenizer.json`.
        pixel_range: of pictures of more than 8 bits; see `edgetl.data.depth`.

    Raises:
        DataError: this edgetl does not know the modality, or a library is missing.
    """
    if modality == IMAGE:
        return partial(_image, pixel_range)
    if modality == AUDIO and audio is not None:
        return partial(_audio, audio.sample_rate)
    if modality == ARRAY:
        return partial(_array, inputs[0].shape)
    if modality == TEXT and text is not None:
        return Tokenize(text, tokenizer)
    raise DataError(f"this edgetl does not read samples of the modality {modality!r}: update it")


def _image(pixel_range: PixelRange | None, content: bytes) -> dict[str, NDArray[Any]]:
    return {IMAGE: read_rgb(content, pixel_range=pixel_range)}


def _audio(sample_rate: int, content: bytes) -> dict[str, NDArray[Any]]:
    return {AUDIO: read_wav(content, sample_rate)}


def _array(shape: tuple[int, ...], content: bytes) -> dict[str, NDArray[Any]]:
    values = np.frombuffer(content, dtype="<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError("holds numbers that are not finite")
    return {ARRAY: values.reshape(shape)}
