"""Heads in closed form, against scikit-learn and against what they are defined to be."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgetl.training.initialization import MOST_SCORES, PENALTIES, TIE, Batches, prototype, ridge

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


def mixed(targets: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * targets + share / targets.shape[1]


@pytest.mark.parametrize(("scales", "smoothing"), [(np.ones(30), 0.0), (np.r_[np.full(15, 100.0), np.ones(15)], 0.2)])
def test_ridge_is_scikit_learns_with_the_scaling_and_penalty_of_smallest_left_out_loss(
    scales: np.ndarray, smoothing: float
) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")

    x, y = blobs(60, 0)
    x = (x * scales).astype(np.float32)
    truth = mixed(mixed(y, smoothing), 1 / 61)
    best = None
    for scale in (x.std(0), np.ones(30)):
        z = (x / scale).astype(np.float64)
        unit = z.var(0).sum() * len(z)
        chosen = None
        for penalty in PENALTIES:
            model = linear_model.Ridge(alpha=penalty * unit)
            left_out = np.stack(
                [model.fit(np.delete(z, i, 0), np.delete(y, i, 0)).predict(z[i : i + 1])[0] for i in range(len(z))]
            )
            losses = {factor: cross_entropy(factor * left_out, truth) for factor in np.logspace(-4, 10, 300, base=2)}
            factor = min(losses, key=losses.__getitem__)
            if chosen is None or losses[factor] < chosen[0] * (1 - TIE):
                fitted = model.fit(z, y)
                chosen = (losses[factor], factor, fitted.coef_ / scale, fitted.intercept_)
        if best is None or chosen[0] < best[0]:
            best = chosen
    head = ridge(batches(x, y), "classification", smoothing)
    _, factor, weight, bias = best
    used = (head.weight * weight).sum() / (weight * weight).sum()
    assert used == pytest.approx(factor, rel=0.05)
    np.testing.assert_allclose(head.weight, used * weight, rtol=1e-3, atol=1e-5 * used)
    np.testing.assert_allclose(head.bias, used * bias, rtol=1e-3, atol=1e-3 * used)


@pytest.mark.parametrize("shape", [(40, 8), (1500, 8), (900, 1200)])
def test_ridge_of_more_samples_than_choose_is_scikit_learns_of_all(shape: tuple[int, int]) -> None:
    """Whatever penalty was chosen: the fit satisfies `(ZᵀZ + λI) w = Zᵀ(y - ȳ)` for one λ and every class."""
    rng = np.random.default_rng(1)
    labels = np.arange(shape[0]) % 3
    x = (rng.standard_normal(shape) + 0.7 * rng.standard_normal((3, shape[1]))[labels]).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[labels]
    head = ridge(batches(x, y, 100), "classification")
    for scale in (np.ones(shape[1]), x.std(0)):
        z, w = (x - x.mean(0, dtype=np.float64)) / scale, head.weight.astype(np.float64).T * scale[:, None]
        left, right = z.T @ (z @ w), z.T @ (y - y.mean(0))
        # right · factor = left + λ w, so two numbers explain everything
        unknown, residual, *_ = np.linalg.lstsq(np.stack([right.ravel(), -w.ravel()], 1), left.ravel(), rcond=None)
        if residual[0] < 1e-8 * (left**2).sum():
            assert unknown[0] > 0
            assert unknown[1] > 0
            return
    pytest.fail("no penalty and factor explain the weights")


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


@pytest.mark.parametrize("make", [prototype, lambda b: ridge(b, "classification")])
@pytest.mark.parametrize(("count", "classes"), [(12, 2), (40, 4), (400, 4)])
def test_samples_that_are_all_told_apart_give_no_certainty(make: Any, count: int, classes: int) -> None:
    """n right answers leave room for one that is wrong: probabilities end near `1 - 1/(n + 1)`, not at 1."""
    rng = np.random.default_rng(2)
    labels = np.arange(count) % classes
    x = (50 * np.eye(classes, 20)[labels] + 1 + 0.1 * rng.standard_normal((count, 20))).astype(np.float32)
    y = np.eye(classes, dtype=np.float32)[labels]
    head = make(batches(x, y))
    logits = x @ head.weight.T + head.bias
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    assert (probabilities.argmax(1) == labels).all()
    mistake = 1 - probabilities.max(1).mean()
    assert 0.3 < mistake / ((1 - 1 / classes) / (count + 1)) < 2


def test_constant_and_huge_features_do_no_harm() -> None:
    x, y = blobs(80, 8)
    rng = np.random.default_rng(3)
    seconds = 1.7e9 + rng.uniform(0, 3e7, (80, 1))
    with_more = np.hstack([x, np.full((80, 1), 1e12), seconds, np.full((80, 1), -7.25)]).astype(np.float32)
    plain, head = (ridge(batches(data, y), "classification") for data in (x, with_more))
    assert (head.weight[:, [30, 32]] == 0).all()
    agree = (with_more.astype(np.float64) @ head.weight.T + head.bias).argmax(1) == (x @ plain.weight.T).argmax(1)
    assert (x @ plain.weight.T + plain.bias).argmax(1) == pytest.approx(y.argmax(1), abs=3)
    assert agree.mean() > 0.5
    new_x, new_y = blobs(200, 9)
    more = np.hstack([new_x, np.full((200, 1), 1e12), 1.7e9 + rng.uniform(0, 3e7, (200, 1)), np.full((200, 1), -7.25)])
    with_it = (more @ head.weight.astype(np.float64).T + head.bias).argmax(1) == new_y.argmax(1)
    without = (new_x @ plain.weight.T + plain.bias).argmax(1) == new_y.argmax(1)
    assert with_it.mean() > without.mean() - 0.05


def test_numbers_of_features_in_millions() -> None:
    """A line through features whose sums of squares would lose every digit in a naive variance."""
    rng = np.random.default_rng(4)
    x = (3e6 + rng.integers(0, 64, (50, 3))).astype(np.float32)
    y = (x.astype(np.float64) @ [[1.0], [-2.0], [0.5]] - 1e6).astype(np.float32)
    head = ridge(batches(x, y), "regression")
    np.testing.assert_allclose(head.weight, [[1.0, -2.0, 0.5]], rtol=0.01)


def test_thousands_of_classes_take_no_more_memory_than_samples_and_weights() -> None:
    classes, features = 3000, 16
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((classes, features)).astype(np.float32)
    order = rng.permutation(2 * classes) % classes

    def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(order), 256):
            labels = order[start : start + 256]
            yield centres[labels], (labels[:, None] == np.arange(classes)).astype(np.float32)

    tracemalloc.start()
    try:
        head = ridge(read, "classification")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert head.weight.shape == (classes, features)
    # scores of left-out samples in float64, a few at a time; all targets would be 72 MB in float32 alone
    assert peak < 8 * MOST_SCORES * 12


def recorded(windows: list[int], seed: int, alike: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows of recordings: features, targets and numbers of recordings; windows of one are nearly alike."""
    rng = np.random.default_rng(seed)
    x, y = blobs(len(windows), seed)
    recordings = rng.permutation(np.repeat(np.arange(len(windows)), windows))
    noise = alike * rng.standard_normal((len(recordings), x.shape[1]))
    return (x[recordings] + noise).astype(np.float32), y[recordings], recordings


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_ridge_leaves_out_whole_recordings(task: str) -> None:
    """The penalty, the scaling and the factor are those that refits without each recording give."""
    linear_model = pytest.importorskip("sklearn.linear_model")

    x, y, recordings = recorded([1, 5, 2, 4, 1, 3, 7, 2] * 4, 10)
    if task == "regression":
        y = (y @ np.array([[1.0], [2.0], [-1.0], [0.5]])).astype(np.float32)
    truth = mixed(y, 1 / (len(set(recordings.tolist())) + 1)) if task == "classification" else y
    found: list[Any] = []
    for scale in (x.std(0), np.ones(30)):
        z = (x / scale).astype(np.float64)
        unit = z.var(0).sum() * len(z)
        chosen: Any = None
        for penalty in PENALTIES:
            model, left_out = linear_model.Ridge(alpha=penalty * unit), np.empty(y.shape)
            for recording in set(recordings.tolist()):
                inside = recordings == recording
                left_out[inside] = model.fit(z[~inside], y[~inside]).predict(z[inside]).reshape(-1, y.shape[1])
            if task == "classification":
                losses = {f: cross_entropy(f * left_out, truth) for f in np.logspace(-4, 10, 300, base=2)}
            else:
                losses = {1.0: float(((left_out - y) ** 2).mean())}
            factor = min(losses, key=losses.__getitem__)
            if chosen is None or losses[factor] < chosen[0] * (1 - TIE):
                fitted = model.fit(z, y)
                chosen = (losses[factor], factor, fitted.coef_.reshape(y.shape[1], -1) / scale)
        found.append(chosen)
    _, factor, weight = min(found, key=lambda each: each[0])
    head = ridge(batches(x, y), task, recordings=recordings)
    used = (head.weight * weight).sum() / (weight * weight).sum()
    assert used == pytest.approx(factor, rel=0.05)
    np.testing.assert_allclose(head.weight, used * weight, rtol=1e-3, atol=1e-5 * used)


@pytest.mark.parametrize("windows", [5, 20, 60])
def test_windows_of_a_recording_make_no_head_too_sure(windows: int) -> None:
    """A head of many windows is as sure as one of a window of each recording; 3600 windows at most here."""
    x, y, recordings = recorded([windows] * 60, 11, alike=0.05)
    new_x, new_y, _ = recorded([1] * 400, 12)
    first = np.unique(recordings, return_index=True)[1]
    heads = [
        ridge(batches(x, y), "classification", recordings=recordings),
        ridge(batches(x[first], y[first]), "classification"),
        ridge(batches(x, y), "classification"),
    ]
    losses = [cross_entropy(new_x @ head.weight.T + head.bias, new_y) for head in heads]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0] < losses[2] - 0.1


def test_prototypes_leave_out_whole_recordings() -> None:
    """Copies of a sample are left out with it, and then change nothing."""
    x, y = blobs(40, 13)
    plain = prototype(batches(x, y))
    copied = prototype(batches(np.tile(x, (3, 1)), np.tile(y, (3, 1))), recordings=np.tile(np.arange(40), 3))
    np.testing.assert_allclose(copied.weight, plain.weight, rtol=1e-4)


@pytest.mark.parametrize("make", [prototype, lambda b, **more: ridge(b, "classification", **more)])
def test_one_recording_of_each_class_gives_a_finite_head(make: Any) -> None:
    x, y, recordings = recorded([50] * 4, 14)
    head = make(batches(x, y), recordings=recordings)
    assert np.isfinite(head.weight).all()
    assert np.abs(x @ head.weight.T + head.bias).max() < 100
