"""Int8 and float16 against the float32 network, and against arithmetic done by hand."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl import quantization, runtime
from edgetl.correction import add_biases, channel_means, correct_biases
from edgetl.equalization import equalize, groups
from edgetl.errors import ModelError
from edgetl.graphs import Nodes, make_model
from edgetl.observation import Reduction, observe
from edgetl.quantization import classifier_nodes, entrance, to_float16, to_int8
from edgetl.tables import store_in_bytes

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


INPUTS_AS_FEEDS = list(feeds())


def vnni() -> bool:
    """Whether the processor has instructions for products of bytes (on x86-64)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_vnni" in text or "avx_vnni" in text


def answers(model: onnx.ModelProto, *, optimize: bool = True) -> np.ndarray:
    return answers_to(model, INPUTS_AS_FEEDS, optimize=optimize)


def answers_to(model: onnx.ModelProto, samples: list[Feeds], *, optimize: bool = True) -> np.ndarray:
    session = runtime.open_session(model.SerializeToString(), optimize=optimize)
    return np.concatenate([session.run(None, sample)[0] for sample in samples])


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


def test_saturation_is_found_by_what_signed_and_unsigned_weights_give(monkeypatch: pytest.MonkeyPatch) -> None:
    quantized = to_int8(small_network(), feeds)
    whole = quantization._outputs
    monkeypatch.setattr(quantization, "_shift_weights", lambda model: None)
    assert not quantization._saturates(quantized, INPUTS_AS_FEEDS)
    # a machine on which signed weights, opened as other programs do, give something else
    calls = []

    def saturating(model: onnx.ModelProto, given: list[Feeds], *, saturate: bool = False) -> list[np.ndarray]:
        calls.append(saturate)
        return [value * (0.9 if len(calls) == 1 else 1) for value in whole(model, given)]

    monkeypatch.setattr(quantization, "_outputs", saturating)
    assert quantization._saturates(quantized, INPUTS_AS_FEEDS)
    assert calls == [True, True]


def test_ordinary_rounding_is_not_taken_for_saturation() -> None:
    """A deep network differs from its unoptimised self; signed and unsigned weights are the same integers."""
    if not vnni():
        pytest.skip("this processor saturates")
    quantized = to_int8(small_network(), feeds)
    unsigned = onnx.ModelProto()
    unsigned.CopyFrom(quantized)
    quantization._shift_weights(unsigned)
    for optimize in (False, True):
        np.testing.assert_allclose(
            answers(quantized, optimize=optimize), answers(unsigned, optimize=optimize), rtol=1e-6, atol=1e-6
        )
    assert TensorProto.INT8 in dtypes(quantized).values()


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
    from onnxruntime.quantization import qdq_quantizer

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(qdq_quantizer.QDQQuantizer, "quantize_model", fail)
    with pytest.raises(quantization.ModelError, match=r"quantise this network \(no such thing\): try --precision"):
        to_int8(small_network(), feeds)


def test_a_channel_of_tiny_weights_keeps_its_bias() -> None:
    """Its bias in the scale of its weights would be beyond 32 bits: 3e8 steps of 1e-11."""
    weights = RNG.standard_normal((4, 3, 1, 1)).astype(np.float32)
    weights[2] = 1e-12
    bias = np.array([0.5, -0.5, 3.0, 0.0], np.float32)
    op = Nodes("net")
    op.initializers.append(numpy_helper.from_array(weights, "weight"))
    op.initializers.append(numpy_helper.from_array(bias, "bias"))
    op.Conv("x", "weight", "bias", out="y")
    network = make_model(
        helper.make_graph(
            op.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 8, 8])],
            initializer=op.initializers,
        )
    )
    found = answers(to_int8(network, feeds))
    np.testing.assert_allclose(found[:, 2], 3.0, atol=0.03)  # a step of the output is 0.03


def deep_network() -> onnx.ModelProto:
    """An entrance of few products, then two convolutions with Relu and a sum; channels of very different size."""
    rng = np.random.default_rng(3)
    sizes = np.array([100, 1, 0.01, 5, 30, 0.3, 2, 0.05], np.float32)
    op = Nodes("net")
    for name, values in {
        "stem.weight": rng.standard_normal((8, 3, 1, 1)) * 0.5,
        "stem.bias": rng.standard_normal(8) * 0.1,
        "a.weight": rng.standard_normal((8, 8, 3, 3)) / 8 * sizes[:, None, None, None],
        "a.bias": rng.standard_normal(8) * sizes,
        "b.weight": rng.standard_normal((8, 8, 3, 3)) / 8 / sizes[:, None, None],
        "b.bias": rng.standard_normal(8) * 0.1,
        "c.weight": rng.standard_normal((8, 8, 3, 3)) / 8,
        "head.weight": rng.standard_normal((4, 8)),
    }.items():
        op.initializers.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    stem = op.Relu(op.Conv("x", "stem.weight", "stem.bias"))
    a = op.Relu(op.Conv(stem, "a.weight", "a.bias", pads=[1, 1, 1, 1]))
    b = op.Conv(a, "b.weight", "b.bias", pads=[1, 1, 1, 1])
    c = op.Relu(op.Conv(op.Add(b, stem), "c.weight", pads=[1, 1, 1, 1]))
    op.Gemm(op.Flatten(op.GlobalAveragePool(c)), "head.weight", out="y", transB=1)
    graph = helper.make_graph(
        op.nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        initializer=op.initializers,
    )
    return make_model(graph)


def test_the_entrance_stays_float() -> None:
    network = deep_network()
    # 24 products of 24 + 3·576 for each position, the head's few besides
    assert entrance(network) == [network.graph.node[0].name]
    assert dtypes(to_int8(network, feeds))["stem.weight"] == TensorProto.FLOAT
    assert entrance(small_network()) == []  # its only convolution is nearly all of it


def test_equalised_channels_compute_the_same() -> None:
    network = deep_network()
    equal = equalize(network, INPUTS_AS_FEEDS)
    assert relative(answers(equal), answers(network)) < 1e-6
    (group,) = [group for group in groups(network.graph) if len(group.writers) == 1 and len(group.readers) == 1]
    assert group.writers[0].input[1] == "a.weight"
    # and channels differ by the square root of what they differed by
    (before, after) = (
        np.concatenate([list(observe(model, wanted, INPUTS_AS_FEEDS))]).max(axis=(0, 1))
        for model in (network, equal)
        for wanted in [[Reduction(network.graph.node[3].output[0], "ReduceMax", 4)]]
    )
    size = before / before.max()
    np.testing.assert_allclose(after / after.max(), size / np.sqrt(np.maximum(size, 1 / 256)), rtol=1e-3)


def test_sums_tie_the_scales_of_their_terms() -> None:
    """The entrance, whose Relu is added to b's map, and b have one scale for each channel."""
    (group,) = [group for group in groups(deep_network().graph) if len(group.writers) == 2]
    assert {node.input[1] for node in group.writers} == {"stem.weight", "b.weight"}
    assert {node.input[1] for node in group.readers} == {"a.weight", "c.weight"}


@pytest.mark.parametrize("operator", ["Sigmoid", "Clip", "output"])
def test_what_does_not_let_a_scale_through_stays(operator: str) -> None:
    op = Nodes("net")
    for name in ("a", "b"):
        op.initializers.append(numpy_helper.from_array(RNG.standard_normal((3, 3, 1, 1)).astype(np.float32), name))
    hidden = op.Conv("x", "a")
    between = {"Sigmoid": op.Sigmoid, "Clip": lambda x: op.Clip(x, 0.0, 6.0), "output": op.Relu}[operator](hidden)
    op.Conv(between, "b", out="y")
    outputs = ["y", hidden] if operator == "output" else ["y"]
    graph = helper.make_graph(
        op.nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in outputs],
        initializer=op.initializers,
    )
    assert groups(graph) == []


def test_the_mean_of_corrected_channels_is_the_float_networks() -> None:
    """Weights that all round down shift the mean; the bias takes it up, to a step of the output at most."""
    # the largest is 127 steps; the others lie 0.49 of a step above the grid
    weights = np.full((4, 16, 1, 1), 10.49 / 127, np.float32)
    weights[:, 0] = 1
    op = Nodes("net")
    op.initializers.append(numpy_helper.from_array(weights, "weight"))
    op.Conv("x", "weight", out="y")
    graph = helper.make_graph(
        op.nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        initializer=op.initializers,
    )
    network = make_model(graph)
    add_biases(network)
    values = [np.random.default_rng(seed).random((1, 16, 8, 8), np.float32) for seed in range(8)]
    samples = [{"x": value} for value in values]
    quantized = quantization._quantized(network, quantization._extremes([network], (), samples)[0].ranges(1), ())
    expected, before = (answers_to(model, samples) for model in (network, quantized))
    correct_biases(quantized, channel_means(network, samples), samples)
    after = answers_to(quantized, samples)
    assert np.abs((before - expected).mean(axis=(0, 2, 3))).min() > 0.025  # 15 · 0.49 / 127 / 2
    assert np.abs((after - expected).mean(axis=(0, 2, 3))).max() < 0.001


def test_the_better_of_both_is_written() -> None:
    network = deep_network()
    expected = answers(network)
    equal = equalize(network, INPUTS_AS_FEEDS)
    quantized = [
        quantization._quantized(each, seen.ranges(1), ())
        for each, seen in zip((network, equal), quantization._extremes([network, equal], (), feeds()), strict=True)
    ]
    plain, other, found = (relative(answers(model), expected) for model in (*quantized, to_int8(network, feeds)))
    assert other < 0.5 * plain  # one step for the whole map, where channels differ by 10,000
    assert found < 1.1 * other


def block(outlier: float = 30) -> onnx.ModelProto:
    """A transformer's block without attention: table, product, residual sum and normalisation, gate, product.

    One channel of the normalisation is `outlier` times as large as the others, as in trained encoders.
    """
    rng = np.random.default_rng(3)
    scale = np.ones(32, np.float32)
    scale[5] = outlier
    op = Nodes("net")
    constants = {
        "table": rng.standard_normal((50, 32)) * np.exp(rng.standard_normal((50, 1))),
        **{"up": rng.standard_normal((32, 64)) / 6, "bias": rng.standard_normal(64)},
        **{"down": rng.standard_normal((64, 32)) / 8, "scale": scale, "shift": np.zeros(32)},
    }
    for name, values in constants.items():
        op.initializers.append(numpy_helper.from_array(values.astype(np.float32), name))
    words = op.LayerNormalization(op.Gather("table", "ids"), "scale", "shift", axis=-1)
    hidden = op.Relu(op.Add(op.MatMul(words, "up"), "bias"))
    op.Add(op.Softmax(op.MatMul(hidden, "down")), words, out="y")
    graph = helper.make_graph(
        op.nodes,
        "net",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 12, 32])],
        initializer=op.initializers,
    )
    model = make_model(graph)
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}"
    return model


def words() -> list[Feeds]:
    rng = np.random.default_rng(4)
    return [{"ids": rng.integers(0, 50, (1, 12))} for _ in range(40)]


def test_a_transformer_keeps_its_sums_in_float32() -> None:
    network = block(outlier=1)
    quantized = to_int8(network, lambda: iter(words()))
    onnx.checker.check_model(quantized)
    assert {node.op_type for node in quantization.quantized_nodes(network, ())} == {"MatMul"}
    assert dtypes(quantized)["up_quantized"] == dtypes(quantized)["down_quantized"] == TensorProto.INT8
    bytes_read = [node.input[0] for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert len(bytes_read) == 2  # what the two products read, and nothing else
    assert relative(answers_to(quantized, words()), answers_to(network, words())) < 0.02


def test_a_residual_sum_between_convolutions_is_in_bytes() -> None:
    nodes = quantization.quantized_nodes(deep_network(), ())
    assert {node.op_type for node in nodes} >= {"Conv", "Add"}


def test_a_large_channel_before_a_product_is_divided() -> None:
    network = block()
    equal = equalize(network, words())
    assert [node.op_type for node in equal.graph.node].count("Mul") == 2
    np.testing.assert_allclose(answers_to(equal, words()), answers_to(network, words()), rtol=1e-4, atol=1e-5)
    plain, other = (
        quantization._quantized(each, seen.ranges(1), ())
        for each, seen in zip((network, equal), quantization._extremes([network, equal], (), words()), strict=True)
    )
    values = observed_products(network)
    errors = [relative(observed_products(each), values) for each in (plain, other)]
    assert errors[1] < 0.6 * errors[0]
    assert [node.op_type for node in equalize(network, words(), keep=["node_2", "node_6"]).graph.node].count("Mul") < 2


def observed_products(model: onnx.ModelProto) -> np.ndarray:
    """What the product `up` gives, of all samples."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (name,) = (node.output[0] for node in copy.graph.node if node.op_type == "MatMul" and "up" in node.input[1])
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return answers_to(copy, words())


def test_rows_of_a_table_are_bytes_with_a_scale_each() -> None:
    network = block()
    table = numpy_helper.to_array(next(item for item in network.graph.initializer if item.name == "table"))
    store_in_bytes(network)
    onnx.checker.check_model(network)
    assert "table" not in dtypes(network)
    del network.graph.node[4:]  # two lookups, a cast and a multiplication
    network.graph.output[0].name = network.graph.node[3].output[0]
    found = answers_to(network, [{"ids": np.arange(36).reshape(3, 12)[i : i + 1]} for i in range(3)])
    step = np.abs(table[:36]).max(axis=1, keepdims=True) / 127
    assert (np.abs(found.reshape(36, 32) - table[:36]) <= 0.501 * step).all()


def test_a_table_that_something_else_reads_stays() -> None:
    network = block()
    network.graph.node.append(helper.make_node("Transpose", ["table"], ["tied"], name="tied"))
    store_in_bytes(network)
    assert dtypes(network)["table"] == TensorProto.FLOAT


def test_a_network_without_products_is_a_sentence() -> None:
    network = block()
    with pytest.raises(ModelError, match="nothing to quantise"):
        to_int8(network, lambda: iter(words()), keep=[node.name for node in network.graph.node])


def test_a_bound_after_a_leaky_relu_is_part_of_the_range() -> None:
    """Max of a tensor and a number lets bytes through, as Clip does."""
    op = Nodes("net")
    for name in ("first", "second"):
        weights = np.random.default_rng(len(name)).standard_normal((8, 8, 3, 3)).astype(np.float32)
        op.initializers.append(numpy_helper.from_array(weights / 8, name))
    hidden = op.Max(
        op.LeakyRelu(op.Conv("x", "first", pads=[1] * 4), alpha=0.2), np.full((1, 1, 1, 1), -0.4, np.float32)
    )
    op.Conv(op.Min(op.MaxPool(hidden, kernel_shape=[2, 2]), 1.5), "second", out="y")
    graph = helper.make_graph(
        op.nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializer=op.initializers,
    )
    network = make_model(graph)
    for node in network.graph.node:
        node.name = node.output[0]
    samples = [
        {"x": np.random.default_rng(seed).standard_normal((1, 8, 8, 8)).astype(np.float32)} for seed in range(40)
    ]
    quantized = to_int8(network, lambda: iter(samples))
    assert not {"Max", "Min", "Clip"} & {node.op_type for node in quantized.graph.node}
    assert relative(answers_to(quantized, samples), answers_to(network, samples)) < 0.03


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (INPUTS_AS_FEEDS, ""),
        (INPUTS_AS_FEEDS[:3], "only 3 samples calibrate the quantisation"),
        (INPUTS_AS_FEEDS[:1], "only 1 sample calibrates the quantisation"),
        ([{"x": np.zeros((1, 3, 8, 8), np.float32)}] * 40, "are all alike"),
    ],
)
def test_what_makes_ranges_doubtful_is_said(samples: list[Feeds], said: str) -> None:
    notes: list[str] = []
    to_int8(small_network(), lambda: iter(samples), on_event=lambda event: notes.append(event.text))  # type: ignore
    assert "in int8 the network's outputs differ by" in notes[-1]
    assert len(notes) == 1 + bool(said)
    assert said in notes[0]


def test_a_large_error_is_said() -> None:
    said: list[str] = []
    quantization._tell(0.5, INPUTS_AS_FEEDS, 40, lambda event: said.append(event.text))  # type: ignore
    assert said == [
        "in int8 the network's outputs differ by 50.0% of their norm from float32's; that is much: "
        "compare accuracies before you use it"
    ]


def test_samples_of_two_times_join() -> None:
    network = small_network()
    (whole,) = quantization._extremes([network], (), feeds())
    first, rest = (
        quantization._extremes([network], (), part)[0] for part in (INPUTS_AS_FEEDS[:9], INPUTS_AS_FEEDS[9:])
    )
    assert first.joined(rest).ranges(0.75) == whole.ranges(0.75)
    (none,) = quantization._extremes([network], (), [])
    assert whole.joined(none).ranges(1) == whole.ranges(1)


def test_ranges_hold_a_share_of_the_samples() -> None:
    network = small_network()
    (extremes,) = quantization._extremes([network], (), feeds())
    values = np.stack(INPUTS)
    assert extremes.ranges(1)["x"] == (values.min(), values.max())
    low, high = extremes.ranges(0.75)["x"]
    assert np.mean([value.max() <= high for value in INPUTS]) == 0.75
    assert np.mean([value.min() >= low for value in INPUTS]) == 0.75
    assert extremes.ranges(0.75)["x"] != extremes.ranges(1)["x"]


def test_one_sample_that_differs_from_all_others_does_not_set_the_steps() -> None:
    """One picture of 40 is 200 times as large: the other 39 decide."""
    network = small_network()
    outlier = [*INPUTS[:35], 200 * INPUTS[35], *INPUTS[36:]]
    samples: list[Feeds] = [{"x": value} for value in outlier]
    wide = quantization._quantized(network, quantization._extremes([network], (), samples)[0].ranges(1), ())
    assert relative(answers(wide), answers(network)) > 0.5
    assert relative(answers(to_int8(network, lambda: iter(samples))), answers(network)) < 0.1
