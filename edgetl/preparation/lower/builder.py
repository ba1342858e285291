"""What a rule works with: `decompose`'s builder, which knows the graph's values from having seen them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto

from edgetl.preparation.decompose.builder import Array, Builder, Dim, Shape, Unsupported
from edgetl.preparation.lower.observe import Value


class Lowering(Builder):
    """A `Builder` over observed values; sizes that grow with the batch have names (`batch`, `49*batch`)."""

    def __init__(self, model: onnx.ModelProto, values: Mapping[str, Value]) -> None:
        super().__init__(model, ())
        self._values = values

    def shape(self, name: str) -> Shape:
        """Return a value's shape; see `Builder.shape`."""
        if name not in self._values:
            raise Unsupported(f"the shape of {name!r} is unknown")
        return self._values[name].shape

    def element_type(self, name: str) -> int:
        """Return a value's `TensorProto.DataType`; FLOAT where it is unknown."""
        return self._observed[name].element_type if name in self._observed else TensorProto.FLOAT

    def constant(self, name: str) -> Array | None:
        """Return what a value always is; None if it depends on an input, a parameter or the batch."""
        return self._observed[name].constant if name in self._observed else None

    def dims(self, name: str) -> list[Dim]:
        """Return the elements of a vector that is used as a shape; see `Builder.dims`."""
        value = self._observed.get(name)
        if value is not None and value.elements is not None:
            return list(value.elements)
        return super().dims(name)

    @property
    def _observed(self) -> Mapping[str, Value]:
        # the base class asks for types before there are values
        return getattr(self, "_values", None) or {}


def unbroadcast(op: Builder, value: str, shape: Shape, target: Shape) -> str:
    """Sum `value` of `shape` over the axes along which a tensor of shape `target` was broadcast to it."""
    added = len(shape) - len(target)
    axes = [axis for axis, size in enumerate(shape) if axis >= added and target[axis - added] == 1 and size != 1]
    if axes:
        value = op.ReduceSum(value, axes, keepdims=1)
    return op.ReduceSum(value, list(range(added)), keepdims=0) if added else value
