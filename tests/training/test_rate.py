"""Rates by rule; those by trials are in test_schedule.py and test_train.py."""

import numpy as np
import pytest

from edgetl.training.rate import (
    HEAD_MOST,
    HEAD_STEP,
    PRETRAINED_BOUNDS,
    TEXT_BOUNDS,
    UNRULED,
    head_rate,
    pretrained_rate,
)


@pytest.mark.parametrize("scale", [0.1, 1.0, 1000.0])
def test_a_step_of_a_head_changes_a_score_by_as_much_whatever_the_features_size(scale: float) -> None:
    """The first step of AdamW changes every weight by the rate, with the gradient's sign."""
    inputs = (np.random.default_rng(0).standard_normal((200, 300)) + 7) * scale
    rate = head_rate(inputs.astype(np.float32))
    assert (rate * np.sign(inputs) * inputs).sum(1).mean() == pytest.approx(HEAD_STEP, rel=0.05)


def test_small_and_constant_features_have_a_rate_too() -> None:
    assert head_rate(np.zeros((4, 3))) == UNRULED
    assert head_rate(np.array([[0.0], [1e-9]])) == HEAD_MOST


def test_more_samples_let_a_pretrained_network_move_faster_within_bounds() -> None:
    rates = [pretrained_rate(samples, "image") for samples in (1, 10, 40, 250, 500, 1000, 100_000)]
    assert rates == sorted(rates)
    assert (rates[0], rates[3], rates[-1]) == (PRETRAINED_BOUNDS[0], 1e-4, PRETRAINED_BOUNDS[1])
    assert pretrained_rate(1000, "text") == TEXT_BOUNDS[1] < pretrained_rate(1000, "audio")
