"""The range of the values of pictures of more than 8 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetl.errors import EdgetlError

PixelRange = tuple[float, float]
"""The values that become black and white."""

FULL_RANGE: PixelRange = (0.0, 65535.0)


def check_pixel_range(given: Sequence[float]) -> PixelRange:
    """Return a range as it was given.

    Raises:
        EdgetlError: it is not two finite numbers, the smaller first.
    """
    if len(given) != 2 or not all(map(math.isfinite, given)) or not given[0] < given[1]:
        raise EdgetlError(
            f"--pixel-range takes two numbers, which become black and white, such as 0,1023, not "
            f"{','.join(f'{value:g}' for value in given)}"
        )
    return float(given[0]), float(given[1])
