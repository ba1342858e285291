"""MODEL.onnx as other tools write it: channels last, other opsets, fixed batches, weights in a second file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tensorflow_style import CLASSES, STYLES, Writer, depthwise, folded

from edgetl import prepare
from edgetl.artifacts import load_artifacts
from edgetl.errors import ModelError
from edgetl.preparation import heads
from edgetl.preparation.sources.resolve import load_source
from edgetl.runtime import sessions

SIZE = 12


def write(style: Callable[..., onnx.ModelProto], file: Path, opset: int = 13, batch: int | str = "unk__1") -> Any:
    """Write the file and return its scores for three pictures with channels first."""
    model = style(Writer(opset), [batch, SIZE, SIZE, 3])
    onnx.save(model, file)
    pictures = np.random.default_rng(1).random((3, 3, SIZE, SIZE)).astype(np.float32)
    last = pictures.transpose(0, 2, 3, 1)
    if isinstance(batch, str):
        return pictures, sessions.open_session(file).run(None, {"input_1:0": last})[0]
    single = [np.repeat(picture[None], batch, 0) for picture in last]
    return pictures, np.concatenate([sessions.open_session(file).run(None, {"input_1:0": x})[0][:1] for x in single])


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20, 21])
@pytest.mark.parametrize("style", STYLES)
def test_tensorflow_style(style: Callable[..., onnx.ModelProto], opset: int, tmp_path: Path) -> None:
    """What the backbone makes and the original head computes from it is what the file computes."""
    pictures, expected = write(style, tmp_path / "net.onnx", opset)
    prepare(str(tmp_path / "net.onnx"), out=tmp_path / "art", classes=2)
    artifacts = load_artifacts(tmp_path / "art")
    assert artifacts.manifest.inputs[0].shape == (3, SIZE, SIZE)
    session = sessions.open_session(artifacts.file("backbone.onnx"))
    (features,) = session.run(None, {session.get_inputs()[0].name: pictures})
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "net.onnx").graph.initializer}
    if style is folded:
        scores = features @ weights["dense/kernel"] + weights["dense/bias"]
    else:
        scores = features.reshape(3, -1) @ weights["scores/kernel"].reshape(CLASSES, -1).T + weights["scores/bias"]
    if style is not depthwise:
        scores = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("style", STYLES)
def test_a_fixed_batch_becomes_any(style: Callable[..., onnx.ModelProto], batch: int, tmp_path: Path) -> None:
    pictures, expected = write(style, tmp_path / "net.onnx", batch=batch)
    loaded = load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides={})
    session = sessions.open_session(loaded.model.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: pictures})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def gelu(w: Writer, shape: Sequence[int | str]) -> onnx.ModelProto:
    """Operators whose definitions are newer than edgetl's opset."""
    x = w.add("Transpose", "input_1:0", perm=[0, 3, 1, 2])
    x = w.add("Conv", x, w.weight("stem/kernel", 4, 3, 3, 3), kernel_shape=[3, 3])
    if w.opset >= 21:
        x = w.add("GroupNormalization", x, w.weight("gamma", 4), w.weight("beta", 4), num_groups=2)
    x = w.add("Flatten", w.add("GlobalAveragePool", w.add("Gelu", x)))
    return w.model(w.add("Gemm", x, w.weight("dense.weight", 4, CLASSES), w.weight("dense.bias", CLASSES)), shape)


@pytest.mark.parametrize("opset", [20, 21])
def test_newer_operators_become_older_ones(opset: int, tmp_path: Path) -> None:
    write(gelu, tmp_path / "net.onnx", opset)  # the source is compared with the file
    loaded = load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides={})
    assert heads.replace_head(loaded.model, 3, loaded.parameters).head == ("dense.weight", "dense.bias")


@pytest.mark.parametrize("opset", [22, 23])
def test_versions_that_onnxruntime_does_not_read_yet(opset: int, tmp_path: Path) -> None:
    model = gelu(Writer(opset), ["N", SIZE, SIZE, 3])
    model.ir_version = 11
    onnx.save(model, tmp_path / "net.onnx")
    loaded = load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides={})
    pictures = np.random.default_rng(1).random((2, 3, SIZE, SIZE)).astype(np.float32)
    session = sessions.open_session(loaded.model.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: pictures})
    from onnx.reference import ReferenceEvaluator

    (expected,) = ReferenceEvaluator(model).run(None, {"input_1:0": pictures.transpose(0, 2, 3, 1)})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_versions_that_only_allow_more_types_are_relabelled(tmp_path: Path) -> None:
    """Operators for which onnx has no converter, among them what torch writes for a padding that it computes."""
    w = Writer(22)
    x = w.add("Transpose", "input_1:0", perm=[0, 3, 1, 2])
    zero = w.constant("zero", np.array([0], np.float32))
    shape = w.constant("shape", np.array([8], np.int64))
    pads = w.add("Cast", w.add("ConstantOfShape", shape, value=numpy_helper.from_array(np.zeros(1, np.int64))), to=7)
    x = w.add("AveragePool", w.add("Pad", x, pads, zero), kernel_shape=[2, 2], dilations=[1, 1])
    x = w.add("Gemm", w.add("Flatten", w.add("GlobalMaxPool", x)), w.weight("dense.weight", 3, CLASSES))
    model = w.model(x, ["N", SIZE, SIZE, 3])
    onnx.save(model, tmp_path / "net.onnx")
    loaded = load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides={})
    pictures = np.random.default_rng(1).random((2, 3, SIZE, SIZE)).astype(np.float32)
    session = sessions.open_session(loaded.model.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: pictures})
    from onnx.reference import ReferenceEvaluator

    (expected,) = ReferenceEvaluator(model).run(None, {"input_1:0": pictures.transpose(0, 2, 3, 1)})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_opset_that_cannot_be_converted_is_one_sentence(tmp_path: Path) -> None:
    """AveragePool has dilations since opset 19."""
    w = Writer(22)
    x = w.add("AveragePool", w.add("Transpose", "input_1:0", perm=[0, 3, 1, 2]), kernel_shape=[2, 2], dilations=[2, 2])
    x = w.add("Gemm", w.add("Flatten", w.add("GlobalMaxPool", x)), w.weight("dense.weight", 3, CLASSES))
    onnx.save(w.model(x, ["N", SIZE, SIZE, 3]), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"opset 22 cannot be converted to 18: ") as caught:
        load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides={})
    assert "\n" not in str(caught.value)


def test_a_fixed_class_token_and_functions(tmp_path: Path) -> None:
    """As torch exports a transformer without a dynamic batch, and calls of functions that the file defines."""
    w = Writer(18)
    x = w.add("Conv", "input_1:0", w.weight("patch.weight", 4, 3, 4, 4), strides=[4, 4])
    x = w.add("Transpose", w.add("Reshape", x, w.constant("s", np.array([1, 4, 9], np.int64))), perm=[0, 2, 1])
    x = w.add("Concat", w.weight("token", 1, 1, 4), x, axis=1)
    x = w.add("Twice", x, domain="own")
    x = w.add("Gather", x, w.constant("zero", np.int64(0)), axis=1)
    x = w.add("Gemm", x, w.weight("head.weight", CLASSES, 4), w.weight("head.bias", CLASSES), transB=1)
    graph = helper.make_graph(
        w.nodes, "vit", [helper.make_tensor_value_info("input_1:0", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, CLASSES])], w.constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    twice = helper.make_function(
        "own", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], opsets[:1]
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=opsets, functions=[twice], ir_version=8), tmp_path / "net.onnx"
    )  # fmt: skip
    loaded = load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides={})
    assert loaded.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert "token" in [tensor.name for tensor in loaded.model.graph.initializer]


def test_channels_shuffled_in_a_fixed_batch(tmp_path: Path) -> None:
    """As ShuffleNet's authors write it: the batch and half of the channels are one axis."""
    w = Writer(13)
    x = w.add("Transpose", "input_1:0", perm=[0, 3, 1, 2])
    x = w.add("Conv", x, w.weight("stem/kernel", 4, 3, 3, 3), strides=[2, 2])
    x = w.add("Reshape", x, w.constant("split", np.array([2, 2, 25], np.int64)))
    x = w.add("Transpose", x, perm=[1, 0, 2])
    x = w.add("Reshape", x, w.constant("join", np.array([2, -1, 2, 5, 5], np.int64)))
    first, second = (w.add("Gather", x, w.constant(f"part{i}", np.int64(i)), axis=0) for i in range(2))
    x = w.add("Flatten", w.add("GlobalAveragePool", w.add("Sub", first, w.add("Relu", second))))
    x = w.add("Gemm", x, w.weight("dense.weight", 2, CLASSES), w.weight("dense.bias", CLASSES))
    model = w.model(x, [1, SIZE, SIZE, 3])
    onnx.save(model, tmp_path / "net.onnx")
    loaded = load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides={})
    pictures = np.random.default_rng(1).random((3, 3, SIZE, SIZE)).astype(np.float32)
    original = sessions.open_session(tmp_path / "net.onnx")
    expected = [original.run(None, {"input_1:0": picture.transpose(1, 2, 0)[None]})[0] for picture in pictures]
    session = sessions.open_session(loaded.model.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: pictures})
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)


def external(directory: Path, location: str) -> Path:
    """Write the model into `directory` with its weights at `location`."""
    model = depthwise(Writer(13), ["N", SIZE, SIZE, 3])
    directory.mkdir(exist_ok=True)
    file = directory / "net.onnx"
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    stored = onnx.load(file, load_external_data=False)
    for tensor in stored.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    file.write_bytes(stored.SerializeToString())
    return file


def test_weights_in_a_second_file(tmp_path: Path) -> None:
    result = prepare(str(external(tmp_path / "model", "weights.bin")), out=tmp_path / "art", classes=2)
    assert result.features[0].shape == (6,)


def test_a_second_file_elsewhere_is_refused(tmp_path: Path) -> None:
    for location in ("../weights.bin", str(tmp_path / "weights.bin")):
        file = external(tmp_path / "model", location)
        (tmp_path / "weights.bin").write_bytes((tmp_path / "model" / "weights.bin").read_bytes())
        with pytest.raises(ModelError, match="not a valid ONNX model"):
            load_source(str(file), weights=None, model_args={}, overrides={})
    file = external(tmp_path / "model", "link.bin")
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_source(str(file), weights=None, model_args={}, overrides={})


def test_named_dimensions_take_the_size_that_is_asked_for(tmp_path: Path) -> None:
    model = folded(Writer(13), ["batch", "height", "width", 3])
    onnx.save(model, tmp_path / "net.onnx")
    loaded = load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides={"size": 20})
    assert loaded.preprocessing.height == 20
    write(folded, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="12×12 only"):
        load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides={"size": 20})
