"""Any lowered graph in float64: ONNX's reference implementation, with torch where that is slow or incomplete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


class Conv(OpRun):
    def _run(self, x: Array, w: Array, b: Array | None = None, **settings: Any) -> tuple[Array]:
        dims = x.ndim - 2
        function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
        pads = settings["pads"] or [0] * 2 * dims
        padded = F.pad(_torch(x), _sides(pads))
        bias = None if b is None else _torch(b)
        strides, dilations = (settings[key] or [1] * dims for key in ("strides", "dilations"))
        return (function(padded, _torch(w), bias, strides, 0, dilations, settings["group"] or 1).numpy(),)


class ConvTranspose(OpRun):
    def _run(self, x: Array, w: Array, b: Array | None = None, **settings: Any) -> tuple[Array]:
        """The whole result, without pads, extended by `output_padding` and then cut."""
        dims = x.ndim - 2
        function = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[dims]
        pads, rest = settings["pads"] or [0] * 2 * dims, settings["output_padding"] or [0] * dims
        strides, dilations = (settings[key] or [1] * dims for key in ("strides", "dilations"))
        made = function(_torch(x), _torch(w), None, strides, 0, 0, settings["group"] or 1, dilations).numpy()
        made = np.pad(made, [(0, 0), (0, 0), *((0, n) for n in rest)])
        cut = [slice(pads[i], n - pads[dims + i]) for i, n in enumerate(made.shape[2:])]
        made = made[(slice(None), slice(None), *cut)]
        return (made if b is None else made + b.reshape(-1, *[1] * dims),)


class MaxPool(OpRun):
    def _run(self, x: Array, **settings: Any) -> tuple[Array, ...]:
        """The reference implementation's indices are wrong for some kernels."""
        assert not settings["ceil_mode"]
        assert not settings["storage_order"]
        dims = x.ndim - 2
        function = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[dims]
        pads = settings["pads"] or [0] * 2 * dims
        strides, dilations = (settings[key] or [1] * dims for key in ("strides", "dilations"))
        padded = F.pad(_torch(x), _sides(pads), value=-np.inf)
        y, where = function(padded, settings["kernel_shape"], strides, 0, dilations, return_indices=True)
        # from an index in a padded plane to one in the whole of X
        places = np.unravel_index(where.numpy(), padded.shape[2:])
        inner = np.ravel_multi_index([p - pads[i] for i, p in enumerate(places)], x.shape[2:])
        planes = np.arange(len(x) * x.shape[1]).reshape(*x.shape[:2], *[1] * dims)
        return (y.numpy(), inner + planes * int(np.prod(x.shape[2:])))[: len(self.onnx_node.output)]


class Pad(OpRun):
    def _run(
        self, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None, **settings: Any
    ) -> tuple[Array]:
        """The reference implementation knows no negative pads."""
        assert axes is None
        assert settings["mode"] in (None, "constant")
        sides = pads.reshape(2, -1).T
        cut = tuple(slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(x.shape, sides, strict=True))
        return (np.pad(x[cut], np.maximum(sides, 0), constant_values=0 if value is None else value.item()),)


class Erf(OpRun):
    def _run(self, x: Array) -> tuple[Array]:
        return (torch.erf(_torch(x)).numpy(),)


class ScatterElements(OpRun):
    def _run(self, x: Array, indices: Array, updates: Array, **settings: Any) -> tuple[Array]:
        assert settings["reduction"] == "add"
        return (_torch(x).scatter_add(settings["axis"] or 0, _torch(indices), _torch(updates)).numpy(),)


def run(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """Run a graph with every float32 value as float64; its constants keep the values that float32 gave them."""
    for operator in OPERATORS:
        operator.op_domain = ""
    evaluator = ReferenceEvaluator(_widened(model), new_ops=OPERATORS)
    return [np.asarray(x) for x in evaluator.run(None, {name: widened(x) for name, x in inputs.items()})]


def widened(array: Array) -> Array:
    """Return a float32 array as float64, and any other as it is."""
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(widened(numpy_helper.to_array(tensor)), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(numpy_helper.from_array(widened(numpy_helper.to_array(attribute.t))))
    return result


def _sides(pads: Sequence[int]) -> list[int]:
    """Return ONNX's pads as torch takes them: the last axis first."""
    dims = len(pads) // 2
    return [pads[i + side] for i in reversed(range(dims)) for side in (0, dims)]


def _torch(array: Array) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(array))


OPERATORS: Sequence[Any] = (Conv, ConvTranspose, Erf, MaxPool, Pad, ScatterElements)
