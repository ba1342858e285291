"""What every engine must do; each test runs over all engines that are installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.artifacts import Artifacts, load_artifacts
from edgetl.engines.registry import Engine, open_engine, specs
from edgetl.errors import EngineError
from edgetl.optimizers.registry import Optimizer
from edgetl.runtime.sessions import installed_distributions
from edgetl.shared_settings import ENGINES

_TRAINING = any(name.startswith("onnxruntime-training") for name in installed_distributions())
_INSTALLED = ["ort-training", "portable"] if _TRAINING else ["portable"]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((16, 64)).astype(np.float32)
Y = RNG.integers(0, 4, 16)
T = np.eye(4, dtype=np.float32)[Y]
W = np.full(16, 1 / 16, np.float32)


@pytest.fixture(scope="module")
def artifacts(digits_artifacts: Path) -> Artifacts:
    return load_artifacts(digits_artifacts)


@pytest.fixture(params=_INSTALLED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(name: str, artifacts: Artifacts, state: bytes | None = None, **settings: Any) -> Engine:
    return open_engine(name, artifacts, state, threads=2, **settings)


def test_the_options_of_the_command_line_are_the_engines() -> None:
    assert ("auto", *specs()) == ENGINES
    assert all(spec.name == name for name, spec in specs().items())


def test_it_starts_where_prepare_left_it(name: str, artifacts: Artifacts) -> None:
    engine = opened(name, artifacts)
    parameters = engine.parameters()
    assert {key: value.shape for key, value in parameters.items()} == {"10.weight": (4, 64), "10.bias": (4,)}
    assert all((value == 0).all() for value in parameters.values())


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_it_tells_whether_its_parameters_are_finite(name: str, artifacts: Artifacts, micro_batch: int | None) -> None:
    assert opened(name, artifacts, micro_batch=micro_batch).is_finite()
    for value in (np.nan, np.inf, -np.inf):
        for key, shape in (("10.weight", (4, 64)), ("10.bias", (4,))):
            array = np.ones(shape, np.float32)
            array.flat[-1] = value
            assert not opened(name, artifacts, initial={key: array}, micro_batch=micro_batch).is_finite()
    engine = opened(name, artifacts, micro_batch=micro_batch)
    engine.train_step([X], T, W, 0.01)
    assert engine.is_finite()
    engine.train_step([X], T, W, np.inf)
    assert not engine.is_finite()


def test_losses_and_logits_are_the_formulas(name: str, artifacts: Artifacts) -> None:
    engine = opened(name, artifacts)
    for _ in range(3):
        engine.train_step([X], T, W, 0.01)
    parameters = engine.parameters()
    expected = X.astype(np.float64) @ parameters["10.weight"].T.astype(np.float64) + parameters["10.bias"]
    shifted = expected - expected.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss, logits = engine.evaluate([X], T, W)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert loss == pytest.approx(-log_probabilities[np.arange(16), Y].mean(), rel=1e-5)
    assert engine.train_step([X], T, W, 0.01) == pytest.approx(loss, rel=1e-6)


def gradients(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the mean cross-entropy of X and Y, in float64."""
    logits = X.astype(np.float64) @ weight.T + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (probabilities - T) / len(Y)
    return error.T @ X, error.sum(0)


def check_parameters(engine: Engine, weight: np.ndarray, bias: np.ndarray) -> None:
    parameters = engine.parameters()
    np.testing.assert_allclose(parameters["10.weight"], weight, atol=2e-6)
    np.testing.assert_allclose(parameters["10.bias"], bias, atol=2e-6)


RATES = (1e-2, 1e-2, 3e-3, 1e-3)
MICRO_BATCHES = (None, 16, 5, 1)


@pytest.mark.parametrize("micro_batch", MICRO_BATCHES)
@pytest.mark.parametrize("clip_norm", [None, 0.1, 1e3])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.3])
def test_steps_are_adamw(
    name: str, artifacts: Artifacts, micro_batch: int | None, clip_norm: float | None, weight_decay: float
) -> None:
    """Against the formula of Loshchilov and Hutter (2019), algorithm 2, in float64."""
    optimizer = Optimizer(weight_decay=weight_decay, clip_norm=clip_norm)
    engine = opened(name, artifacts, optimizer=optimizer, micro_batch=micro_batch)
    values = [np.zeros((4, 64)), np.zeros(4)]
    moments = [[np.zeros_like(value), np.zeros_like(value)] for value in values]
    beta1, beta2, epsilon = optimizer.hyperparameters.values()
    for step, rate in enumerate(RATES, start=1):
        for value, gradient, (first, second) in zip(values, clipped(values, clip_norm), moments, strict=True):
            first[...] = beta1 * first + (1 - beta1) * gradient
            second[...] = beta2 * second + (1 - beta2) * gradient**2
            corrected = first / (1 - beta1**step), second / (1 - beta2**step)
            value *= 1 - rate * weight_decay
            value -= rate * corrected[0] / (np.sqrt(corrected[1]) + epsilon)
        engine.train_step([X], T, W, rate)
    check_parameters(engine, *values)


@pytest.mark.parametrize("micro_batch", MICRO_BATCHES)
@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.0), (0.9, 0.01), (0.0, 0.0), (0.5, 0.3)])
def test_steps_are_sgd_with_momentum(
    name: str,
    artifacts: Artifacts,
    micro_batch: int | None,
    clip_norm: float | None,
    momentum: float,
    weight_decay: float,
) -> None:
    """Against the formula of torch.optim.SGD, with decoupled decay, in float64."""
    optimizer = Optimizer("sgd", {"momentum": momentum}, weight_decay=weight_decay, clip_norm=clip_norm)
    engine = opened(name, artifacts, optimizer=optimizer, micro_batch=micro_batch)
    values = [np.zeros((4, 64)), np.zeros(4)]
    moments = [np.zeros_like(value) for value in values]
    for rate in RATES:
        for value, gradient, moment in zip(values, clipped(values, clip_norm), moments, strict=True):
            moment[...] = momentum * moment + gradient
            value -= rate * moment
            value *= 1 - rate * weight_decay
        engine.train_step([X], T, W, rate)
    check_parameters(engine, *values)


@pytest.mark.parametrize("micro_batch", MICRO_BATCHES)
@pytest.mark.parametrize(("betas", "weight_decay"), [((0.9, 0.99), 0.0), ((0.9, 0.99), 0.3), ((0.5, 0.8), 0.01)])
def test_steps_are_lion(
    artifacts: Artifacts, micro_batch: int | None, betas: tuple[float, float], weight_decay: float
) -> None:
    """Against algorithm 2 of Chen et al. (2023), in float64."""
    numbers = dict(zip(("beta1", "beta2"), betas, strict=True))
    optimizer = Optimizer("lion", numbers, weight_decay=weight_decay)
    engine = opened("portable", artifacts, optimizer=optimizer, micro_batch=micro_batch)
    values = [np.zeros((4, 64)), np.zeros(4)]
    moments = [np.zeros_like(value) for value in values]
    for rate in RATES:
        for value, gradient, moment in zip(values, gradients(*values), moments, strict=True):
            direction = np.sign(betas[0] * moment + (1 - betas[0]) * gradient)
            value -= rate * (direction + weight_decay * value)
            moment[...] = betas[1] * moment + (1 - betas[1]) * gradient
        engine.train_step([X], T, W, rate)
    check_parameters(engine, *values)


@pytest.mark.skipif(not _TRAINING, reason="needs onnxruntime-training")
def test_what_onnxruntime_training_lacks_is_refused(artifacts: Artifacts) -> None:
    with pytest.raises(EngineError, match="has no optimizer lion: use --engine portable"):
        opened("ort-training", artifacts, optimizer=Optimizer("lion"))


def clipped(values: list[np.ndarray], largest: float | None) -> list[np.ndarray]:
    found = list(gradients(*values))
    norm = np.sqrt(sum((gradient**2).sum() for gradient in found))
    factor = 1.0 if largest is None else min(1.0, largest / (norm + 1e-6))
    return [gradient * factor for gradient in found]


@pytest.mark.parametrize("micro_batch", [None, 3])
@pytest.mark.parametrize("optimizer", [Optimizer("sgd"), Optimizer(clip_norm=0.1)])
def test_other_settings_continue_exactly(
    name: str, artifacts: Artifacts, micro_batch: int | None, optimizer: Optimizer
) -> None:
    settings = {"micro_batch": micro_batch, "optimizer": optimizer}
    whole, broken = opened(name, artifacts, **settings), opened(name, artifacts, **settings)
    for _ in range(2):
        whole.train_step([X], T, W, 0.02)
        broken.train_step([X], T, W, 0.02)
    broken = opened(name, artifacts, broken.state(), **settings)
    assert whole.train_step([X], T, W, 0.02) == broken.train_step([X], T, W, 0.02)
    assert whole.state() == broken.state()


def test_weights_weigh_samples(name: str, artifacts: Artifacts) -> None:
    """A sample of weight 0 is not there; one of double weight is there twice."""
    one, two = opened(name, artifacts), opened(name, artifacts)
    weights = np.array([2, *[1] * 14, 0], np.float32) / 16
    rows = [0, *range(15)]
    for _ in range(3):
        assert one.train_step([X], T, weights, 0.01) == pytest.approx(
            two.train_step([X[rows]], T[rows], W, 0.01), rel=1e-6
        )
    np.testing.assert_allclose(one.parameters()["10.weight"], two.parameters()["10.weight"], atol=1e-6)


def test_evaluating_changes_nothing(name: str, artifacts: Artifacts) -> None:
    one, two = opened(name, artifacts), opened(name, artifacts)
    for _ in range(3):
        one.train_step([X], T, W, 0.01)
        one.evaluate([X[:5]], T[:5], W[:5])
        two.train_step([X], T, W, 0.01)
    assert one.state() == two.state()


def test_its_state_continues_exactly(name: str, artifacts: Artifacts) -> None:
    whole, broken = opened(name, artifacts), opened(name, artifacts)
    for _ in range(2):
        whole.train_step([X], T, W, 0.02)
        broken.train_step([X], T, W, 0.02)
    broken = opened(name, artifacts, broken.state())
    for size in (16, 3, 16):  # a last batch may be smaller
        assert whole.train_step([X[:size]], T[:size], W[:size], 0.02) == broken.train_step(
            [X[:size]], T[:size], W[:size], 0.02
        )
    assert whole.state() == broken.state()


def test_parameters_are_copies(name: str, artifacts: Artifacts) -> None:
    engine = opened(name, artifacts)
    before = engine.parameters()
    engine.train_step([X], T, W, 0.1)
    assert (before["10.weight"] == 0).all()


@pytest.mark.parametrize(
    ("features", "targets", "weights"),
    [
        ([X[:, :5]], T, W),
        ([X[:3]], T, W),
        ([X, X], T, W),
        ([], T, W),
        ([X.astype(np.float64)], T, W),
        ([X], T.astype(np.float64), W),
        ([X], T[:, :3], W),
        ([X], Y, W),
        ([X], T * np.nan, W),
        ([X], T, W[:3]),
        ([X], T, W * np.inf),
        ([X[:0]], T[:0], W[:0]),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, artifacts: Artifacts, features: list[np.ndarray], targets: np.ndarray, weights: np.ndarray
) -> None:
    engine = opened(name, artifacts)
    before = engine.state()
    with pytest.raises(EngineError):
        engine.train_step(features, targets, weights, 0.1)
    with pytest.raises(EngineError):
        engine.evaluate(features, targets, weights)
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
        losses = [engine.train_step([X[rows]], T[rows], W[:8] * 2, 0.01) for engine in (one, two)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    (_, first), (_, second) = (engine.evaluate([X], T, W) for engine in (one, two))
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert (first.argmax(1) == second.argmax(1)).all()
