"""Models that would grow beyond all bounds are refused before anything unfolds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from edgetl.errors import EngineError
from edgetl.runtime import sessions

OWN = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def save(file: Path, nodes: Sequence[NodeProto], functions: Sequence[FunctionProto] = (), trips: int = 0) -> Path:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(np.array(trips, np.int64), "trips")]
    )
    onnx.save(helper.make_model(graph, opset_imports=OWN, functions=functions, ir_version=8), file)
    return file


def call(name: str, x: str, y: str) -> NodeProto:
    return helper.make_node(name, [x], [y], domain="own")


def function(name: str, *nodes: NodeProto) -> FunctionProto:
    return helper.make_function("own", name, ["a"], ["b"], nodes, OWN)


def doubling(depth: int) -> list[FunctionProto]:
    """Functions each of which calls the one before it twice."""
    made = [function("F0", helper.make_node("Abs", ["a"], ["b"]))]
    made += [function(f"F{i}", call(f"F{i - 1}", "a", "t"), call(f"F{i - 1}", "t", "b")) for i in range(1, depth)]
    return made


def branch(i: int, side: str) -> GraphProto:
    output = helper.make_tensor_value_info(side, TensorProto.FLOAT, None)
    return helper.make_graph([call(f"F{i}", "a", side)], side, [], [output])


def branching(depth: int) -> list[FunctionProto]:
    made = [function("F0", helper.make_node("Abs", ["a"], ["b"]))]
    for i in range(1, depth):
        condition = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
        sides = {f"{side}_branch": branch(i - 1, side) for side in ("then", "else")}
        made.append(function(f"F{i}", condition, helper.make_node("If", ["c"], ["b"], **sides)))
    return made


def loop(depth: int, *, ends_early: bool = False) -> NodeProto:
    """A loop in loops that all run `trips` times, or at most so often."""
    goes_on, value = f"go{depth}", f"v{depth}"
    step = loop(depth - 1, ends_early=ends_early) if depth > 1 else helper.make_node("Abs", ["v1"], ["y"])
    result = f"out{depth}"
    step.input[-1], step.output[0] = value, result
    ends = "Not" if ends_early else "Identity"
    body = helper.make_graph(
        [helper.make_node(ends, [goes_on], [f"{goes_on}/next"]), step],
        "body",
        [
            helper.make_tensor_value_info(f"i{depth}", TensorProto.INT64, []),
            helper.make_tensor_value_info(goes_on, TensorProto.BOOL, []),
            helper.make_tensor_value_info(value, TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info(f"{goes_on}/next", TensorProto.BOOL, []),
            helper.make_tensor_value_info(result, TensorProto.FLOAT, None),
        ],
    )
    return helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)


def refused(file: Path) -> str:
    with pytest.raises(EngineError) as caught:
        sessions.open_session(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_functions_that_double_are_counted_and_not_expanded(tmp_path: Path) -> None:
    """A function of 2f + 2 operators calls one of f twice, so the 29th has 3·2^29 - 2, and its own call is one more."""
    file = save(tmp_path / "m.onnx", [call("F29", "x", "y")], doubling(30))
    assert "unfolds to 1,610,612,735 operators" in refused(file)


def test_branches_that_double(tmp_path: Path) -> None:
    assert "more than 10^" in refused(save(tmp_path / "m.onnx", [call("F59", "x", "y")], branching(60)))


def test_loops_in_loops(tmp_path: Path) -> None:
    assert "more than 10^12 operators" in refused(save(tmp_path / "m.onnx", [loop(4)], trips=1000))


def test_functions_in_a_circle(tmp_path: Path) -> None:
    circle = [function("F", call("G", "a", "b")), function("G", call("F", "a", "b"))]
    assert "its function 'F' calls itself" in refused(save(tmp_path / "m.onnx", [call("F", "x", "y")], circle))


def test_what_unfolds_to_little_runs(tmp_path: Path) -> None:
    x = np.arange(-2, 2, dtype=np.float32)
    few = [
        save(tmp_path / "functions.onnx", [call("F9", "x", "y")], doubling(10)),
        save(tmp_path / "loops.onnx", [loop(2)], trips=5),
        save(tmp_path / "early.onnx", [loop(2, ends_early=True)], trips=10**15),
    ]
    for file in few:
        (y,) = sessions.open_session(file).run(None, {"x": x})
        np.testing.assert_array_equal(y, np.abs(x))


def test_a_file_that_is_no_model_is_left_to_onnxruntime(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    for content in (b"", b"\xff" * 50, b"nothing", b"Loop"):
        file.write_bytes(content)
        with pytest.raises(Exception, match=r"(?i)protobuf|model|empty|read"):
            sessions.open_session(file)
