"""What a rule works with: `decompose`'s builder, which knows the graph's values from having seen them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto

from edgetl.graph.rewrite import Array, Builder, Dim, Shape, Unsupported
from edgetl.graph.values import Value


class Lowering(Builder):
    """A `Builder` over observed values; sizes that grow with the batch have names (`batch`, `49*batch`)."""

    def __init__(self, model: onnx.ModelProto, values: Mapping[str, Value]) -> None:
        self._values = values
        super().__init__(model, ())

    def shape(self, name: str) -> Shape:
        """Return a value's shape; see `Builder.shape`."""
        if name not in self._values:
            raise Unsupported(f"the shape of {name!r} is unknown")
        return self._values[name].shape

    def element_type(self, name: str) -> int:
        """Return a value's `TensorProto.DataType`; FLOAT where it is unknown."""
        return self._values[name].element_type if name in self._values else TensorProto.FLOAT

    def constant(self, name: str) -> Array | None:
        """Return what a value always is; None if it depends on an input, a parameter or the batch."""
        return self._values[name].constant if name in self._values else None

    def dims(self, name: str) -> list[Dim]:
        """Return the elements of a vector that is used as a shape; see `Builder.dims`."""
        value = self._values.get(name)
        if value is not None and value.elements is not None:
            return list(value.elements)
        return super().dims(name)


def unbroadcast(op: Builder, value: str, shape: Shape, target: Shape) -> str:
    """Sum `value` of `shape` over the axes along which a tensor of shape `target` was broadcast to it."""
    added = len(shape) - len(target)
    axes = [axis for axis in range(added, len(shape)) if target[axis - added] == 1 and shape[axis] != 1]
    if axes:
        value = op.ReduceSum(value, axes, keepdims=1)
    return op.ReduceSum(value, list(range(added)), keepdims=0) if added else value
