"""Labels as targets and weights (the losses they give are tested in preparation/test_losses.py)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.errors import DataError
from edgetl.tasks.targets import TargetEncoder, balanced_weights


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.floats(0, 1))
def test_targets_are_distributions_and_weights_a_mean(labels: list[int], smoothing: float) -> None:
    targets, weights = TargetEncoder("classification", 5, smoothing)(np.array(labels))
    assert targets.dtype == weights.dtype == np.float32
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)
    assert weights.sum() == pytest.approx(1, rel=1e-5)
    if smoothing < 0.5:
        assert (targets.argmax(1) == labels).all()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=50))
def test_balanced_classes_count_alike(labels: list[int]) -> None:
    every = np.array([*labels, 0, 1, 2])
    weights = np.array(balanced_weights(every, 3))
    totals = [weights[k] * (every == k).sum() for k in range(3)]
    np.testing.assert_allclose(totals, len(every) / 3)


@pytest.mark.parametrize(
    ("encoder", "labels"),
    [
        (TargetEncoder("classification", 3), np.array([0, 3])),
        (TargetEncoder("classification", 3), np.array([-1, 0])),
        (TargetEncoder("classification", 3), np.array([[0], [1]])),
        (TargetEncoder("multilabel", 3), np.zeros((2, 2), np.float32)),
        (TargetEncoder("regression", 1), np.array([[np.nan]], np.float32)),
        (TargetEncoder("regression", 1), np.array([[np.inf]], np.float32)),
    ],
)
def test_labels_that_do_not_fit_are_refused(encoder: TargetEncoder, labels: np.ndarray) -> None:
    with pytest.raises(DataError):
        encoder(labels)
