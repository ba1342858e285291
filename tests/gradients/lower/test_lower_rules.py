"""Each rule against onnxruntime-training's kernel of the operator it replaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.gradients.lower.lower import RULES, lower_operators
from edgetl.runtime import sessions

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
LAST = np.iinfo(np.int64).max


@dataclass
class Case:
    """One node. `inputs` are the graph's, in the node's order where `order` does not say otherwise."""

    op: str
    inputs: Mapping[str, Array]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ("out",)
    constants: Mapping[str, Array] = field(default_factory=dict)
    order: Sequence[str] = ()
    domain: str = "com.microsoft"
    name: str = ""

    @property
    def id(self) -> str:
        return f"{self.op} {self.name}".strip()

    def model(self) -> onnx.ModelProto:
        order = self.order or [*self.inputs, *self.constants]
        node = helper.make_node(self.op, list(order), list(self.outputs), domain=self.domain, **self.attributes)
        graph = helper.make_graph(
            [node],
            "case",
            [typed(name, value) for name, value in self.inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in self.outputs if name],
            initializer=[numpy_helper.from_array(np.asarray(v), k) for k, v in self.constants.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


class PoolCase(Case):
    """MaxPoolGrad behind its forward node, which gives it the indices."""

    def model(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node("MaxPool", ["x"], ["y", "indices"], **self.attributes),
            helper.make_node("MaxPoolGrad", ["dy", "indices"], ["dx"]),
            helper.make_node("Identity", ["dx"], ["out"]),
        ]
        inputs = [typed(name, value) for name, value in self.inputs.items()]
        # the kernel takes the shape of dX from the graph, and crashes where it is not there
        outputs, known = [typed("out", self.inputs["x"])], [typed("dx", self.inputs["x"])]
        graph = helper.make_graph(nodes, "case", inputs, outputs, value_info=known)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    def pooled(self, x: Any) -> Any:
        """Y for X, two tensors of torch."""
        import torch.nn.functional as F

        dims = x.ndim - 2
        function = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[dims]
        before, after = self.attributes["pads"][:dims], self.attributes["pads"][dims:]
        # F.pad takes the last axis first
        x = F.pad(x, [pad for pair in zip(before[::-1], after[::-1], strict=True) for pad in pair], value=-np.inf)
        kernel, strides, dilations = (self.attributes[key] for key in ("kernel_shape", "strides", "dilations"))
        return function(x, kernel, strides, 0, dilations)


def typed(name: str, value: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def f(*shape: int) -> Array:
    return np.asarray(RNG.standard_normal(shape), np.float32)


def ints(*values: Any) -> Array:
    return np.array(values, np.int64)


def softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x)
    return (e / e.sum(axis, keepdims=True)).astype(np.float32)


def activations() -> Iterator[Case]:
    pair = {"dy": f(3, 4, 5), "x": f(3, 4, 5)}
    bias = {**pair, "b": f(5)}
    positive = {"dy": pair["dy"], "y": np.maximum(pair["x"], 0)}
    yield Case("ReluGrad", positive)
    yield Case("LeakyReluGrad", pair, {"alpha": 0.2})
    yield Case("SigmoidGrad", {"dy": f(3, 4), "y": RNG.uniform(0, 1, (3, 4)).astype(np.float32)})
    yield Case("TanhGrad", {"dy": f(3, 4), "y": np.tanh(f(3, 4))})
    for op in ("GeluGrad", "FastGeluGrad", "QuickGeluGrad"):
        yield Case(op, pair)
    yield Case("QuickGeluGrad", pair, {"alpha": 1.0}, name="SiLU")
    for op in ("BiasGeluGrad_dX", "BiasFastGeluGrad_dX"):
        yield Case(op, bias)
    for op in ("Gelu", "FastGelu", "QuickGelu"):
        yield Case(op, {"x": f(3, 4, 5)})
    for op in ("BiasGelu", "FastGelu"):
        yield Case(op, {"x": f(3, 4, 5), "b": f(5)}, name="bias")
    for axis in (-1, 1):
        yield Case("SoftmaxGrad_13", {"dy": f(3, 4, 5), "y": softmax(f(3, 4, 5), axis)}, {"axis": axis}, name=str(axis))
        log = {"dy": f(3, 4, 5), "y": np.log(softmax(f(3, 4, 5), axis))}
        yield Case("LogSoftmaxGrad_13", log, {"axis": axis}, name=str(axis))
    mask = {"dy": f(3, 4), "mask": RNG.uniform(0, 1, (3, 4)) > 0.3}
    ratio = {"r": np.array(0.3, np.float32), "t": np.array(True)}
    yield Case("DropoutGrad", mask, constants=ratio)


def losses() -> Iterator[Case]:
    log_prob = np.log(softmax(f(6, 4)))
    label = RNG.integers(0, 4, 6)
    weight = {"w": RNG.uniform(0.5, 2, 4).astype(np.float32)}
    one = np.array(1.5, np.float32)
    for reduction in ("mean", "sum", "none"):
        dy = f(6) if reduction == "none" else one
        inputs = {"dy": dy, "log_prob": log_prob, "label": label}
        ignored = {"reduction": reduction, "ignore_index": int(label[0])}
        beyond = {**inputs, "label": np.where(np.arange(6) < 2, -100, label)}
        yield Case("SoftmaxCrossEntropyLossGrad", inputs, {"reduction": reduction}, name=reduction)
        yield Case("SoftmaxCrossEntropyLossGrad", {**inputs, **weight}, {"reduction": reduction}, name=f"{reduction} w")
        yield Case("SoftmaxCrossEntropyLossGrad", inputs, ignored, name=f"{reduction} ignore")
        yield Case("SoftmaxCrossEntropyLossGrad", {**inputs, **weight}, ignored, name=f"{reduction} w ignore")
        settings = {"reduction": reduction, "ignore_index": -100}
        yield Case("SoftmaxCrossEntropyLossGrad", beyond, settings, name=f"{reduction} ignore negative")
    images = {"dy": one, "log_prob": np.log(softmax(f(3, 4, 5), 1)), "label": RNG.integers(0, 4, (3, 5))}
    yield Case("SoftmaxCrossEntropyLossGrad", images, {"reduction": "mean"}, name="3-D")
    unit = {"log_prob": log_prob, "label": label}
    yield Case(
        "SoftmaxCrossEntropyLossGrad",
        unit,
        {"reduction": "mean"},
        constants={"dy": np.array(1, np.float32)},
        order=("dy", "log_prob", "label"),
        name="constant dY",
    )


def normalisations() -> Iterator[Case]:
    for axis, scale, kept in ((-1, (5,), (3, 4, 1)), (1, (4, 5), (3, 1, 1))):
        x = f(3, 4, 5)
        axes = tuple(range(axis % 3, 3))
        mean = x.mean(axes, keepdims=True).reshape(kept)
        inverse = (1 / np.sqrt(x.var(axes, keepdims=True) + 1e-5)).astype(np.float32)
        common = {"dy": f(3, 4, 5), "x": x, "s": RNG.uniform(0.5, 1.5, scale).astype(np.float32)}
        outputs = ("dx", "ds", "db")
        yield Case(
            "LayerNormalizationGrad", {**common, "m": mean, "v": inverse}, {"axis": axis}, outputs, name=str(axis)
        )
        inverse = (1 / np.sqrt((x**2).mean(axes, keepdims=True) + 1e-5)).astype(np.float32)
        inputs = {**common, "v": inverse}
        yield Case("SimplifiedLayerNormalizationGrad", inputs, {"axis": axis}, outputs[:2], name=str(axis))
        yield Case(
            "SimplifiedLayerNormalization",
            {"x": x, "s": common["s"]},
            {"axis": axis},
            ("out", "v"),
            domain="",
            name=str(axis),
        )
    channels = {"s": RNG.uniform(0.5, 1.5, 4).astype(np.float32), "b": f(4)}
    x = f(3, 4, 5, 2)
    statistics = {"m": x.mean((0, 2, 3)), "v": (1 / np.sqrt(x.var((0, 2, 3)) + 1e-5)).astype(np.float32)}
    inputs = {"dy": f(3, 4, 5, 2), "x": x, "s": channels["s"], **statistics}
    yield Case("BatchNormalizationGrad", inputs, {"epsilon": 1e-5}, ("dx", "ds", "db"))
    running = {"m": f(4), "v": RNG.uniform(0.5, 1.5, 4).astype(np.float32)}
    settings = {"training_mode": 1, "momentum": 0.8}
    yield Case("BatchNormInternal", {"x": x, **channels, **running}, settings, ("out", "rm", "rv", "sm", "sv"))


def convolutions() -> Iterator[Case]:
    def one(name: str, size: tuple[int, ...], weight: tuple[int, ...], channels: int, **settings: Any) -> Case:
        import torch

        dims = len(size)
        x, w = f(3, channels, *size), f(*weight)
        settings = {
            "group": 1,
            "strides": [1] * dims,
            "dilations": [1] * dims,
            "pads": [0] * 2 * dims,
            "kernel_shape": weight[2:],
            **settings,
        }
        pads = settings["pads"]
        padded = np.pad(x, [(0, 0), (0, 0), *((pads[i], pads[dims + i]) for i in range(dims))])
        function = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[dims]
        y = function(
            torch.tensor(padded),
            torch.tensor(w),
            stride=settings["strides"],
            dilation=settings["dilations"],
            groups=settings["group"],
        )
        return Case("ConvGrad", {"dy": f(*y.shape), "x": x, "w": w}, settings, ("dx", "dw", "db"), name=name)

    square = [1, 1, 1, 1]
    yield one("3x3", (7, 9), (6, 4, 3, 3), 4, pads=square)
    yield one("wide", (3, 3), (40, 32, 3, 3), 32, pads=square)
    yield one("1x1", (7, 9), (6, 4, 1, 1), 4)
    yield one("1x1 wide", (3, 3), (40, 32, 1, 1), 32)
    yield one("1x1 stride", (7, 8), (6, 4, 1, 1), 4, strides=[2, 2])
    yield one("1x1 groups", (7, 8), (6, 2, 1, 1), 4, group=2)
    yield one("1x1 padded", (7, 8), (6, 4, 1, 1), 4, pads=square)
    yield one("stride", (7, 9), (6, 4, 3, 3), 4, strides=[2, 2], pads=square)
    yield one("stride, even", (8, 10), (6, 4, 3, 3), 4, strides=[2, 2], pads=square)
    yield one("stride 4", (19, 16), (6, 4, 4, 4), 4, strides=[4, 4])
    yield one("stride 3, 2", (10, 11), (6, 4, 2, 3), 4, strides=[3, 2], pads=[0, 2, 1, 1])
    yield one("groups", (7, 9), (6, 2, 3, 3), 4, group=2, pads=square)
    yield one("groups, stride", (7, 9), (6, 2, 3, 3), 4, group=2, strides=[2, 1], pads=square)
    yield one("dilated", (9, 9), (6, 4, 3, 3), 4, dilations=[2, 2], pads=[2, 2, 2, 2])
    yield one("dilated, stride", (9, 9), (6, 4, 3, 3), 4, dilations=[2, 1], strides=[2, 2], pads=[2, 1, 2, 1])
    yield one("large pads", (5, 5), (6, 4, 2, 2), 4, pads=[2, 2, 2, 2])
    yield one("depthwise", (7, 9), (8, 1, 3, 3), 8, group=8, pads=square)
    yield one("depthwise 5x5", (7, 9), (8, 1, 5, 5), 8, group=8, pads=[2, 2, 2, 2])
    yield one("depthwise stride", (8, 9), (8, 1, 3, 3), 8, group=8, strides=[2, 2], pads=square)
    yield one("depthwise stride 5x5", (8, 9), (8, 1, 5, 5), 8, group=8, strides=[2, 2], pads=[2, 2, 2, 2])
    yield one("depthwise stride asymmetric", (8, 8), (8, 1, 3, 3), 8, group=8, strides=[2, 2], pads=[0, 0, 1, 1])
    yield one("depthwise dilated", (8, 8), (8, 1, 3, 3), 8, group=8, dilations=[2, 2], pads=[2, 2, 2, 2])
    yield one("depthwise tiles", (5, 40), (4, 1, 3, 3), 4, group=4, pads=square)
    yield one("depthwise tiles stride", (6, 80), (4, 1, 3, 5), 4, group=4, strides=[1, 2], pads=[1, 2, 1, 2])
    yield one("depthwise tiles dilated", (6, 41), (4, 1, 3, 3), 4, group=4, dilations=[1, 2], pads=[1, 1, 0, 2])
    yield one("depthwise wide, no tiles", (4, 37), (4, 1, 3, 3), 4, group=4, pads=square)
    yield one("depthwise wide, no tiles, stride", (5, 74), (4, 1, 3, 3), 4, group=4, strides=[2, 2], pads=square)
    yield one("depthwise, two each", (8, 8), (16, 1, 3, 3), 8, group=8, pads=square)
    yield one("1-D", (9,), (6, 4, 3), 4, pads=[1, 1])
    yield one("1-D stride", (9,), (6, 4, 3), 4, pads=[1, 1], strides=[2])
    yield one("3-D", (5, 6, 4), (6, 4, 3, 3, 3), 4, pads=[1, 1, 1, 1, 1, 1])
    yield one("3-D stride", (5, 6, 4), (6, 4, 3, 3, 3), 4, pads=[1, 1, 1, 1, 1, 1], strides=[2, 2, 2])
    whole = one("", (7, 9), (6, 4, 3, 3), 4, pads=square)
    yield Case("ConvGrad", whole.inputs, whole.attributes, ("", "dw"), name="weights only")
    yield Case("ConvGrad", whole.inputs, whole.attributes, ("dx",), name="input only")


def pools() -> Iterator[Case]:
    import torch

    for name, size, kernel, stride, pads, dilation in (
        ("2x2", (6, 8), [2, 2], 2, [0, 0, 0, 0], 1),
        ("overlapping", (7, 9), [3, 3], 2, [1, 1, 1, 1], 1),
        ("asymmetric", (8, 8), [3, 2], 2, [0, 0, 1, 1], 1),
        ("stride 1", (5, 6), [3, 3], 1, [1, 1, 1, 1], 1),
        ("dilated", (9, 9), [2, 2], 1, [0, 0, 0, 0], 2),
        ("global", (4, 5), [4, 5], 1, [0, 0, 0, 0], 1),
        ("1-D", (9,), [3], 2, [1, 1], 1),
        ("3-D", (5, 4, 6), [2, 2, 2], 2, [0, 0, 0, 0, 0, 0], 1),
    ):
        settings = {
            "kernel_shape": kernel,
            "strides": [stride] * len(size),
            "pads": pads,
            "dilations": [dilation] * len(size),
        }
        x = f(3, 4, *size)
        shape = PoolCase("MaxPoolGrad", {"x": x}, settings).pooled(torch.tensor(x)).shape
        yield PoolCase("MaxPoolGrad", {"x": x, "dy": f(*shape)}, settings, name=name)


def indexing() -> Iterator[Case]:
    def gather(name: str, axis: int, indices: Array, *, fixed: bool) -> Case:
        dy = f(*(3, 4, 5)[:axis], *indices.shape, *(3, 4, 5)[axis + 1 :])
        inputs = {"dy": dy} if fixed else {"dy": dy, "i": indices}
        constants = {"shape": ints(3, 4, 5), **({"i": indices} if fixed else {})}
        return Case("GatherGrad", inputs, {"axis": axis}, constants=constants, order=("shape", "i", "dy"), name=name)

    for fixed in (True, False):
        for name, axis, indices in (
            ("one", 1, np.array(2)),
            ("negative", 1, np.array(-1)),
            ("row", 0, ints(1, 2)),
            ("reversed", 2, ints(4, 3, 2, 1, 0)),
            ("some", 2, ints(3, 0)),
            ("repeated", 1, ints(3, 0, 3, 3)),
            ("table", 0, ints([0, 1], [2, 1])),
        ):
            if fixed or (indices >= 0).all():  # the kernel takes no negative index
                yield gather(f"{name} {'constant' if fixed else 'computed'}", axis, indices, fixed=fixed)
    for axis in (0, 1, 2):
        yield Case(
            "GatherElementsGrad",
            {"dy": f(2, 3, 4), "i": RNG.integers(0, 2, (2, 3, 4))},
            {"axis": axis},
            constants={"shape": ints(2, 3, 4)},
            order=("dy", "shape", "i"),
            name=str(axis),
        )
    for depth in (1, 2, 3):
        yield Case(
            "GatherNDGrad",
            {"i": RNG.integers(0, 3, (6, depth)), "dy": f(6, *(3, 4, 5)[depth:])},
            constants={"shape": ints(3, 4, 5)},
            order=("shape", "i", "dy"),
            name=str(depth),
        )
    for name, start, end, axis, step, shape in (
        ("plain", [1], [3], [1], [1], (3, 2, 5)),
        ("to the end", [1], [LAST], [2], [1], (3, 4, 4)),
        ("from the back", [-2], [-1], [-1], [1], (3, 4, 1)),
        ("steps", [1], [LAST], [2], [2], (3, 4, 2)),
        ("two axes", [1, 0], [3, LAST], [1, 2], [1, 2], (3, 2, 3)),
        ("everything", [0], [LAST], [0], [1], (3, 4, 5)),
    ):
        constants = {"shape": ints(3, 4, 5), "s": ints(*start), "e": ints(*end), "a": ints(*axis), "t": ints(*step)}
        yield Case("SliceGrad", {"dy": f(*shape)}, constants=constants, name=name)


def shapes() -> Iterator[Case]:
    for down in (0, 1):
        for kind in (np.float32, np.int64):
            scale, name = {"c": np.array(3, kind)}, f"{down} {kind.__name__}"
            yield Case("Scale", {"x": f(3, 4)}, {"scale_down": down}, constants=scale, name=name)
        computed = {"x": f(3, 4), "c": np.array(3, np.float32)}
        yield Case("Scale", computed, {"scale_down": down}, name=f"{down} computed")
    yield Case("SplitTraining", {"x": f(3, 5)}, {"axis": 1}, ("a", "b"), {"n": ints(2, 3)})
    yield Case("ConcatTraining", {"a": f(3, 2), "b": f(3, 4)}, {"axis": -1}, ("out", "n"))
    yield Case("ReduceSumTraining", {"x": f(3, 4, 5)}, {"keepdims": 1}, constants={"axes": ints(0, 2)})
    yield Case("ReduceSumTraining", {"x": f(3, 4, 5)}, {"keepdims": 0}, constants={"axes": ints(1)}, name="squeezed")
    yield Case("BroadcastGradientArgs", {}, {}, ("a", "b"), {"s": ints(3, 1, 5), "t": ints(4, 5)})
    for a, b in (((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (3, 4)), ((4,), (3, 4)), ((2, 1, 4), (3, 1)), ((3, 4), ())):
        dy = f(*np.broadcast_shapes(a, b))
        divisor = np.asarray(np.abs(f(*b)) + 0.5, np.float32)
        yield Case("DivGrad", {"dy": dy, "a": f(*a), "b": divisor}, outputs=("da", "db"), name=f"{a} {b}")
    yield Case("DivGrad", {"dy": f(3, 4), "a": f(3, 4)}, constants={"b": np.float32(3.0)}, outputs=("da",), name="by 3")
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        left, right = f(2, 5, 3) if a else f(2, 3, 5), f(2, 4, 5) if b else f(2, 5, 4)
        settings = {"transA": a, "transB": b, "alpha": 0.5}
        yield Case("FusedMatMul", {"a": left, "b": right}, settings, name=f"{a}{b}")
    yield Case("Trilu", {"x": f(4, 5)}, {"upper": 0})


FAMILIES = (activations, losses, normalisations, convolutions, pools, indexing, shapes)
CASES = [case for family in FAMILIES for case in family()]


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_rules_compute_what_the_kernels_do(case: Case) -> None:
    model = case.model()
    expected = sessions.open_session(model.SerializeToString()).run(None, dict(case.inputs))
    lowered = lower_operators(model)
    assert all(node.domain == "" for node in lowered.graph.node)
    found = sessions.open_session(lowered.SerializeToString()).run(None, dict(case.inputs))
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.abs(a - b).max(initial=0) <= 1e-5 * max(1.0, float(np.abs(b).max(initial=0)))


def test_every_rule_has_a_case() -> None:
    assert {case.op for case in CASES} == set(RULES)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "pads"), [((5, 5), (2, 2, 2, 2)), ((7, 3), (3, 1, 3, 1)), ((5, 4), (0, 1, 1, 2))])
def test_flat_depthwise_convolutions(kernel: tuple[int, int], pads: Sequence[int], bias: bool) -> None:
    inputs = {"x": f(2, 6, 9, 11), "w": f(6, 1, *kernel), **({"b": f(6)} if bias else {})}
    model = Case("Conv", inputs, {"group": 6, "pads": pads}, domain="").model()
    (expected,) = sessions.open_session(model.SerializeToString()).run(None, inputs)
    lowered = lower_operators(model)
    assert "Transpose" in {node.op_type for node in lowered.graph.node}
    (found,) = sessions.open_session(lowered.SerializeToString()).run(None, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_hard_sigmoid_is_one_operator_and_its_mask_reads_the_output() -> None:
    low, high, third, half = (np.array(value, np.float32) for value in (0.0, 1.0, 1 / 3, 0.5))
    nodes = [
        helper.make_node("Mul", ["x", "third"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Clip", ["shifted", "low", "high"], ["y"]),
        helper.make_node("GreaterOrEqual", ["shifted", "low"], ["above"]),
        helper.make_node("LessOrEqual", ["shifted", "high"], ["below"]),
        helper.make_node("And", ["above", "below"], ["mask"]),
    ]
    constants = {"low": low, "high": high, "third": third, "half": half}
    graph = helper.make_graph(
        nodes,
        "clip",
        [helper.make_tensor_value_info("x", 1, [5])],
        [onnx.ValueInfoProto(name="y"), onnx.ValueInfoProto(name="mask")],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    lowered = lower_operators(model)
    assert [node.op_type for node in lowered.graph.node] == ["HardSigmoid", "Greater", "Less", "And"]
    x = np.array([-2, -1.5, 0, 1, 3], np.float32)
    y, mask = sessions.open_session(lowered.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(y, np.clip(x / 3 + 0.5, 0, 1), rtol=1e-6)
    assert mask.tolist() == [False, False, True, True, False]


def test_operators_without_a_rule_are_listed_at_once() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Inverse", ["x"], ["a"], domain="com.microsoft"),
            helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft"),
            helper.make_node("FusedGemm", ["a", "b"], ["y"], domain="com.microsoft", activation="Relu"),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, [2, 2])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(ModelError, match="Inverse, FusedGemm"):
        lower_operators(model)
