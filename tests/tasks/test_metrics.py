import math

import numpy as np
import pytest

from edgetl.tasks import metrics


def test_a_matrix_by_hand() -> None:
    truth, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    matrix = metrics.confusion_matrix(truth, predicted, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    pairs = [[0, 1, 2], [1, 0, 0], [1, 1, 1]]
    assert [column.tolist() for column in metrics.confused(truth, predicted, 4)] == pairs
    found = metrics.classification(truth, predicted, 4)
    assert (found.samples, found.correct, found.accuracy) == (6, 3, 0.5)
    assert found.classes[0] == metrics.LabelMetrics(2 / 4, 2 / 3, 4 / 7, 3)
    assert found.classes[2] == metrics.LabelMetrics(None, 0.0, 0.0, 1)  # never predicted
    assert found.classes[3] == metrics.LabelMetrics(None, None, None, 0)  # neither there nor predicted
    assert found.macro_recall == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)  # the absent class does not count


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        metrics.classification(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 2)
    with pytest.raises(ValueError, match="do not fit 2 classes"):
        metrics.classification(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="do not fit 2 classes"):
        metrics.confusion_matrix(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="one length"):
        metrics.confusion_matrix(np.array([0, 1]), np.array([0]), 2)
    with pytest.raises(ValueError, match="one shape"):
        metrics.regression(np.zeros(3), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="no samples"):
        metrics.multilabel(np.zeros((0, 3)), np.zeros((0, 3)))


def test_numbers_by_hand() -> None:
    found = metrics.regression([1.0, 2.0, 3.0], [1.0, 2.0, 5.0])
    assert found.mae == pytest.approx(2 / 3)
    assert found.rmse == pytest.approx(math.sqrt(4 / 3))
    assert found.r2 == pytest.approx(1 - 4 / 2)
    assert metrics.regression([0.1, 0.1, 0.1], [0.1, 0.2, 0.3]).r2 is None


def test_labels_by_hand() -> None:
    found = metrics.multilabel([[1, 0, 0], [1, 1, 0]], [[0.9, 0.1, 0.2], [0.5, 0.4, 0.1]])
    assert found.exact_match == 0.5
    assert found.micro_f1 == pytest.approx(2 * 2 / (2 + 3))
    assert [item.f1 for item in found.labels] == [1.0, 0.0, None]
    assert found.macro_f1 == 0.5
    nothing = metrics.multilabel([[0]], [[0.0]])
    assert (nothing.exact_match, nothing.micro_f1, nothing.macro_f1) == (1.0, None, None)


def test_the_interval_of_a_share() -> None:
    assert metrics.wilson_interval(0, 10) == (pytest.approx(0.0), pytest.approx(0.2775, abs=1e-4))
    assert metrics.wilson_interval(10, 10) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1.0))
    low, high = metrics.wilson_interval(322, 500)
    assert (low, high) == (pytest.approx(0.6010, abs=1e-3), pytest.approx(0.6848, abs=1e-3))


def same(ours: float | None, theirs: float) -> bool:
    return math.isnan(theirs) if ours is None else ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(("classes", "samples"), [(2, 1), (2, 40), (10, 30), (10, 500), (200, 150), (200, 3000)])
def test_classes_as_scikit_learn_measures_them(classes: int, samples: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng([classes, samples])
    truth = rng.integers(0, classes, samples)
    predicted = np.where(rng.random(samples) < 0.6, truth, rng.integers(0, classes, samples))
    labels = list(range(classes))
    matrix = metrics.confusion_matrix(truth, predicted, classes)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(truth, predicted, labels=labels))
    rows, columns_said, counts = metrics.confused(truth, predicted, classes)
    sparse = np.zeros_like(matrix)
    sparse[rows, columns_said] = counts
    np.testing.assert_array_equal(sparse, matrix - np.diag(matrix.diagonal()))
    found = metrics.classification(truth, predicted, classes)
    assert found.accuracy == pytest.approx(sk.accuracy_score(truth, predicted))
    columns = sk.precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=np.nan)
    for item, precision, recall, f1, support in zip(found.classes, *columns, strict=True):
        assert same(item.precision, precision)
        assert same(item.recall, recall)
        assert same(item.f1, f1)
        assert item.support == support
    occurring = sorted(set(truth.tolist()))
    macro = sk.precision_recall_fscore_support(truth, predicted, labels=occurring, average="macro", zero_division=0)
    assert (found.macro_precision, found.macro_recall, found.macro_f1) == tuple(map(pytest.approx, macro[:3]))


@pytest.mark.parametrize(("labels", "samples"), [(1, 20), (5, 60), (40, 300)])
def test_several_labels_as_scikit_learn_measures_them(labels: int, samples: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng([labels, samples])
    truth = (rng.random((samples, labels)) < 0.3).astype(np.int64)
    truth[0] = 1  # every label occurs
    probabilities = np.clip(0.6 * truth + 0.7 * rng.random((samples, labels)), 0, 1)
    predicted = (probabilities >= 0.5).astype(np.int64)
    found = metrics.multilabel(truth, probabilities)
    options = {"zero_division": 0, **({"average": "binary"} if labels == 1 else {"average": None})}
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        expected = np.atleast_1d(score(truth, predicted, **options))
        assert [getattr(item, name) for item in found.labels] == pytest.approx(expected.tolist())
    assert found.exact_match == pytest.approx(sk.accuracy_score(truth, predicted))
    if labels > 1:
        assert found.micro_f1 == pytest.approx(sk.f1_score(truth, predicted, average="micro"))
        assert found.macro_f1 == pytest.approx(sk.f1_score(truth, predicted, average="macro"))


@pytest.mark.parametrize("shape", [(50,), (50, 1), (200, 4)])
def test_numbers_as_scikit_learn_measures_them(shape: tuple[int, ...]) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(shape)
    truth = 1000 + 5 * rng.standard_normal(shape)
    predicted = truth + rng.standard_normal(shape)
    found = metrics.regression(truth, predicted)
    assert found.mae == pytest.approx(sk.mean_absolute_error(truth, predicted))
    assert found.rmse == pytest.approx(sk.root_mean_squared_error(truth, predicted))
    assert found.r2 == pytest.approx(sk.r2_score(truth, predicted))
    if len(shape) == 2:
        each = sk.r2_score(truth, predicted, multioutput="raw_values")
        assert [target.r2 for target in found.targets] == pytest.approx(each.tolist())


def test_many_classes_take_no_memory_by_their_square() -> None:
    classes = 50_000  # whose matrix would be 20 GB
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, classes, 1000), rng.integers(0, classes, 1000)
    predicted[:500] = truth[:500]
    found = metrics.classification(truth, predicted, classes)
    assert found.correct == int((truth == predicted).sum())
    assert len(found.classes) == classes
    assert metrics.confused(truth, predicted, classes)[2].sum() == 1000 - found.correct


def test_log_loss_as_scikit_learn_measures_it() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    logits = 5 * rng.standard_normal((40, 3))
    classes = rng.integers(0, 3, 40)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert metrics.log_loss(classes, logits) == pytest.approx(sk.log_loss(classes, probabilities))
    several = rng.integers(0, 2, (40, 3))
    each = [sk.log_loss(several[:, k], 1 / (1 + np.exp(-logits[:, k]))) for k in range(3)]
    assert metrics.log_loss(several, logits) == pytest.approx(np.mean(each))


def test_log_loss_of_numbers_beyond_what_exp_can_hold() -> None:
    assert metrics.log_loss(np.array([0, 1]), np.array([[2000.0, 0.0], [0.0, 2000.0]])) == 0
    assert metrics.log_loss(np.array([1]), np.array([[2000.0, 0.0]])) == 2000
    assert metrics.log_loss(np.array([[1, 0]]), np.array([[2000.0, 2000.0]])) == 1000
