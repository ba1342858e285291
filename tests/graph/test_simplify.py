"""Frozen batch normalisation: the expressions that replace it, and where a convolution takes them in."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgetl.graph.build import make_model
from edgetl.graph.simplify import freeze_batch_normalization
from edgetl.runtime import sessions

RNG = np.random.default_rng(0)


def network(*, group: int = 1, bias: bool = False, also: bool = False, rank: int = 4) -> onnx.GraphProto:
    """Return Conv, BatchNormalization, Relu; with `also`, the convolution's output is an output too."""
    spatial = rank - 2
    tensors = {
        "w": RNG.standard_normal((6, 4 // group, *[3] * spatial)),
        "own": RNG.standard_normal(6),
        "scale": RNG.uniform(0.5, 2, 6),
        "bias": RNG.standard_normal(6),
        "mean": RNG.standard_normal(6),
        "variance": RNG.uniform(0.5, 2, 6),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", *(["own"] if bias else [])], ["c"], group=group, strides=[2] * spatial),
        helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "variance"], ["n"], epsilon=1e-3),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    return helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", 1, ["batch", 4, *[9] * spatial])],
        [onnx.ValueInfoProto(name=name) for name in (["y", "c"] if also else ["y"])],
        initializer=[numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()],
    )


def run(graph: onnx.GraphProto, x: np.ndarray) -> Sequence[np.ndarray]:
    found: Sequence[np.ndarray] = sessions.open_session(make_model(graph).SerializeToString()).run(None, {"x": x})
    return found


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize(("group", "bias"), [(1, False), (1, True), (2, False), (2, True)])
def test_a_convolution_takes_it_in(group: int, bias: bool, rank: int) -> None:
    graph = network(group=group, bias=bias, rank=rank)
    x = RNG.standard_normal((2, 4, *[9] * (rank - 2))).astype(np.float32)
    expected = run(graph, x)
    freeze_batch_normalization(graph, {}, {"w", "scale", "bias", "own"})
    assert [node.op_type for node in graph.node if "y" in node.output or "n" in node.output] == ["Conv", "Relu"]
    assert not {"BatchNormalization"} & {node.op_type for node in graph.node}
    np.testing.assert_allclose(run(graph, x)[0], expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("trainable", "folds"),
    [(("w",), True), (("w", "scale"), True), (("bias",), True), ((), True), (("scale",), False)],
)
def test_not_where_only_the_scale_trains(trainable: Collection[str], folds: bool) -> None:
    graph = network()
    x = RNG.standard_normal((2, 4, 9, 9)).astype(np.float32)
    expected = run(graph, x)
    freeze_batch_normalization(graph, {"c": 4}, trainable)
    (conv,) = (node for node in graph.node if node.op_type == "Conv")
    assert (list(conv.output) == ["n"]) == folds
    np.testing.assert_allclose(run(graph, x)[0], expected[0], rtol=1e-5, atol=1e-5)


def test_not_where_the_convolution_is_read_elsewhere() -> None:
    graph = network(also=True)
    x = RNG.standard_normal((2, 4, 9, 9)).astype(np.float32)
    expected = run(graph, x)
    freeze_batch_normalization(graph, {"c": 4}, {"w", "scale"})
    for found, value in zip(run(graph, x), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)
