"""Int8 and float16 against the float32 network, and against arithmetic done by hand."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl import quantization, runtime
from edgetl.graphs import Nodes, make_model
from edgetl.quantization import classifier_nodes, to_float16, to_int8

RNG = np.random.default_rng(0)
Feeds = Mapping[str, np.ndarray]


def small_network() -> onnx.ModelProto:
    """Convolution, Relu, mean, linear classifier; weights on a grid of eight bits, with a row that is zero."""
    weights = RNG.integers(-127, 128, (8, 3, 3, 3)).astype(np.float32) / 127
    weights[:, 0, 0, 0] = 1  # so that the grid is that of the symmetric quantisation
    weights[3] = 0
    op = Nodes("net")
    op.initializers.append(numpy_helper.from_array(weights, "conv.weight"))
    op.initializers.append(numpy_helper.from_array(RNG.standard_normal((4, 8)).astype(np.float32), "head.weight"))
    op.initializers.append(numpy_helper.from_array(RNG.standard_normal(4).astype(np.float32), "head.bias"))
    hidden = op.Relu(op.Conv("x", "conv.weight", pads=[1, 1, 1, 1]))
    op.Gemm(op.Flatten(op.GlobalAveragePool(hidden)), "head.weight", "head.bias", out="y", transB=1)
    graph = helper.make_graph(
        op.nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        initializer=op.initializers,
    )
    return make_model(graph)


INPUTS = [RNG.standard_normal((1, 3, 8, 8)).astype(np.float32) for _ in range(40)]


def feeds() -> Iterator[Feeds]:
    return ({"x": value} for value in INPUTS)


def answers(model: onnx.ModelProto, *, optimize: bool = True) -> np.ndarray:
    session = runtime.open_session(model.SerializeToString(), optimize=optimize)
    return np.concatenate([session.run(None, {"x": value})[0] for value in INPUTS])


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def dtypes(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_int8_is_near_and_smaller() -> None:
    network = small_network()
    quantized = to_int8(network, feeds)
    onnx.checker.check_model(quantized)
    assert {item.domain for item in quantized.opset_import} == {""}
    assert 1e-4 < relative(answers(quantized), answers(network)) < 0.03
    assert quantized.graph.input[0].name == "x"


def test_what_is_kept_stays_float() -> None:
    network = small_network()
    kept = classifier_nodes(network.graph, ["head.weight", "head.bias"])
    assert kept == ("y",)
    assert dtypes(to_int8(network, feeds, keep=kept))["head.weight"] == TensorProto.FLOAT
    assert "head.weight" not in dtypes(to_int8(network, feeds))
    assert classifier_nodes(network.graph, ["nothing"]) == ()


@pytest.mark.parametrize("saturates", [True, False])
def test_weights_are_unsigned_only_where_kernels_saturate(monkeypatch: pytest.MonkeyPatch, saturates: bool) -> None:
    monkeypatch.setattr(quantization, "_saturates", lambda *_: saturates)
    network = small_network()
    quantized = to_int8(network, feeds)
    kinds = set(dtypes(quantized).values())
    assert (TensorProto.INT8 in kinds) != saturates
    # the same values either way: as it stands, without optimised kernels, the graph computes the same
    monkeypatch.setattr(quantization, "_saturates", lambda *_: not saturates)
    other = to_int8(network, feeds)
    np.testing.assert_allclose(answers(quantized, optimize=False), answers(other, optimize=False), rtol=1e-6, atol=1e-6)


def test_the_optimised_file_computes_what_it_says() -> None:
    quantized = to_int8(small_network(), feeds)
    assert relative(answers(quantized), answers(quantized, optimize=False)) < 0.05


def test_large_products_saturate_or_do_not_but_are_right_in_the_end() -> None:
    """255·127 + 255·127 does not fit into 16 bits: where kernels add pairs so, weights become unsigned."""
    op = Nodes("net")
    op.initializers.append(numpy_helper.from_array(np.ones((4, 64, 1, 1), np.float32), "weight"))
    op.Conv("x", "weight", out="y")
    graph = helper.make_graph(
        op.nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4])],
        initializer=op.initializers,
    )
    values = [np.full((1, 64, 4, 4), level, np.float32) for level in (0.0, 0.5, 1.0)]
    quantized = to_int8(make_model(graph), lambda: ({"x": value} for value in reversed(values)))
    session = runtime.open_session(quantized.SerializeToString())
    for value in values:
        np.testing.assert_allclose(session.run(None, {"x": value})[0], 64 * value[:, :4], rtol=0.02, atol=0.2)


def test_float16_is_near_and_half_as_large() -> None:
    network = small_network()
    converted = to_float16(network)
    onnx.checker.check_model(converted)
    assert (
        converted.graph.input[0].type.tensor_type.elem_type,
        converted.graph.output[0].type.tensor_type.elem_type,
    ) == (
        TensorProto.FLOAT,
        TensorProto.FLOAT,
    )
    assert dtypes(converted)["conv.weight"] == TensorProto.FLOAT16
    assert 1e-6 < relative(answers(converted), answers(network)) < 5e-3


def test_a_network_that_the_quantiser_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime.quantization

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", fail)
    with pytest.raises(quantization.ModelError, match=r"quantise this network \(no such thing\): try --precision"):
        to_int8(small_network(), feeds)
