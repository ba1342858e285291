"""The demo's data: handwritten digits, each drawn somewhere on a 24×24 canvas, tilted and scaled.

`digits.npz` holds the 1,797 8×8 pictures that scikit-learn ships as `load_digits` (E. Alpaydin and
C. Kaynak, Optical Recognition of Handwritten Digits, UCI, CC BY 4.0).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANVAS = 24
PRETRAINED = (0, 1, 2, 3, 4, 5)
NEW = (6, 7, 8, 9)
EXAMPLES_PER_CLASS = 20


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the pictures `[1797, 8, 8]` with values 0..16, and the digit of each."""
    file = resources.files("edgetl.demo").joinpath("digits.npz")
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return archive["images"], archive["labels"].astype(np.int64)


def drawings(digits: tuple[int, ...], *, copies: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw every picture of `digits` `copies` times; the same call gives the same drawings.

    Returns:
        Canvases `[N, 24, 24]` uint8, and indices into `digits`.
    """
    from PIL import Image

    images, labels = load_digits()
    rng = np.random.default_rng(0)
    canvases, indices = [], []
    for _ in range(copies):
        for image, label in zip(images, labels, strict=True):
            side, angle, left, top = int(rng.integers(13, 18)), rng.uniform(-25, 25), rng.random(), rng.random()
            if label not in digits:
                continue
            glyph = Image.fromarray(image * 15).resize((side, side), Image.Resampling.BILINEAR)
            glyph = glyph.rotate(angle, Image.Resampling.BILINEAR, expand=True)
            canvas = Image.new("L", (CANVAS, CANVAS))
            canvas.paste(glyph, (round(left * (CANVAS - glyph.width)), round(top * (CANVAS - glyph.height))))
            canvases.append(np.asarray(canvas))
            indices.append(digits.index(int(label)))
    return np.stack(canvases), np.array(indices, dtype=np.int64)


def write_pictures(root: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Write the new digits as PNG files below `root/train` (a few of each) and `root/test` (the others).

    Returns:
        All canvases `[N, 24, 24]`, the class of each, and the indices of those in `train`.
    """
    from PIL import Image

    canvases, labels = drawings(NEW)
    train = np.concatenate([np.flatnonzero(labels == index)[:EXAMPLES_PER_CLASS] for index in range(len(NEW))])
    for number, (canvas, label) in enumerate(zip(canvases, labels, strict=True)):
        part = "train" if number in train else "test"
        folder = root / part / str(NEW[label])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(canvas).save(folder / f"{number:04d}.png")
    return canvases, labels, train
