"""Small classifiers as files that `prepare` reads. Needs torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

SIZE = 6


def onnx_network(opset: int = 18, batch: int | str = "batch") -> onnx.ModelProto:
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Mul", ["f", "two"], ["m"]),
        helper.make_node("Gemm", ["m", "fc.weight", "fc.bias"], ["scores"], transB=1),
    ]
    tensors = [
        *(weight("conv.weight", 4, 3, 3, 3), weight("conv.bias", 4), weight("scale", 4), weight("shift", 4)),
        *(weight("mean", 4), numpy_helper.from_array(np.ones(4, np.float32), "variance")),
        *(weight("fc.weight", 2, 4), weight("fc.bias", 2), numpy_helper.from_array(np.array([-1, 4]), "shape")),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 2])],
        tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved_program(file: Path) -> bytes:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    torch.export.save(torch.export.export(module, (torch.randn(1, 3, SIZE, SIZE),)), file)
    return file.read_bytes()


def saved_keras(keras: Any, file: Path) -> bytes:
    layers = keras.layers
    inputs = layers.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.Model(inputs, layers.Dense(2)(x)).save(file)
    return file.read_bytes()
