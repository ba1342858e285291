"""What a file may lose: the paired test against tables and by hand."""

import numpy as np
import pytest

from edgetl.deployment.gate import Comparison, compare, mcnemar


@pytest.mark.parametrize(
    ("worse", "better", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 0.5),
        (5, 0, 1 / 32),
        (4, 1, 6 / 32),
        (10, 2, 79 / 4096),  # 66 + 12 + 1 of 4096
        (3, 3, 42 / 64),
    ],
)
def test_mcnemars_exact_test(worse: int, better: int, p: float) -> None:
    assert mcnemar(worse, better) == pytest.approx(p)


def classes(count: int, right_before: int, lost: int, gained: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of two classes, logits before, and logits after that lose some answers and gain others."""
    labels = np.arange(count) % 2
    right = np.arange(count) < right_before
    after = right.copy()
    after[:lost] = False
    after[right_before : right_before + gained] = True
    one_hot = np.eye(2)[labels]
    return labels, np.where(right[:, None], one_hot, 1 - one_hot), np.where(after[:, None], one_hot, 1 - one_hot)


@pytest.mark.parametrize(
    ("count", "lost", "gained", "refused"),
    [
        (60, 1, 0, False),  # 1.7 points: one picture
        (60, 3, 0, False),  # 5 points, p = 1/8
        (60, 4, 0, True),  # 6.7 points, p = 1/16
        (60, 9, 6, False),  # 5 points, p = 0.30: many changes both ways
        (1000, 9, 0, False),  # 0.9 points are allowed
        (1000, 20, 3, True),  # 1.7 points of many samples
        (10, 2, 0, True),  # 20 points: too much to be left to chance
    ],
)
def test_what_is_refused(count: int, lost: int, gained: int, refused: bool) -> None:
    compared = compare("classification", *classes(count, count * 8 // 10, lost, gained), max_drop=1)
    assert (compared.worse, compared.better, compared.samples) == (lost, gained, count)
    assert compared.drop == pytest.approx(100 * (lost - gained) / count)
    assert compared.is_refused(1) == refused
    assert not compared.is_refused(100) or compared.p_value < 0.1


def test_nothing_is_tested_where_enough_is_left() -> None:
    labels, before, _ = classes(10, 8, 0)
    same = compare("classification", labels, before, before, max_drop=0)
    assert same == Comparison("accuracy", 10, 0.0, 0, 0, None)


def test_swapping_gives_mcnemars_probability() -> None:
    """The general test on accuracy is McNemar's."""
    from edgetl.deployment import gate

    labels, before, after = classes(60, 50, 5, 1)
    drop = gate._drop("classification", labels, before, after)
    assert drop is not None
    assert gate._swapped("classification", labels, before, after, drop) == pytest.approx(mcnemar(5, 1), abs=0.03)


@pytest.mark.parametrize(("noise", "refused"), [(0.02, False), (0.6, True)])
def test_numbers(noise: float, refused: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.standard_normal((80, 2))
    before = labels + 0.3 * rng.standard_normal(labels.shape)
    compared = compare("regression", labels, before, before + noise * rng.standard_normal(labels.shape), max_drop=1)
    assert compared.metric == "r2"
    assert compared.worse + compared.better == 80
    assert compared.is_refused(1) == refused


@pytest.mark.parametrize(("flipped", "refused"), [(1, False), (40, True)])
def test_several_labels(flipped: int, refused: bool) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 4)) < 0.4).astype(float)
    before = np.abs(labels - 0.1)
    after = before.copy()
    after[:flipped, 0] = 1 - after[:flipped, 0]
    compared = compare("multilabel", labels, before, after, max_drop=0.1)
    assert (compared.metric, compared.worse, compared.better) == ("macro_f1", flipped, 0)
    assert compared.is_refused(0.1) == refused


def test_a_metric_that_the_data_cannot_give() -> None:
    labels = np.ones((5, 1))
    compared = compare("regression", labels, labels, labels + 1, max_drop=1)
    assert (compared.drop, compared.p_value, compared.worse) == (None, None, 5)
    assert not compared.is_refused(1)  # deploy() refuses it by the metric
