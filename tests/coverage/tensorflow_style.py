"""Three graphs as tf2onnx writes them; tf2onnx itself needs TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5


class Writer:
    """Nodes and constants of a graph, with operators in the form that the opset has."""

    def __init__(self, opset: int) -> None:
        self.opset, self.nodes, self.constants = opset, [], []  # type: ignore[var-annotated]
        self.rng = np.random.default_rng(0)

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str, *shape: int, low: float | None = None) -> str:
        draw = self.rng.normal(size=shape) * 0.4 if low is None else self.rng.uniform(low, 2, shape)
        return self.constant(name, draw.astype(np.float32))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}__{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}:0"], name, **attributes))
        return f"{name}:0"

    def axes(self, op: str, x: str, axes: list[int], since: int, **attributes: Any) -> str:
        if self.opset < since:
            return self.add(op, x, axes=axes, **attributes)
        name = self.constant(f"axes__{len(self.nodes)}", np.array(axes, np.int64))
        return self.add(op, x, name, **attributes)

    def relu6(self, x: str) -> str:
        low = self.constant(f"low__{len(self.nodes)}", np.float32(0))
        return self.add("Clip", x, low, self.constant(f"high__{len(self.nodes)}", np.float32(6)))

    def model(self, output: str, shape: Sequence[int | str]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "tf2onnx",
            [helper.make_tensor_value_info("input_1:0", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0], CLASSES])],
            self.constants,
        )
        ir = {11: 6, 13: 7, 17: 8, 18: 8, 20: 9, 21: 10}.get(self.opset, 10)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=ir)
        onnx.checker.check_model(model)
        return model


def folded(w: Writer, shape: Sequence[int | str]) -> onnx.ModelProto:
    """Normalisations folded; the mean over NHWC axes; MatMul, Add, Softmax."""
    x = w.add("Transpose", "input_1:0", perm=[0, 3, 1, 2])
    x = w.add("Conv", x, w.weight("stem/kernel", 4, 3, 3, 3), w.weight("stem/bias", 4),
              pads=[0, 0, 1, 1], strides=[2, 2], kernel_shape=[3, 3])  # fmt: skip
    x = w.add("Transpose", w.relu6(x), perm=[0, 2, 3, 1])
    x = w.axes("ReduceMean", x, [1, 2], 18, keepdims=0)
    x = w.add("Add", w.add("MatMul", x, w.weight("dense/kernel", 4, CLASSES)), w.weight("dense/bias", CLASSES))
    return w.model(w.add("Softmax", x, axis=1), shape)


def depthwise(w: Writer, shape: Sequence[int | str]) -> onnx.ModelProto:
    """A separable convolution with normalisations; pooled scores of a 1×1 convolution, squeezed twice."""
    x = w.add("Transpose", "input_1:0", perm=[0, 3, 1, 2])
    x = w.add("Conv", x, w.weight("stem/kernel", 4, 3, 3, 3), pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    x = w.add("BatchNormalization", x, w.weight("gamma", 4, low=0.5), w.weight("beta", 4), w.weight("mean", 4),
              w.weight("variance", 4, low=0.5), epsilon=1e-3)  # fmt: skip
    x = w.add("Conv", w.relu6(x), w.weight("depthwise/kernel", 4, 1, 3, 3), group=4, pads=[1, 1, 1, 1],
              kernel_shape=[3, 3])  # fmt: skip
    x = w.add("Conv", x, w.weight("pointwise/kernel", 6, 4, 1, 1), kernel_shape=[1, 1])
    x = w.add("GlobalAveragePool", w.add("Relu", x))
    x = w.add("Conv", x, w.weight("scores/kernel", CLASSES, 6, 1, 1), w.weight("scores/bias", CLASSES))
    return w.model(w.axes("Squeeze", w.axes("Squeeze", x, [3], 13), [2], 13), shape)


def keras_like(w: Writer, shape: Sequence[int | str]) -> onnx.ModelProto:
    """A transposition before and after each convolution; a 1×1 map with channels last, reshaped to scores."""
    x = "input_1:0"
    for i, (inputs, outputs) in enumerate([(3, 4), (4, 6)]):
        x = w.add("Transpose", x, perm=[0, 3, 1, 2])
        x = w.add("Conv", x, w.weight(f"conv{i}/kernel", outputs, inputs, 3, 3), strides=[2, 2], kernel_shape=[3, 3])
        x = w.add("Transpose", x, perm=[0, 2, 3, 1])
        x = w.relu6(w.add("Add", x, w.weight(f"conv{i}/bias", outputs)))
    x = w.add("Transpose", w.axes("ReduceMean", x, [1, 2], 18, keepdims=1), perm=[0, 3, 1, 2])
    x = w.add("Conv", x, w.weight("scores/kernel", CLASSES, 6, 1, 1), kernel_shape=[1, 1])
    x = w.add("Add", w.add("Transpose", x, perm=[0, 2, 3, 1]), w.weight("scores/bias", CLASSES))
    x = w.add("Reshape", x, w.constant("scores/shape", np.array([-1, CLASSES], np.int64)))
    return w.model(w.add("Softmax", x, axis=1), shape)


STYLES: list[Callable[[Writer, Sequence[int | str]], onnx.ModelProto]] = [folded, depthwise, keras_like]
