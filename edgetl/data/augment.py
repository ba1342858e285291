"""Other views of a sample, before preprocessing; the same seed and content always give the same view."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.artifacts import ARRAY, AUDIO, IMAGE
from edgetl.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image


@dataclass(frozen=True)
class Strength:
    """How far a view may be from its sample.

    Attributes:
        area: smallest share of a picture that a crop keeps; its sides differ by up to a quarter more.
        colour: largest relative change of brightness, contrast and saturation.
        degrees: largest rotation.
        shift: largest move in time, as a share of the length.
        gain: largest change of loudness or scale, in dB.
        noise: of white noise against the signal, in dB.
    """

    area: float
    colour: float
    degrees: float
    shift: float
    gain: float
    noise: float


_SQUEEZED = 0.8
"""Smallest share of one side of a crop in the other, in those of the picture."""

_STRENGTHS = {
    "light": Strength(area=0.6, colour=0.2, degrees=0, shift=0.1, gain=3, noise=-40),
    "strong": Strength(area=0.3, colour=0.4, degrees=15, shift=0.25, gain=6, noise=-20),
}


@dataclass(frozen=True)
class Views:
    """Which views are made of each training sample.

    Attributes:
        strength: `light` or `strong`.
        count: K, how many beside the sample itself.
        seed: other seeds give other views.
        flip: whether half of a picture's views are mirrored, left to right.
    """

    strength: str
    count: int
    seed: int
    flip: bool = True

    @property
    def part(self) -> float:
        """Smallest share of a picture's side that a view shows, before it is rotated."""
        return math.sqrt(_STRENGTHS[self.strength].area * _SQUEEZED)

    def digest(self, content: bytes, number: int) -> bytes:
        """Return the key of a view, 16 bytes, from its sample's."""
        return hashlib.blake2b(content + repr((self, number)).encode(), digest_size=16).digest()

    def make(self, decoded: dict[str, NDArray[Any]], digest: bytes) -> dict[str, NDArray[Any]]:
        """Return the view with this key of what `open_decoder` decoded.

        Raises:
            DataError: there are no views of this modality.
        """
        rng = np.random.default_rng(list(digest))
        strength = _STRENGTHS[self.strength]
        if IMAGE in decoded:
            return {IMAGE: _picture(decoded[IMAGE], strength, rng, flip=self.flip)}
        if AUDIO in decoded:
            return {AUDIO: _signal(_shifted(decoded[AUDIO], strength, rng), strength, rng)}
        if ARRAY in decoded:
            return {ARRAY: _signal(decoded[ARRAY], strength, rng)}
        raise DataError("there are no other views of texts: leave --augment out")


def _picture(
    pixels: NDArray[np.uint8], strength: Strength, rng: np.random.Generator, *, flip: bool
) -> NDArray[np.uint8]:
    """Crop, mirror, rotate and recolour `[height, width, 3]`; the size becomes that of the crop."""
    from PIL import Image, ImageOps

    image = Image.fromarray(pixels)
    if strength.degrees:
        fill = tuple(int(part) for part in pixels.mean((0, 1)))
        image = image.rotate(
            rng.uniform(-strength.degrees, strength.degrees), Image.Resampling.BILINEAR, fillcolor=fill
        )
    image = image.crop(_box(image.width, image.height, strength.area, rng))
    if rng.random() < 0.5 and flip:
        image = ImageOps.mirror(image)
    return np.asarray(_recoloured(image, strength.colour, rng))


def _box(width: int, height: int, area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A random part of a picture, as in Szegedy et al. 2015 ("Going deeper with convolutions")."""
    share = rng.uniform(area, 1.0)
    ratio = np.exp(rng.uniform(np.log(_SQUEEZED), np.log(1 / _SQUEEZED)))
    wide = min(max(round(width * np.sqrt(share * ratio)), 1), width)
    high = min(max(round(height * np.sqrt(share / ratio)), 1), height)
    left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
    return left, top, left + wide, top + high


def _recoloured(image: Image, most: float, rng: np.random.Generator) -> Image:
    from PIL import ImageEnhance

    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - most, 1 + most))
    return image


def _shifted(signal: NDArray[np.float32], strength: Strength, rng: np.random.Generator) -> NDArray[np.float32]:
    """Move `[samples]` in time; silence fills the gap."""
    by = round(rng.uniform(-strength.shift, strength.shift) * len(signal))
    moved = np.zeros_like(signal)
    if by >= 0:
        moved[by:] = signal[: len(signal) - by]
    else:
        moved[:by] = signal[-by:]
    return moved


def _signal(values: NDArray[np.float32], strength: Strength, rng: np.random.Generator) -> NDArray[np.float32]:
    """Scale, and add white noise; its size is relative to the values' deviation."""
    gain = 10 ** (rng.uniform(-strength.gain, strength.gain) / 20)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused as such later
        noise = rng.standard_normal(values.shape) * values.std() * 10 ** (strength.noise / 20)
        return np.asarray((values + noise) * gain, np.float32)
