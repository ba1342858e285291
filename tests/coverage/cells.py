"""One cell of the matrix: an architecture with a policy, and the proof that its gradients are right."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engines
import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgetl.artifacts import BATCH_LOGITS, ORT_CHECKPOINT, ORT_EVAL_MODEL, ORT_TRAINING_MODEL, Artifacts, Preprocessing
from edgetl.engines.ort_training import import_training_api
from edgetl.gradients import ort_artifacts
from edgetl.graph.build import join, make_model, replace_parameters
from edgetl.graph.execute import run_graph
from edgetl.optimizers.registry import Optimizer
from edgetl.preparation import policy, split
from edgetl.preparation.heads import Network
from edgetl.runtime import sessions
from edgetl.tasks.targets import TargetEncoder

CLASSES = 5
BATCH = 3
STEPS = 50
STEP_BATCH = 4
PICTURES = 16
"""For training, and as many others."""

STANDS_STILL = 0.005
"""A training that changes the loss by less shows nothing."""

ENCODE = TargetEncoder("classification", CLASSES)
# without weight decay: at rates as small as some networks need here it is less than a parameter's last bit, so that
# how an engine rounds it would be all that it does (its arithmetic is tested in tests/engines)
OPTIMIZER = Optimizer("sgd", weight_decay=0.0)


@dataclass(frozen=True)
class Cell:
    """What was found.

    Attributes:
        feature_kb: of the features of one picture, 10^3 bytes.
        slope_error: relative difference between the loss's slope along the gradient, measured by
            central differences of the graph that is deployed, and the gradient's norm.
        logits_error: largest difference between the engine's logits and those of the deployed graph
            after a step, relative to the largest logit.
        engines_error: relative difference between the gradients of the two engines, all parameters together.
    """

    trainable: int
    frozen: int
    feature_kb: float
    slope_error: float
    logits_error: float
    engines_error: float


@dataclass(frozen=True)
class Trained:
    """What both engines made of the same training.

    Attributes:
        first_loss, last_loss: of all pictures, before and after, with onnxruntime-training.
        loss_error: largest difference between the engines' losses at any of the steps.
        rounding: the same between the portable engine and itself, started from parameters whose last bits
            differ, the largest of three; None where `loss_error` is so small that nobody asks.
        accuracy: onnxruntime-training's, on the other pictures.
        disagreements: of the other pictures, how many the engines put into different classes.
    """

    first_loss: float
    last_loss: float
    loss_error: float
    rounding: float | None
    accuracy: float
    disagreements: int


@dataclass(frozen=True)
class Prepared:
    """A network cut for a policy, with what both engines need to train it."""

    parts: split.Parts
    artifacts: Artifacts

    @property
    def trainable(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.parts.parameters)

    def features(self, pictures: np.ndarray) -> list[np.ndarray]:
        if self.parts.backbone is None:
            return [pictures]
        names = [spec.name for spec in self.parts.features]
        found = _run(self.parts.backbone, names, {self.parts.inputs[0].name: pictures})
        return [np.ascontiguousarray(feature) for feature in found]


def prepare(network: Network, image: Preprocessing, name: str, directory: Path) -> Prepared:
    """Cut the network for a policy and generate what both engines need."""
    trainable = policy.trainable_parameters(network, [name])
    parts = split.split(network, trainable)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    ort_artifacts.generate(parts.trainable, trainable, "cross_entropy", OPTIMIZER, directory)
    return Prepared(parts, engines.prepared(parts, image, CLASSES, OPTIMIZER, directory))


def measure(network: Network, image: Preprocessing, name: str, directory: Path) -> Cell:
    """Cut, differentiate, take gradients and a step; see `Cell`."""
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((BATCH, image.channels, image.height, image.width)).astype(np.float32)
    targets = rng.integers(0, CLASSES, BATCH)
    prepared = prepare(with_calm_head(moved_from_symmetry(network), pictures), image, name, directory)
    parts, trainable = prepared.parts, prepared.trainable
    names = [spec.name for spec in parts.features]
    features = prepared.features(pictures)

    training = Training(directory)
    loss, found = training.gradients(features, targets)
    values = training.parameters()
    assert set(found) == set(trainable), "every trainable parameter has a gradient"
    portable = engines.gradients(prepared.artifacts, (features, *ENCODE(targets)), values)
    engines_error = engines.difference(portable, found)
    for brighter in (1.01, 1.02):
        if engines_error < 1e-5:
            break
        # an element that stands on a kink of Clip by its last bit, where the engines take either side, moves off it;
        # a rule that is wrong is so for any pictures
        others = prepared.features((pictures * np.float32(brighter)).astype(np.float32))
        ours = engines.gradients(prepared.artifacts, (others, *ENCODE(targets)), values)
        engines_error = min(engines_error, engines.difference(ours, training.gradients(others, targets)[1]))
    deployed = Deployed(parts.trainable, trainable, dict(zip(names, features, strict=True)), targets)
    assert abs(deployed.loss(values) - loss) < 1e-4 * max(1.0, abs(loss))
    slope_error = deployed.slope_error(values, found)
    for turned in (np.roll(targets, 1), (targets + 1) % CLASSES):
        if slope_error < 0.01:
            break
        # kinks and rounding spoil the slope of some losses; a gradient that is wrong is so for each
        again = Deployed(parts.trainable, trainable, dict(zip(names, features, strict=True)), turned)
        slope_error = min(slope_error, again.slope_error(values, training.gradients(features, turned)[1]))

    # after a step of plain gradient descent, the whole graph with the new parameters gives the engine's logits
    length = engines.length(found)
    moved = {key: (value - 0.01 * found[key] / max(length, 1e-12)).astype(np.float32) for key, value in values.items()}
    training.set(moved)
    engine_logits = training.logits(features, targets)
    tail = onnx.GraphProto()
    tail.CopyFrom(parts.trainable.graph)
    replace_parameters(tail, moved)
    whole = make_model(join([p for p in (parts.backbone and parts.backbone.graph, tail) if p is not None], "whole"))
    (logits,) = _run(whole, [BATCH_LOGITS], {parts.inputs[0].name: pictures})
    error = float(np.abs(engine_logits - logits).max() / max(1e-6, float(np.abs(logits).max())))
    return Cell(
        trainable=sum(spec.elements for spec in parts.parameters),
        frozen=sum(spec.elements for spec in parts.frozen),
        feature_kb=sum(4 * spec.elements for spec in parts.features) / 1e3,
        slope_error=slope_error,
        logits_error=error,
        engines_error=engines_error,
    )


def start_error(network: Network, image: Preprocessing, directory: Path) -> float:
    """Return the relative difference between the first gradient of the head as it is prepared and its closed form.

    With all logits zero that is `(p - t)ᵀ·features / N` with p = 1/K, which is not zero: the head moves at once.
    """
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((BATCH, image.channels, image.height, image.width)).astype(np.float32)
    targets = np.arange(BATCH) % CLASSES
    prepared = prepare(network, image, "head", directory)
    (features,) = prepared.features(pictures)
    loss, found = Training(directory).gradients([features], targets)
    assert abs(loss - np.log(CLASSES)) < 1e-5
    errors = (1 / CLASSES - np.eye(CLASSES)[targets]) / BATCH
    weight, bias = network.head
    expected = {weight: errors.T @ features.astype(np.float64), bias: errors.sum(0)}
    assert all(np.abs(value).max() > 0 for value in expected.values())
    return engines.difference(found, {name: value.astype(np.float32) for name, value in expected.items()})


def train(network: Network, image: Preprocessing, name: str, directory: Path) -> Trained:
    """Train with both engines, step by step on the same pictures; see `Trained`.

    A class is a pattern of squares, and a picture of it that pattern in noise. AdamW would make a whole step of a
    gradient that is only rounding; SGD's steps are as exact as its gradients. Its rate is such that the
    loss falls by about a hundredth at a step, whatever the size of the gradients, which in random networks
    differ by orders of magnitude: with longer steps their training is chaotic.
    """
    rng = np.random.default_rng(1)
    coarse = rng.standard_normal((CLASSES, image.channels, image.height // 8, image.width // 8))
    patterns = np.kron(coarse, np.ones((8, 8)))
    labels = np.arange(2 * PICTURES) % CLASSES
    noise = rng.standard_normal((len(labels), *patterns.shape[1:]))
    pictures = (0.9 * patterns[labels] + np.sqrt(1 - 0.9**2) * noise).astype(np.float32)
    prepared = prepare(with_telling_head(network, pictures), image, name, directory)
    features = prepared.features(pictures)

    def batch(chosen: np.ndarray) -> engines.Batch:
        return [feature[chosen] for feature in features], *ENCODE(labels[chosen])

    everything, other = np.arange(PICTURES), np.arange(PICTURES, 2 * PICTURES)
    loss, found = Training(directory).gradients(batch(everything)[0], labels[:PICTURES])
    # momentum makes a step 1/(1 - μ) times as long
    rate = 0.01 * (1 - OPTIMIZER.hyperparameters["momentum"]) * loss / engines.length(found) ** 2
    batches = [batch(rng.permutation(PICTURES)[:STEP_BATCH]) for _ in range(STEPS)]

    def trained(engine: str, state: bytes | None = None) -> engines.Course:
        return engines.train(engine, prepared.artifacts, batches, (batch(everything), batch(other)), rate, state)

    ort = trained("ort-training")
    for _ in range(4):
        if abs(ort.last_loss - loss) > STANDS_STILL:
            break
        rate *= 10  # such steps are shorter than the last bits of most parameters
        ort = trained("ort-training")
    portable = trained("portable")
    loss_error = float(np.abs(portable.losses - ort.losses).max())
    rounding = None
    if not loss_error < 1e-4:
        again = [trained("portable", engines.nudged(prepared.artifacts, seed)) for seed in range(3)]
        rounding = max(float(np.abs(course.losses - portable.losses).max()) for course in again)
    return Trained(
        first_loss=loss,
        last_loss=ort.last_loss,
        loss_error=loss_error,
        rounding=rounding,
        accuracy=float((ort.logits.argmax(1) == labels[other]).mean()),
        disagreements=int((ort.logits.argmax(1) != portable.logits.argmax(1)).sum()),
    )


def moved_from_symmetry(network: Network) -> Network:
    """Give the head values, and those scales that are initialised to zero.

    A head of zeros sends no gradient back. Where the last scale of a residual branch is zero, ReLU
    stands exactly on its kink, and the loss has no slope.
    """
    network = with_random_head(network)
    rng = np.random.default_rng(2)
    values = {t.name: numpy_helper.to_array(t) for t in network.model.graph.initializer}
    moved = {
        name: rng.standard_normal(values[name].shape) * 0.2
        for name in network.parameters
        if name.endswith(".weight") and name not in network.head and values[name].ndim == 1 and not values[name].any()
    }
    replace_parameters(network.model.graph, {name: value.astype(np.float32) for name, value in moved.items()})
    return network


def with_calm_head(network: Network, pictures: np.ndarray) -> Network:
    """Scale the head so that the logits are about 1: random weights may let them explode, and the loss saturate."""
    (logits,) = run_graph(network.model, [BATCH_LOGITS], {network.model.graph.input[0].name: pictures})
    size = float(logits.std())
    values = {t.name: numpy_helper.to_array(t) for t in network.model.graph.initializer if t.name in network.head}
    replace_parameters(network.model.graph, {name: (value / size).astype(np.float32) for name, value in values.items()})
    return network


def with_telling_head(network: Network, pictures: np.ndarray) -> Network:
    """Shift and scale the head so that the logits differ by about 1 between pictures, and not between classes.

    Features of random weights differ little between pictures; else every picture would be of the same class.
    Where they differ by less than a hundredth it stays so, because the logits would be differences of numbers
    so large that float32 leaves them no digits.
    """
    network = with_calm_head(moved_from_symmetry(network), pictures)
    (logits,) = run_graph(network.model, [BATCH_LOGITS], {network.model.graph.input[0].name: pictures})
    mean, size = logits.mean(0), max(0.01, float(logits.std(0).mean()))
    values = {t.name: numpy_helper.to_array(t) for t in network.model.graph.initializer if t.name in network.head}
    shifted = {name: value - mean if value.shape == mean.shape else value for name, value in values.items()}
    replace_parameters(network.model.graph, {name: (v / size).astype(np.float32) for name, v in shifted.items()})
    return network


def with_random_head(network: Network) -> Network:
    """A head of zeros sends no gradient back, so give it values for the proof."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    rng = np.random.default_rng(1)
    drawn = {name: rng.standard_normal(shapes[name]).astype(np.float32) for name in network.head}
    scaled = {name: value / np.sqrt(max(1, value[0].size)) for name, value in drawn.items()}
    replace_parameters(model.graph, {name: value.astype(np.float32) for name, value in scaled.items()})
    return Network(model, network.parameters, network.head)


class Training:
    """onnxruntime-training's module over generated artifacts, without an optimizer."""

    def __init__(self, directory: Path) -> None:
        api = import_training_api()
        self._state = api.CheckpointState.load_checkpoint(os.fspath(directory / ORT_CHECKPOINT))
        options = sessions.import_onnxruntime().SessionOptions()
        options.log_severity_level = 3
        self._module = api.Module(
            os.fspath(directory / ORT_TRAINING_MODEL), self._state, os.fspath(directory / ORT_EVAL_MODEL),
            session_options=options,
        )  # fmt: skip

    def parameters(self) -> dict[str, np.ndarray]:
        return {name: parameter.data.copy() for name, parameter in self._state.parameters if parameter.requires_grad}

    def set(self, values: dict[str, np.ndarray]) -> None:
        for name, value in values.items():
            self._state.parameters[name] = np.ascontiguousarray(value)

    def gradients(self, features: list[np.ndarray], targets: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        self._module.train()
        self._module.lazy_reset_grad()
        loss = self._module(*features, *ENCODE(targets))[0]
        return float(loss), {n: p.grad.copy() for n, p in self._state.parameters if p.requires_grad}

    def logits(self, features: list[np.ndarray], targets: np.ndarray) -> np.ndarray:
        self._module.eval()
        return np.asarray(self._module(*features, *ENCODE(targets))[1])


class Deployed:
    """The graph that is deployed, as a function of its trainable parameters; its loss in float64."""

    def __init__(
        self, model: onnx.ModelProto, trainable: tuple[str, ...], features: dict[str, np.ndarray], targets: np.ndarray
    ) -> None:
        opened = onnx.ModelProto()
        opened.CopyFrom(model)
        graph = opened.graph
        moved = [tensor for tensor in graph.initializer if tensor.name in set(trainable)]
        kept = [tensor for tensor in graph.initializer if tensor.name not in set(trainable)]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in moved)
        self._session = sessions.open_session(opened.SerializeToString(), threads=2)
        self._features, self._targets = features, targets

    def loss(self, values: dict[str, np.ndarray]) -> float:
        logits = self._session.run([BATCH_LOGITS], {**self._features, **values})[0].astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return float(-log_probabilities[np.arange(len(self._targets)), self._targets].mean())

    def slope_error(self, values: dict[str, np.ndarray], gradient: dict[str, np.ndarray]) -> float:
        """Central differences along the gradient, at the best of several step lengths.

        Too long a step sees the curvature (and kinks of ReLU), too short a one the rounding of
        float32; only one of them needs to be in between. In a network whose first layers have by far
        the largest gradients none may be; then along the sum of each tensor's unit gradient.
        """
        lengths = {key: float(np.sqrt((g.astype(np.float64) ** 2).sum())) for key, g in gradient.items()}
        norm = float(np.sqrt(sum(length**2 for length in lengths.values())))
        along = {key: g / norm for key, g in gradient.items()}
        errors = self._errors(values, along, norm)
        if min(errors) >= 0.01:
            units = {key: g / max(lengths[key], 1e-30) for key, g in gradient.items()}
            errors += self._errors(values, units, sum(lengths.values()))
        return min(errors)

    def _errors(self, values: dict[str, np.ndarray], direction: dict[str, np.ndarray], expected: float) -> list[float]:
        """Relative differences between the measured and the expected slope, a step length each."""
        errors = []
        for change in (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4):
            step = change / expected  # so that the loss changes by about `change`
            ahead, back = (
                self.loss({k: (v + sign * step * direction[k]).astype(np.float32) for k, v in values.items()})
                for sign in (1, -1)
            )
            errors.append(abs((ahead - back) / (2 * step) / expected - 1))
        return errors


def _run(model: onnx.ModelProto, outputs: list[str], inputs: dict[str, Any]) -> list[np.ndarray]:
    session = sessions.open_session(model.SerializeToString(), threads=2)
    return list(session.run(outputs, inputs))
