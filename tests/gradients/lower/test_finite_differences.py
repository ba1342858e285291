"""Each rule against mathematics: central differences of the forward operator, or its closed form, in float64.

`test_lower_rules` shows that the rules compute what onnxruntime-training's kernels do; this shows that
both are right. The cases are the same. What the forward operators are is written down here, with numpy
and torch, and shares nothing with the rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import float64
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import parser
from test_lower_rules import CASES, Array, Case, PoolCase, f

from edgetl.gradients.lower import standard
from edgetl.gradients.lower.lower import RULES, lower_operators
from edgetl.runtime import sessions

STEP = 1e-5
DIRECTIONS = 4
EXACT = 1e-6
"""In float64. The inputs that hold results of the forward operator (Y, mean, log_prob) are float32: 6e-8 each."""
ROUNDED = 1e-5
"""In float32, in onnxruntime: what `test_lower_rules` allows."""

Values = Mapping[str, Array]
Forward = Callable[..., Array]
Gradient = Callable[[Case, Values], tuple[Sequence[Array], Forward]]
"""A case and its arrays by name, in float64 → the forward operator, and where the node differentiates it:
an array for each of the node's outputs, which is the loss's gradient for that array if `dy` is that for Y."""


def in_torch(function: Callable[..., torch.Tensor]) -> Forward:
    return lambda *arrays: function(*(torch.tensor(array) for array in arrays)).numpy()


def elementwise(function: Callable[..., torch.Tensor]) -> Gradient:
    return lambda case, v: ([v["x"]], in_torch(function))


def biased(function: Callable[..., torch.Tensor]) -> Gradient:
    return lambda case, v: ([v["x"]], in_torch(lambda x: function(x + torch.tensor(v["b"]))))


def tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


def quick_gelu(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    alpha = case.attributes.get("alpha", 1.702)
    return [v["x"]], lambda x: x / (1 + np.exp(-alpha * x))


def relu(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [np.where(v["y"] > 0, v["y"], -1)], lambda x: np.maximum(x, 0)


def leaky_relu(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    alpha, y = case.attributes["alpha"], v["x"]
    return [np.where(y > 0, y, y / alpha)], lambda x: np.where(x > 0, x, alpha * x)


def sigmoid(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [np.log(v["y"] / (1 - v["y"]))], lambda x: 1 / (1 + np.exp(-x))


def tanh(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [np.arctanh(v["y"])], np.tanh


def softmax(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [np.log(v["y"])], in_torch(lambda x: x.softmax(case.attributes["axis"]))


def log_softmax(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [v["y"]], in_torch(lambda x: x.log_softmax(case.attributes["axis"]))


def dropout(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [np.ones_like(v["dy"])], lambda x: x * v["mask"] / (1 - v["r"])


def cross_entropy(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    label = torch.tensor(v["label"])
    weight = torch.tensor(v["w"]) if "w" in v else None
    return [v["log_prob"]], in_torch(lambda z: F.cross_entropy(z, label, weight, **case.attributes))


def layer_norm(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    shape = v["x"].shape[case.attributes["axis"] :]
    return [v["x"], v["s"], np.zeros(shape)], in_torch(lambda x, s, b: F.layer_norm(x, shape, s, b, 1e-5))


def rms_norm(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    shape = v["x"].shape[case.attributes["axis"] :]
    return [v["x"], v["s"]], in_torch(lambda x, s: F.rms_norm(x, shape, s, 1e-5))


def batch_norm(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    function = in_torch(lambda x, s, b: F.batch_norm(x, None, None, s, b, training=True, eps=1e-5))
    return [v["x"], v["s"], np.zeros_like(v["s"])], function


def conv(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    settings = case.attributes
    dims = len(settings["kernel_shape"])
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
    # F.pad takes the last axis first
    pads = [settings["pads"][i + side] for i in reversed(range(dims)) for side in (0, dims)]

    def forward(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return function(F.pad(x, pads), w, b, settings["strides"], 0, settings["dilations"], settings["group"])

    return [v["x"], v["w"], np.zeros(len(v["w"]))], in_torch(forward)


def max_pool(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    assert isinstance(case, PoolCase)
    return [v["x"]], in_torch(case.pooled)


def gather(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [np.zeros(v["shape"])], lambda x: np.take(x, v["i"], case.attributes["axis"])


def gather_elements(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [np.zeros(v["shape"])], lambda x: np.take_along_axis(x, v["i"], case.attributes["axis"])


def gather_nd(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [np.zeros(v["shape"])], lambda x: x[tuple(v["i"].T)]


def slice_(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    cut = [slice(None)] * len(v["shape"])
    for start, end, axis, step in zip(v["s"], v["e"], v["a"], v["t"], strict=True):
        cut[axis] = slice(start, end, step)
    return [np.zeros(v["shape"])], lambda x: x[tuple(cut)]


def div(case: Case, v: Values) -> tuple[Sequence[Array], Forward]:
    return [v["a"], v["b"]], np.divide


GRADIENTS: dict[str, Gradient] = {
    "BatchNormalizationGrad": batch_norm,
    "BiasFastGeluGrad_dX": biased(tanh_gelu),
    "BiasGeluGrad_dX": biased(F.gelu),
    "ConvGrad": conv,
    "DivGrad": div,
    "DropoutGrad": dropout,
    "FastGeluGrad": elementwise(tanh_gelu),
    "GatherElementsGrad": gather_elements,
    "GatherGrad": gather,
    "GatherNDGrad": gather_nd,
    "GeluGrad": elementwise(F.gelu),
    "LayerNormalizationGrad": layer_norm,
    "LeakyReluGrad": leaky_relu,
    "LogSoftmaxGrad_13": log_softmax,
    "MaxPoolGrad": max_pool,
    "QuickGeluGrad": quick_gelu,
    "ReluGrad": relu,
    "SigmoidGrad": sigmoid,
    "SimplifiedLayerNormalizationGrad": rms_norm,
    "SliceGrad": slice_,
    "SoftmaxCrossEntropyLossGrad": cross_entropy,
    "SoftmaxGrad_13": softmax,
    "TanhGrad": tanh,
}


def gelu_closed(case: Case, v: Values) -> list[Array]:
    return [in_torch(F.gelu)(v["x"] + v.get("b", 0))]


def fast_gelu_closed(case: Case, v: Values) -> list[Array]:
    return [in_torch(tanh_gelu)(v["x"] + v.get("b", 0))]


def quick_gelu_closed(case: Case, v: Values) -> list[Array]:
    return [quick_gelu(case, v)[1](v["x"])]


def rms_norm_closed(case: Case, v: Values) -> list[Array]:
    axes = tuple(range(case.attributes["axis"] % 3, 3))
    return [rms_norm(case, v)[1](v["x"], v["s"]), 1 / np.sqrt((v["x"] ** 2).mean(axes, keepdims=True) + 1e-5)]


def batch_norm_closed(case: Case, v: Values) -> list[Array]:
    axes = (0, *range(2, v["x"].ndim))
    mean, variance, kept = v["x"].mean(axes), v["x"].var(axes), case.attributes["momentum"]
    y = in_torch(lambda *args: F.batch_norm(args[0], None, None, *args[1:], training=True))(v["x"], v["s"], v["b"])
    running = [kept * old + (1 - kept) * new for old, new in ((v["m"], mean), (v["v"], variance))]
    return [y, *running, mean, 1 / np.sqrt(variance + 1e-5)]


def scale_closed(case: Case, v: Values) -> list[Array]:
    return [v["x"] / v["c"] if case.attributes["scale_down"] else v["x"] * v["c"]]


def broadcast_closed(case: Case, v: Values) -> list[Array]:
    shapes = [list(v[name]) for name in "st"]
    rank = max(map(len, shapes))
    padded = [[1] * (rank - len(shape)) + shape for shape in shapes]
    whole = np.maximum(*padded)
    added = [[i for i in range(rank) if shape[i] == 1 and whole[i] > 1] for shape in padded]
    return [np.array(axes, np.int64) for axes in added]


def mat_mul_closed(case: Case, v: Values) -> list[Array]:
    letters = [
        "nji" if case.attributes["transA"] else "nij",
        "nkj" if case.attributes["transB"] else "njk",
    ]
    return [case.attributes["alpha"] * np.einsum(f"{','.join(letters)}->nik", v["a"], v["b"])]


CLOSED_FORMS: dict[str, Callable[[Case, Values], list[Array]]] = {
    "BatchNormInternal": batch_norm_closed,
    "BiasGelu": gelu_closed,
    "BroadcastGradientArgs": broadcast_closed,
    "ConcatTraining": lambda case, v: [np.concatenate([v["a"], v["b"]], -1), np.array([2, 4])],
    "FastGelu": fast_gelu_closed,
    "FusedMatMul": mat_mul_closed,
    "Gelu": gelu_closed,
    "QuickGelu": quick_gelu_closed,
    "ReduceSumTraining": lambda case, v: [v["x"].sum(tuple(v["axes"]), keepdims=bool(case.attributes["keepdims"]))],
    "Scale": scale_closed,
    "SimplifiedLayerNormalization": rms_norm_closed,
    "SplitTraining": lambda case, v: np.split(v["x"], [2], 1),
    "Trilu": lambda case, v: [np.tril(v["x"])],
}


def cases(table: Mapping[str, Any]) -> list[Any]:
    return [pytest.param(case, id=case.id) for case in CASES if case.op in table]


def test_every_rule_has_a_case() -> None:
    assert set(GRADIENTS) | set(CLOSED_FORMS) == set(RULES)
    assert {case.op for case in CASES} == set(RULES)
    # nothing that ends a gradient's path hides among the closed forms
    assert {op for op in CLOSED_FORMS if "Grad" in op} == {"BroadcastGradientArgs"}


@pytest.mark.parametrize("case", cases(GRADIENTS))
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    values = arrays(case)
    point, forward = GRADIENTS[case.op](case, values)
    exact, rounded = both(case)
    assert len(exact) == sum(map(bool, case.outputs))
    found = dict(zip(filter(None, case.outputs), zip(exact, rounded, strict=True), strict=True))
    rng = np.random.default_rng(0)
    for position, name in enumerate(case.outputs):
        if not name:
            continue
        gradient, in_runtime = found[name]
        assert gradient.dtype == np.float64
        assert gradient.shape == in_runtime.shape == point[position].shape
        norm = float(np.linalg.norm(gradient))
        assert norm > 0
        for _ in range(DIRECTIONS):
            direction = rng.standard_normal(point[position].shape)

            def loss(step: float, position: int = position, direction: Array = direction) -> float:
                moved = [x + step * direction if i == position else x for i, x in enumerate(point)]
                return float((values["dy"] * forward(*moved)).sum())

            slope = (loss(STEP) - loss(-STEP)) / (2 * STEP)
            assert abs(slope - (gradient * direction).sum()) <= EXACT * norm
            assert abs(slope - (in_runtime * direction).sum()) <= ROUNDED * norm


@pytest.mark.parametrize("case", cases(CLOSED_FORMS))
def test_other_rules_are_their_closed_forms(case: Case) -> None:
    expected = CLOSED_FORMS[case.op](case, arrays(case))
    for exact, rounded, wanted in itertools.zip_longest(*both(case), expected):
        assert exact.shape == rounded.shape == wanted.shape
        largest = max(1.0, float(np.abs(wanted).max(initial=0)))
        assert np.abs(exact - wanted).max(initial=0) <= EXACT * largest
        assert np.abs(rounded - wanted).max(initial=0) <= ROUNDED * largest


STANDARD: dict[str, tuple[str, Mapping[str, Array]]] = {
    "And": (
        """float[n, 4] x) => (float[n, 4] out) <float low = {0}, float high = {1}>
        { y = Clip(x, low, high) a = GreaterOrEqual(x, low) b = LessOrEqual(x, high) m = And(a, b)
          c = Cast<to=1>(m) out = Add(y, c) }""",
        {"x": 2 * f(3, 4)},
    ),
    "Clip": (
        """float[n, 4] x) => (float[n, 4] out)
        <float low = {0}, float high = {1}, float slope = {0.25}, float shift = {0.5}>
        { s = Mul(x, slope) t = Add(s, shift) out = Clip(t, low, high) }""",
        {"x": 3 * f(3, 4)},
    ),
    "Conv": (
        """float[n, 6, 9, 8] x, float[6, 1, 5, 3] w, float[6] b) => (float[n, 6, 8, 8] out)
        { out = Conv<group=6, pads=[2, 1, 1, 1]>(x, w, b) }""",
        {"x": f(3, 6, 9, 8), "w": f(6, 1, 5, 3), "b": f(6)},
    ),
    "Reshape": (
        """float[n, 4, 6] x) => (float[m, 3, 4] out) <int64[2] rest = {3, 4}, int64[1] two = {2}>
        { s = Shape<start=0, end=1>(x) d = Mul(s, two) t = Concat<axis=0>(d, rest) out = Reshape(x, t) }""",
        {"x": f(3, 4, 6)},
    ),
}
"""Graphs in which the rule of a standard operator finds something to change."""


def test_every_standard_rule_has_a_graph() -> None:
    assert set(STANDARD) == set(standard.RULES)


@pytest.mark.parametrize("name", STANDARD)
def test_standard_operators_compute_what_they_did(name: str) -> None:
    text, inputs = STANDARD[name]
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g ({text}')
    lowered = lower_operators(model)
    before, after = (
        [str(node) for node in graph.node if node.op_type == name] for graph in (model.graph, lowered.graph)
    )
    assert before != after
    (expected,), (found,) = float64.run(model, inputs), float64.run(lowered, inputs)
    np.testing.assert_allclose(found, expected, rtol=EXACT, atol=EXACT)


def arrays(case: Case) -> dict[str, Array]:
    """The case's arrays by name, in float64."""
    return {name: float64.widened(np.asarray(array)) for name, array in {**case.constants, **case.inputs}.items()}


def both(case: Case) -> tuple[list[Array], list[Array]]:
    """What the lowered node computes in float64, and in onnxruntime."""
    lowered = lower_operators(case.model())
    rounded = sessions.open_session(lowered.SerializeToString()).run(None, dict(case.inputs))
    return float64.run(lowered, case.inputs), rounded
