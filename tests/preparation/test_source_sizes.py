"""Graphs and programs with values too large to compute: refused by their shapes, and never run."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.preparation.sources import sizes
from edgetl.preparation.sources.resolve import load_source
from edgetl.preparation.sources.sizes import refuse_too_large

HUGE = 400_000
INTEGERS = {"big": [HUGE, HUGE], "pads": [0, 0, HUGE, HUGE], "ids": [0] * HUGE, "large": [30000, 30000]}
FLOATS: dict[str, Any] = {
    "one": [[1.0]],
    "first": 0.0,
    "last": 1e11,
    "step": 1.0,
    "switch": [0.0, 1.0],
    "picture": np.ones((1, 1, 2, 2)),
    "scales": [1, 1, 2e5, 2e5],
    "row": np.ones((1, HUGE)),
    "column": np.ones((HUGE, 1)),
}


def model_of(nodes: list[NodeProto], result: str = "k") -> onnx.ModelProto:
    """A classifier whose scores have the mean of one more value added."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(rng.standard_normal((4, 2)).astype(np.float32), "fc"),
        numpy_helper.from_array(np.array([HUGE * 3], np.int64), "depth"),
    ]
    weights += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in INTEGERS.items()]
    weights += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in FLOATS.items()]
    chain = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("ReduceMean", ["f"], ["q"], keepdims=1),
        *nodes,
        helper.make_node("ReduceMean", [result], ["m"], keepdims=0),
        helper.make_node("MatMul", ["f", "fc"], ["s"]),
        helper.make_node("Add", ["s", "m"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in (("x", ["b", 3, 9, 9]), ("y", ["b", 2]))]
    graph = helper.make_graph(chain, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def node(kind: str, *inputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, ["k"], name="culprit", **attributes)


@pytest.mark.parametrize(
    ("culprit", "words"),
    [
        (node("ConstantOfShape", "big"), "makes a constant of 640.0 GB"),
        (node("Expand", "one", "big"), "makes a constant of 640.0 GB"),
        (node("Tile", "one", "big"), "makes a constant of 640.0 GB"),
        (node("Pad", "one", "pads"), "makes a constant of 640.0 GB"),
        (node("Range", "first", "last", "step"), "makes a constant of 400.0 GB"),
        (node("OneHot", "ids", "depth", "switch"), "makes a constant of 1,920.0 GB"),
        (node("Resize", "picture", "", "scales"), "makes a constant of 640.0 GB"),
        (node("MatMul", "column", "row"), "makes a constant of 640.0 GB"),
        (node("Expand", "q", "big"), "makes a value of 640.0 GB"),
        (node("ConstantOfShape", "large"), "makes a constant of 3.6 GB"),
    ],
    ids=lambda value: value.op_type if isinstance(value, NodeProto) else None,
)
def test_huge_values_are_named(culprit: NodeProto, words: str) -> None:
    with pytest.raises(
        ModelError, match=f"m.onnx needs too much memory: its operator {culprit.op_type} 'culprit' {words}"
    ):
        refuse_too_large("m.onnx", model_of([culprit]))


def test_shapes_that_are_computed_are_followed() -> None:
    size = helper.make_node("Mul", ["big", "big"], ["bigger"])
    with pytest.raises(ModelError, match="ConstantOfShape 'culprit'"):
        refuse_too_large("m.onnx", model_of([size, node("ConstantOfShape", "bigger")]))


def test_files_are_refused_before_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_LARGEST_CONSTANT", 1000)  # so that the graph does no harm if it ran
    small = node("ConstantOfShape", "small")
    model = model_of([small])
    model.graph.initializer.append(numpy_helper.from_array(np.array([20, 20], np.int64), "small"))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="needs too much memory: its operator ConstantOfShape 'culprit'"):
        load_source(str(tmp_path / "m.onnx"), weights=None, model_args={}, overrides={})

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(196, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.layers(x)
            return scores + torch.full((20, 20), 0.5).mean()

    program = torch.export.export(Net().eval(), (torch.zeros(2, 3, 9, 9),))
    torch.export.save(program, tmp_path / "p.pt2")
    with pytest.raises(ModelError, match=r"needs too much memory: its operator aten.full.default 'full' makes a const"):
        load_source(str(tmp_path / "p.pt2"), weights=None, model_args={}, overrides={})
    monkeypatch.undo()
    assert load_source(str(tmp_path / "m.onnx"), weights=None, model_args={}, overrides={}).parameters


def test_a_lack_of_memory_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(model_of([node("Identity", "one")]), tmp_path / "m.onnx")

    def fails(*_: Any) -> None:
        raise RuntimeError("Exception during initialization: std::bad_alloc")

    monkeypatch.setattr("edgetl.preparation.sources.onnx_file.simplify", fails)
    with pytest.raises(ModelError, match=r"m\.onnx needs more memory than there is"):
        load_source(str(tmp_path / "m.onnx"), weights=None, model_args={}, overrides={})
