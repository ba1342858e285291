"""Views of samples: reproducible, different, and of the same kind as what they are views of."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.data.augment import Views
from edgetl.errors import DataError
from edgetl.runs.settings import STRENGTHS

RNG = np.random.default_rng(0)
DIGEST = b"0123456789abcdef"


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def made(views: Views, decoded: dict[str, Any], number: int = 0) -> np.ndarray:
    ((name, value),) = views.make(decoded, views.digest(DIGEST, number)).items()
    assert name in decoded
    return np.asarray(value)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("modality", ["image", "audio", "array"])
def test_the_same_seed_gives_the_same_view_and_others_differ(strength: str, modality: str) -> None:
    value = picture() if modality == "image" else RNG.standard_normal(500).astype(np.float32)
    decoded = {modality: value}
    views = Views(strength, 3, seed=1)
    np.testing.assert_array_equal(made(views, decoded), made(views, decoded))
    for other in (made(views, decoded, 1), made(replace(views, seed=2), decoded)):
        first = made(views, decoded)
        assert first.dtype == other.dtype == value.dtype
        assert first.shape != other.shape or not np.array_equal(first, other)
    assert len({views.digest(DIGEST, k) for k in range(3)} | {replace(views, seed=2).digest(DIGEST, 0)}) == 4


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 200), st.sampled_from(STRENGTHS))
def test_views_of_pictures_are_pictures(height: int, width: int, number: int, strength: str) -> None:
    view = made(Views(strength, 1, 0), {"image": picture(height, width)}, number)
    assert view.dtype == np.uint8
    assert view.ndim == 3
    assert 1 <= view.shape[0] <= height
    assert 1 <= view.shape[1] <= width


def test_pictures_are_mirrored_half_of_the_time_unless_told_not_to() -> None:
    """A picture that is dark on the left: its views tell which way round they are."""
    shade = np.tile(np.linspace(20, 200, 80).astype(np.uint8)[None, :, None], (80, 1, 3))

    def turned(flip: bool) -> int:
        found = [made(Views("light", 1, 0, flip), {"image": shade}, k).astype(float) for k in range(100)]
        return sum(view[:, 0].mean() > view[:, -1].mean() for view in found)

    assert turned(False) == 0
    assert 30 < turned(True) < 70


@pytest.mark.parametrize(("strength", "shift", "decibels"), [("light", 0.1, -40), ("strong", 0.25, -20)])
def test_signals_are_moved_scaled_and_noisy_within_bounds(strength: str, shift: float, decibels: float) -> None:
    pulse = np.zeros(1000, np.float32)
    pulse[500] = 1
    for number in range(30):
        view = made(Views(strength, 1, 0), {"audio": pulse}, number)
        assert abs(int(view.argmax()) - 500) <= shift * 1000
        rest = np.delete(view / view.max(), view.argmax())
        assert rest.std() < 2 * pulse.std() * 10 ** (decibels / 20)


def test_texts_have_no_views() -> None:
    with pytest.raises(DataError, match="texts"):
        Views("light", 1, 0).make({"input_ids": np.zeros(3, np.int64), "attention_mask": np.ones(3, np.int64)}, DIGEST)
