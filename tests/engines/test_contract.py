"""What every engine must do; each test runs over all engines that are installed."""

from pathlib import Path

import numpy as np
import pytest

from edgetl.artifacts import Artifacts, load_artifacts
from edgetl.engines import Engine, open_engine
from edgetl.errors import EngineError
from edgetl.runtime import installed_distributions

_TRAINING = any(name.startswith("onnxruntime-training") for name in installed_distributions())
_INSTALLED = ["ort-training", "portable"] if _TRAINING else ["portable"]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((16, 64)).astype(np.float32)
Y = RNG.integers(0, 4, 16)


@pytest.fixture(scope="module")
def artifacts(digits_artifacts: Path) -> Artifacts:
    return load_artifacts(digits_artifacts)


@pytest.fixture(params=_INSTALLED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(name: str, artifacts: Artifacts, state: bytes | None = None) -> Engine:
    return open_engine(name, artifacts, state, threads=2)


def test_it_starts_where_prepare_left_it(name: str, artifacts: Artifacts) -> None:
    engine = opened(name, artifacts)
    parameters = engine.parameters()
    assert {key: value.shape for key, value in parameters.items()} == {"10.weight": (4, 64), "10.bias": (4,)}
    assert all((value == 0).all() for value in parameters.values())


def test_losses_and_logits_are_the_formulas(name: str, artifacts: Artifacts) -> None:
    engine = opened(name, artifacts)
    for _ in range(3):
        engine.train_step([X], Y, 0.01)
    parameters = engine.parameters()
    expected = X.astype(np.float64) @ parameters["10.weight"].T.astype(np.float64) + parameters["10.bias"]
    shifted = expected - expected.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss, logits = engine.evaluate([X], Y)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert loss == pytest.approx(-log_probabilities[np.arange(16), Y].mean(), rel=1e-5)
    assert engine.train_step([X], Y, 0.01) == pytest.approx(loss, rel=1e-6)


def test_steps_are_adamw(name: str, artifacts: Artifacts) -> None:
    """Against the formula of Loshchilov and Hutter (2019), algorithm 2, in float64."""
    engine = opened(name, artifacts)
    weight, bias = np.zeros((4, 64)), np.zeros(4)
    moments = {key: [np.zeros_like(value), np.zeros_like(value)] for key, value in (("w", weight), ("b", bias))}
    optimizer = artifacts.manifest.optimizer
    one_hot = np.eye(4)[Y]
    for step, rate in enumerate((1e-2, 1e-2, 3e-3, 1e-3), start=1):
        logits = X.astype(np.float64) @ weight.T + bias
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = (probabilities - one_hot) / len(Y)
        for key, value, gradient in (("w", weight, error.T @ X), ("b", bias, error.sum(0))):
            first, second = moments[key]
            first[...] = optimizer.betas[0] * first + (1 - optimizer.betas[0]) * gradient
            second[...] = optimizer.betas[1] * second + (1 - optimizer.betas[1]) * gradient**2
            corrected = first / (1 - optimizer.betas[0] ** step), second / (1 - optimizer.betas[1] ** step)
            value *= 1 - rate * optimizer.weight_decay
            value -= rate * corrected[0] / (np.sqrt(corrected[1]) + optimizer.epsilon)
        engine.train_step([X], Y, rate)
    parameters = engine.parameters()
    np.testing.assert_allclose(parameters["10.weight"], weight, atol=2e-6)
    np.testing.assert_allclose(parameters["10.bias"], bias, atol=2e-6)


def test_evaluating_changes_nothing(name: str, artifacts: Artifacts) -> None:
    one, two = opened(name, artifacts), opened(name, artifacts)
    for _ in range(3):
        one.train_step([X], Y, 0.01)
        one.evaluate([X[:5]], Y[:5])
        two.train_step([X], Y, 0.01)
    assert one.state() == two.state()


def test_its_state_continues_exactly(name: str, artifacts: Artifacts) -> None:
    whole, broken = opened(name, artifacts), opened(name, artifacts)
    for _ in range(2):
        whole.train_step([X], Y, 0.02)
        broken.train_step([X], Y, 0.02)
    broken = opened(name, artifacts, broken.state())
    for size in (16, 3, 16):  # a last batch may be smaller
        assert whole.train_step([X[:size]], Y[:size], 0.02) == broken.train_step([X[:size]], Y[:size], 0.02)
    assert whole.state() == broken.state()


def test_parameters_are_copies(name: str, artifacts: Artifacts) -> None:
    engine = opened(name, artifacts)
    before = engine.parameters()
    engine.train_step([X], Y, 0.1)
    assert (before["10.weight"] == 0).all()


@pytest.mark.parametrize(
    ("features", "targets"),
    [
        ([X[:, :5]], Y),
        ([X[:3]], Y),
        ([X, X], Y),
        ([], Y),
        ([X.astype(np.float64)], Y),
        ([X], Y.astype(np.int32)),
        ([X], Y[:, None]),
        ([X], Y + 4),
        ([X], Y - 4),
        ([X[:0]], Y[:0]),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, artifacts: Artifacts, features: list[np.ndarray], targets: np.ndarray
) -> None:
    engine = opened(name, artifacts)
    before = engine.state()
    with pytest.raises(EngineError):
        engine.train_step(features, targets, 0.1)
    with pytest.raises(EngineError):
        engine.evaluate(features, targets)
    assert engine.state() == before


def test_a_damaged_state_is_refused(name: str, artifacts: Artifacts) -> None:
    with pytest.raises(EngineError):
        opened(name, artifacts, b"damaged")


@pytest.mark.skipif(len(_INSTALLED) < 2, reason="needs both engines")
def test_engines_agree(artifacts: Artifacts) -> None:
    """Fifty steps from the same start: losses within 1e-4, and the same predictions."""
    one, two = (opened(name, artifacts) for name in _INSTALLED)
    rng = np.random.default_rng(1)
    for _ in range(50):
        rows = rng.integers(0, 16, 8)
        losses = [engine.train_step([X[rows]], Y[rows], 0.01) for engine in (one, two)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    (_, first), (_, second) = (engine.evaluate([X], Y) for engine in (one, two))
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert (first.argmax(1) == second.argmax(1)).all()
