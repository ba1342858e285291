"""Heads in closed form, against scikit-learn and against what they are defined to be."""

from collections.abc import Iterator

import numpy as np
import pytest

from edgetl.initialization import FACTORS, PENALTIES, Batches, prototype, ridge

RNG = np.random.default_rng(0)
CENTRES = RNG.standard_normal((4, 30)) * 0.6


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    order = rng.permutation(count)
    x = CENTRES[labels] + rng.standard_normal((count, 30)) + 2.0
    return x[order].astype(np.float32), np.eye(4, dtype=np.float32)[labels[order]]


def batches(x: np.ndarray, y: np.ndarray, size: int = 16) -> Batches:
    def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(x), size):
            yield x[start : start + size], y[start : start + size]

    return read


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    return float((np.logaddexp.reduce(logits, axis=1) - (targets * logits).sum(1)).mean())


def test_ridge_is_scikit_learns_with_the_penalty_of_smallest_left_out_loss() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")

    x, y = blobs(60, 0)
    head = ridge(batches(x, y), "classification")
    covariance = np.cov(x.astype(np.float64).T, bias=True) * len(x)
    unit = np.trace(covariance) / 30
    best = None
    for penalty in PENALTIES:
        left_out = np.stack(
            [
                linear_model.Ridge(alpha=penalty * unit)
                .fit(np.delete(x, i, 0), np.delete(y, i, 0))
                .predict(x[i : i + 1])[0]
                for i in range(len(x))
            ]
        )
        for factor in FACTORS:
            logits = factor * left_out
            loss = cross_entropy(logits, y)
            if best is None or loss < best[0]:
                best = (loss, penalty, factor)
    assert best is not None
    fitted = linear_model.Ridge(alpha=best[1] * unit).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(head.weight, best[2] * fitted.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(head.bias, best[2] * fitted.intercept_, rtol=1e-3, atol=1e-3)


def test_ridge_of_numbers_finds_a_line() -> None:
    x, _ = blobs(200, 1)
    line, offset = RNG.standard_normal((2, 30)), np.array([3.0, -1.0])
    y = (x @ line.T + offset).astype(np.float32)
    head = ridge(batches(x, y), "regression")
    np.testing.assert_allclose(head.weight, line, atol=0.01)
    np.testing.assert_allclose(x @ head.weight.T + head.bias, y, atol=0.05)


def test_ridge_of_several_labels_tells_them_apart() -> None:
    x, _ = blobs(400, 2)
    planes = RNG.standard_normal((3, 30))
    y = ((x - 2) @ planes.T > 0).astype(np.float32)
    head = ridge(batches(x[:300], y[:300]), "multilabel")
    assert ((x[300:] @ head.weight.T + head.bias > 0) == y[300:]).mean() > 0.9


def test_prototypes_are_means_of_normalised_features() -> None:
    x, y = blobs(80, 3)
    head = prototype(batches(x, y))
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    means = np.stack([units[y[:, k] == 1].mean(0) for k in range(4)])
    found = head.weight / np.linalg.norm(head.weight, axis=1, keepdims=True)
    np.testing.assert_allclose(found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)
    assert (head.bias == 0).all()


@pytest.mark.parametrize("per_class", [1, 5, 50])
def test_both_are_usable_and_calibrated(per_class: int) -> None:
    """Better than chance on new samples, with a loss below that of equal probabilities, from one sample a class on."""
    x, y = blobs(4 * per_class, 4)
    new_x, new_y = blobs(400, 5)
    for head in (prototype(batches(x, y)), ridge(batches(x, y), "classification")):
        logits = new_x @ head.weight.T + head.bias
        assert np.isfinite(logits).all()
        loss = cross_entropy(logits, new_y)
        assert loss < np.log(4) + 0.05
        if per_class > 1:
            assert (logits.argmax(1) == new_y.argmax(1)).mean() > 0.4


def test_batches_do_not_matter() -> None:
    x, y = blobs(64, 6)
    for make in (prototype, lambda b: ridge(b, "classification")):
        one, two = make(batches(x, y, 64)), make(batches(x, y, 5))
        np.testing.assert_allclose(one.weight, two.weight, rtol=1e-4, atol=1e-6)


def test_features_that_are_all_zero_do_no_harm() -> None:
    x, y = np.zeros((8, 5), np.float32), np.eye(4, dtype=np.float32)[np.arange(8) % 4]
    for head in (prototype(batches(x, y)), ridge(batches(x, y), "classification")):
        assert np.isfinite(head.weight).all()
        assert np.isfinite(head.bias).all()
