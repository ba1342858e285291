"""What a rule works with: values to look up, and nodes to add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from edgetl import defaults
from edgetl.graphs import node_inputs
from edgetl.preparation.aside import array_of

Array: TypeAlias = NDArray[Any]
Dim: TypeAlias = int | str | None  # known, named (equal names are equal sizes), unknown
Shape: TypeAlias = tuple[Dim, ...]
Operand: TypeAlias = str | float | Array | Sequence[int] | None

# the outputs that a rule made, in the node's order; None leaves the node as it is
Rule: TypeAlias = Callable[[onnx.NodeProto, "Builder"], str | Sequence[str] | None]

FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


class Unsupported(Exception):
    """A rule does not know this form of its operator; the message says which."""


class Builder:
    """Adds nodes to a graph and knows the shapes, constants and gradient path of the graph it started from.

    `op.Mul(x, 2.0)` adds a `Mul` node and returns the name of its output. An operand is the name
    of a value, a float (a scalar constant), an array (a constant), a sequence of ints (a constant
    `[n] int64`) or None (an omitted input). Keyword arguments are attributes.

    Attributes:
        nodes: what has been added.
        initializers: the constants that have been added.
        producers: the node of the original graph that makes each value.
        carries: the values through which a gradient flows from the output to a trainable parameter.
    """

    def __init__(self, model: onnx.ModelProto, trainable: Sequence[str]) -> None:
        graph = model.graph
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self._taken |= {value.name for part in (graph.input, graph.output, graph.initializer) for value in part}
        self._read = {name for node in graph.node for name in node_inputs(node)}
        self._by_content: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.producers = {output: node for node in graph.node for output in node.output if output}
        self._frozen = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in trainable}
        self._constants: dict[str, Array | None] = {}
        self._types = _infer(model)
        self._stem = ""
        self.carries = self._gradient_path(graph, trainable)

    # looking up

    def shape(self, name: str) -> Shape:
        """Return a value's shape.

        Raises:
            Unsupported: not even its rank is known.
        """
        value = self._types.get(name)
        if value is None or not value.HasField("shape"):
            raise Unsupported(f"the rank of {name!r} is unknown")
        return tuple(_dim(dim) for dim in value.shape.dim)

    def rank(self, name: str) -> int | None:
        """Return a value's number of axes; None if it is unknown."""
        try:
            return len(self.shape(name))
        except Unsupported:
            return None

    def same_shape(self, a: str, b: str) -> bool:
        """Return whether two values certainly have the same shape."""
        if self.rank(a) is None or self.rank(a) != self.rank(b):
            return False
        return all(m == n and m is not None for m, n in zip(self.shape(a), self.shape(b), strict=True))

    def sizes(self, name: str, axes: Sequence[int]) -> tuple[int, ...]:
        """Return a value's sizes along `axes`.

        Raises:
            Unsupported: one of them varies or is unknown.
        """
        shape = self.shape(name)
        found = [shape[axis] for axis in axes]
        known = tuple(size for size in found if isinstance(size, int))
        if len(known) != len(found):
            raise Unsupported(f"{name!r} has no fixed size along axes {list(axes)}: {list(shape)}")
        return known

    def element_type(self, name: str) -> int:
        """Return a value's `TensorProto.DataType`; FLOAT where it is unknown."""
        value = self._types.get(name)
        return value.elem_type if value is not None and value.elem_type else TensorProto.FLOAT

    def constant(self, name: str) -> Array | None:
        """Return what a value always is; None if it depends on the input or on a trainable parameter."""
        if name not in self._constants:
            self._constants[name] = self._fold(name)
        return self._constants[name]

    def ints(self, name: str) -> list[int]:
        """Return the elements of a constant vector of ints.

        Raises:
            Unsupported: it is not constant.
        """
        value = self.constant(name)
        if value is None:
            raise Unsupported(f"{name!r} is not constant")
        return [int(item) for item in value.ravel()]

    def dims(self, name: str) -> list[Dim]:
        """Return the elements of a vector that is used as a shape, computed from the shapes of values or not."""
        value = self.constant(name)
        if value is not None:
            return [int(item) for item in value.ravel()]
        node = self.producers.get(name)
        if node is not None and node.op_type == "Concat":
            return [dim for part in node.input for dim in self.dims(part)]
        if node is not None and node.op_type == "Shape":
            return list(self.shape(node.input[0])[attribute(node, "start", 0) : attribute(node, "end", None)])
        return [None] * self.sizes(name, [0])[0]

    def axes(self, node: onnx.NodeProto, position: int, rank: int) -> list[int] | None:
        """Return the axes that are a node's input at `position`, counted from the front; None if omitted."""
        name = operand(node, position)
        return None if name is None else [axis % rank for axis in self.ints(name)]

    # adding

    def __getattr__(self, op_type: str) -> Callable[..., str]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)
        return partial(self.add, op_type)

    def add(self, op_type: str, *operands: Operand, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        return self.add_many(op_type, 1, *operands, **attributes)[0]

    def add_many(self, op_type: str, outputs: int, *operands: Operand, **attributes: Any) -> list[str]:
        """Add a node with any number of outputs and return their names."""
        names = [self._name(op_type) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, [self._operand(o) for o in operands], names, **attributes))
        return names

    def transposed(self, x: str, perm: list[int]) -> str:
        """Add a Transpose unless the axes stay in order."""
        return x if perm == sorted(perm) else self.add("Transpose", x, perm=perm)

    def replacing(self, node: onnx.NodeProto, rule: Rule) -> bool:
        """Add what `rule` makes of `node` under the names of its outputs, or the node itself; say which.

        Raises:
            Unsupported: the rule does; nothing is added.
        """
        kept = len(self.nodes)
        self._stem = node.output[0]
        try:
            made = rule(node, self)
        except Unsupported:
            del self.nodes[kept:]
            raise
        if made is None:
            self.nodes.append(node)
            return False
        names = [made] if isinstance(made, str) else list(made)
        if not self._read.isdisjoint(node.output[len(names) :]):
            del self.nodes[kept:]
            raise Unsupported("more than its first output is used")
        added = self.nodes[kept:]
        own = {output for item in added for output in item.output}
        renamed = {new: old for new, old in zip(names, node.output, strict=False) if new in own and old}
        for item in added:
            for values in (item.input, item.output):
                for i, name in enumerate(values):
                    values[i] = renamed.get(name, name)
        for new, old in zip(names, node.output, strict=False):
            if old and renamed.get(new) != old:
                self.nodes.append(helper.make_node("Identity", [renamed.get(new, new)], [old]))
        return True

    def _operand(self, value: Operand) -> str:
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        array = np.asarray(value, np.float32 if isinstance(value, float | int) else None)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._by_content:
            self._by_content[key] = self._name("constant")
            self.initializers.append(numpy_helper.from_array(array, self._by_content[key]))
        return self._by_content[key]

    def _name(self, suffix: str) -> str:
        name, count = f"{self._stem}_{suffix}", 2
        while name in self._taken:
            name, count = f"{self._stem}_{suffix}_{count}", count + 1
        self._taken.add(name)
        return name

    def _fold(self, name: str) -> Array | None:
        if name in self._frozen:
            return array_of(self._frozen[name])
        node = self.producers.get(name)
        if node is None or not node.input or any(a.HasField("g") or a.graphs for a in node.attribute):
            return None
        if node.op_type == "Shape":
            return self._fold_shape(node)
        inputs = {value: self.constant(value) for value in node.input if value}
        if any(value is None for value in inputs.values()):
            return None
        graph = helper.make_graph(
            [node],
            "constant",
            [onnx.ValueInfoProto(name=value) for value in inputs],
            [onnx.ValueInfoProto(name=name)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", defaults.OPSET)])
        try:
            (found,) = ReferenceEvaluator(model).run([name], inputs)
        except Exception:  # whatever an evaluator cannot do is simply not known to be constant
            return None
        return np.asarray(found)

    def _fold_shape(self, node: onnx.NodeProto) -> Array | None:
        try:
            shape = self.shape(node.input[0])
        except Unsupported:
            return None
        found = shape[attribute(node, "start", 0) : attribute(node, "end", None)]
        return np.array(found, np.int64) if all(isinstance(size, int) for size in found) else None

    def _gradient_path(self, graph: onnx.GraphProto, trainable: Sequence[str]) -> set[str]:
        """Return the float values that depend on a trainable parameter and on which an output depends."""
        reached = set(trainable)
        for node in graph.node:
            if reached.intersection(node_inputs(node)):
                reached.update(name for name in node.output if name and self.element_type(name) in FLOATS)
        needed = {output.name for output in graph.output}
        for node in reversed(graph.node):
            if needed.intersection(node.output):
                needed.update(reached.intersection(node_inputs(node)))
        return reached & needed


def operand(node: onnx.NodeProto, position: int) -> str | None:
    """Return the name of a node's input; None if it is omitted."""
    return node.input[position] if len(node.input) > position and node.input[position] else None


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return a node's attribute as a Python value (strings decoded)."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default


def attributes(node: onnx.NodeProto, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return a node's attributes but some."""
    return {a.name: attribute(node, a.name, None) for a in node.attribute if a.name not in without}


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    return int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or None


def _infer(model: onnx.ModelProto) -> Mapping[str, onnx.TypeProto.Tensor]:
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    found = {
        value.name: value.type.tensor_type
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.HasField("tensor_type")
    }
    for tensor in inferred.initializer:
        found[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
    return found
