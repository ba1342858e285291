import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgetl.errors import EngineError
from edgetl.runtime import sessions

FLOATS = np.arange(4, dtype=np.float32)


@pytest.fixture
def model_with(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model that adds what lies in a file, named by its location."""

    def write(location: str, *, inside: str = "initializer") -> Path:
        home = tmp_path / "home"
        (home / "below").mkdir(parents=True, exist_ok=True)
        (home / "..weights.bin").write_bytes(FLOATS.tobytes())
        (home / "below" / "weights.bin").write_bytes(FLOATS.tobytes())
        (tmp_path / "secret.bin").write_bytes(FLOATS.tobytes())
        (tmp_path / "home 2").mkdir(exist_ok=True)
        (tmp_path / "home 2" / "secret.bin").write_bytes(FLOATS.tobytes())
        if not (home / "link.bin").is_symlink():
            (home / "link.bin").symlink_to(tmp_path / "secret.bin")
        tensor = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", location), ("offset", "0"), ("length", "16")):
            tensor.external_data.add(key=key, value=value)
        nodes, initializers = [helper.make_node("Add", ["x", "w"], ["y"])], [tensor]
        if inside == "constant":
            nodes, initializers = [helper.make_node("Constant", [], ["w"], value=tensor), *nodes], []
        if inside == "branch":
            outputs = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])]
            node = helper.make_node("Constant", [], ["w"], value=tensor)
            branches = {f"{name}_branch": helper.make_graph([node], name, [], outputs) for name in ("then", "else")}
            condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
            nodes, initializers = [helper.make_node("If", ["c"], ["w"], **branches), *nodes], [condition]
        functions = []
        if inside == "function":
            inner = [helper.make_node("Constant", [], ["v"], value=tensor)]
            functions = [helper.make_function("own", "F", [], ["v"], inner, [helper.make_opsetid("", 17)])]
            nodes, initializers = [helper.make_node("F", [], ["w"], domain="own"), *nodes], []
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
        graph = helper.make_graph(nodes, "g", values[:1], values[1:], initializers)
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        made = helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions)
        (home / "model.onnx").write_bytes(made.SerializeToString())
        return home / "model.onnx"

    return write


@pytest.mark.parametrize("location", ["..weights.bin", "below/weights.bin", "./below/../below/weights.bin"])
def test_weights_in_the_models_directory_are_read(model_with: Callable[..., Path], location: str) -> None:
    (y,) = sessions.open_session(model_with(location)).run(None, {"x": FLOATS})
    np.testing.assert_array_equal(y, 2 * FLOATS)


@pytest.mark.parametrize("inside", ["initializer", "constant", "branch", "function"])
@pytest.mark.parametrize(
    "location", ["../secret.bin", "below/../../secret.bin", "../home 2/secret.bin", "link.bin", "/"]
)
def test_weights_anywhere_else_are_not(model_with: Callable[..., Path], location: str, inside: str) -> None:
    location = str(model_with("x").parent.parent / "secret.bin") if location == "/" else location
    with pytest.raises(EngineError, match="outside of its directory"):
        sessions.open_session(model_with(location, inside=inside))


def test_a_name_that_only_sounds_like_it(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("location", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["location"], ["y"])], "g", values[:1], values[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "model.onnx")
    (y,) = sessions.open_session(tmp_path / "model.onnx").run(None, {"location": FLOATS})
    np.testing.assert_array_equal(y, -FLOATS)


def test_what_is_no_model_and_mentions_no_file_is_left_to_who_opens_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    assert sessions.session_source(tmp_path / "model.onnx") == str(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"location", b"\x08\x08location" + os.urandom(100)])
def test_what_may_name_a_file_and_cannot_be_read_is_not_handed_on(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(EngineError, match="is not an ONNX model that can be read"):
        sessions.open_session(tmp_path / "model.onnx")
