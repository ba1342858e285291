"""Losses and their gradients, on both engines' graphs, against torch's in double precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts import BATCH_LOGITS, ORT_TRAINING_MODEL, TensorSpec
from edgetl.errors import ModelError
from edgetl.gradients import ort_artifacts
from edgetl.gradients.losses import with_loss
from edgetl.gradients.lower.lower import lower_gradients
from edgetl.graph.build import make_model
from edgetl.losses.registry import LOSSES, losses_of
from edgetl.optimizers.registry import Optimizer
from edgetl.runtime import sessions
from edgetl.tasks.names import TASKS
from edgetl.tasks.targets import TargetEncoder, balanced_weights

K, WIDTH, N = 4, 6, 7
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, WIDTH)).astype(np.float32)
CLASSES = np.array([0, 1, 2, 3, 0, 0, 1])
NUMBERS = RNG.standard_normal((N, K)).astype(np.float32)
MANY = RNG.integers(0, 2, (N, K)).astype(np.float32)


def head(weight: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], [BATCH_LOGITS], transB=1)],
        "trainable",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info(BATCH_LOGITS, TensorProto.FLOAT, ["batch", len(weight)])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.zeros(len(weight), np.float32), "b")],
    )
    return make_model(graph)


def found(loss: str, weight: np.ndarray, encode: TargetEncoder, labels: np.ndarray, directory: Path):
    """Return loss and gradients of w and b as the lowered training graph computes them."""
    ort_artifacts.generate(head(weight), ["w", "b"], loss, Optimizer(), directory)
    trainable = (TensorSpec("w", weight.shape), TensorSpec("b", (len(weight),)))
    lowered = lower_gradients(onnx.load(directory / ORT_TRAINING_MODEL), trainable)
    session = sessions.open_session(lowered.SerializeToString())
    targets, weights = encode(labels)
    feeds = {"x": X, "targets": targets, "sample_weights": weights, "w": weight, "b": np.zeros(len(weight), np.float32)}
    return session.run(["loss", "w/gradient", "b/gradient"], feeds)


def expected(weight: np.ndarray, loss):
    w = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(len(weight), dtype=torch.float64, requires_grad=True)
    value = loss(F.linear(torch.tensor(X, dtype=torch.float64), w, b))
    value.backward()
    return value.detach().numpy(), w.grad.numpy(), b.grad.numpy()


def focal(z: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Equation 4 of Lin et al. (2017) with γ = 2, for targets of several classes."""
    p = z.softmax(1)
    return -(targets * (1 - p) ** 2 * z.log_softmax(1)).sum(1).mean()


CASES = {
    "cross_entropy": (
        "cross_entropy",
        TargetEncoder("classification", K),
        CLASSES,
        lambda z: F.cross_entropy(z, torch.tensor(CLASSES)),
    ),
    "label smoothing": (
        "cross_entropy",
        TargetEncoder("classification", K, label_smoothing=0.2),
        CLASSES,
        lambda z: F.cross_entropy(z, torch.tensor(CLASSES), label_smoothing=0.2),
    ),
    "class weights": (
        "cross_entropy",
        TargetEncoder("classification", K, class_weights=(1.0, 2.0, 0.5, 3.0)),
        CLASSES,
        lambda z: F.cross_entropy(z, torch.tensor(CLASSES), torch.tensor([1, 2, 0.5, 3], dtype=torch.float64)),
    ),
    "smoothing and weights": (
        "cross_entropy",
        TargetEncoder("classification", K, 0.1, (1.0, 2.0, 0.5, 3.0)),
        CLASSES,
        lambda z: F.cross_entropy(
            z, torch.tensor(CLASSES), torch.tensor([1, 2, 0.5, 3], dtype=torch.float64), label_smoothing=0.1
        ),
    ),
    "binary_cross_entropy": (
        "binary_cross_entropy",
        TargetEncoder("multilabel", K),
        MANY,
        lambda z: F.binary_cross_entropy_with_logits(z, torch.tensor(MANY, dtype=torch.float64)),
    ),
    "mean_squared_error": (
        "mean_squared_error",
        TargetEncoder("regression", K),
        NUMBERS,
        lambda z: F.mse_loss(z, torch.tensor(NUMBERS, dtype=torch.float64)),
    ),
    "focal": (
        "focal",
        TargetEncoder("classification", K),
        CLASSES,
        lambda z: focal(z, torch.eye(K, dtype=torch.float64)[CLASSES]),
    ),
    "focal, smoothed": (
        "focal",
        TargetEncoder("classification", K, label_smoothing=0.2),
        CLASSES,
        lambda z: focal(z, 0.8 * torch.eye(K, dtype=torch.float64)[CLASSES] + 0.2 / K),
    ),
    "huber": (
        "huber",
        TargetEncoder("regression", K),
        NUMBERS,
        lambda z: F.huber_loss(z, torch.tensor(NUMBERS, dtype=torch.float64)),
    ),
    "l1": (
        "l1",
        TargetEncoder("regression", K),
        NUMBERS,
        lambda z: F.l1_loss(z, torch.tensor(NUMBERS, dtype=torch.float64)),
    ),
}


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("case", CASES)
def test_losses_are_torchs(case: str, scale: float, tmp_path: Path) -> None:
    """At zero logits, where a new head begins; at usual ones; at ones whose exponentials overflow or vanish."""
    loss, encode, labels, reference = CASES[case]
    weight = (scale * np.random.default_rng(1).standard_normal((K, WIDTH))).astype(np.float32)
    for ours, torchs in zip(found(loss, weight, encode, labels, tmp_path), expected(weight, reference), strict=True):
        np.testing.assert_allclose(ours, torchs, rtol=1e-5, atol=1e-6)


def test_every_loss_has_a_case() -> None:
    assert {case[0] for case in CASES.values()} == set(LOSSES)
    assert all(case[1].task == LOSSES[case[0]].task for case in CASES.values())


def test_the_default_of_a_task_comes_first() -> None:
    assert [losses_of(task)[0] for task in TASKS] == ["cross_entropy", "binary_cross_entropy", "mean_squared_error"]


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    found = balanced_weights(CLASSES, K)
    np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.arange(K), y=CLASSES))


@pytest.mark.parametrize("name", ["targets", "sample_weights", "loss"])
def test_a_name_that_the_training_graph_needs_is_refused(name: str) -> None:
    model = head(np.zeros((K, WIDTH), np.float32))
    model.graph.initializer[0].name = model.graph.node[0].input[1] = name
    with pytest.raises(ModelError, match=name):
        with_loss(model, "cross_entropy")


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ModelError, match="hinge"):
        with_loss(head(np.zeros((K, WIDTH), np.float32)), "hinge")
