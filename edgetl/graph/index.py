"""Looking things up in a graph."""

from __future__ import annotations

import onnx
from onnx import helper, shape_inference

from edgetl.artifacts import TensorSpec
from edgetl.graph.build import make_model


def graph_inputs(graph: onnx.GraphProto) -> tuple[TensorSpec, ...]:
    """Return a graph's inputs for one sample, with -1 for what is not fixed behind the batch axis."""
    return tuple(
        TensorSpec(
            value.name,
            tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim[1:]),
            helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
        )
        for value in graph.input
    )


class GraphIndex:
    """Producers, initializers and (inferred) shapes of a graph, by value name.

    Args:
        model: whose graph it is; needed where its operators are not those of edgetl's opset.
    """

    def __init__(self, graph: onnx.GraphProto, model: onnx.ModelProto | None = None) -> None:
        self.producer = {output: node for node in graph.node for output in node.output if output}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._graph, self._model = graph, model
        self._shapes: dict[str, tuple[int | None, ...]] | None = None

    def constant(self, name: str) -> onnx.TensorProto | None:
        """Return the initializer that `name` is, perhaps copied, cast or transposed; None if it is computed."""
        while (node := self.producer.get(name)) is not None and node.op_type in ("Identity", "Transpose", "Cast"):
            name = node.input[0]
        return self.initializers.get(name)

    def is_transposed(self, name: str) -> bool:
        """Return whether an odd number of transpositions lies between `name` and its initializer."""
        odd = False
        while (node := self.producer.get(name)) is not None and node.op_type in ("Identity", "Transpose", "Cast"):
            odd ^= node.op_type == "Transpose"
            name = node.input[0]
        return odd

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return a value's shape, with None for what is not known; None if nothing is."""
        if self._shapes is None:
            self._shapes = _infer(self._model or make_model(self._graph))
        return self._shapes.get(name)


def _infer(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    inferred = shape_inference.infer_shapes(model).graph
    shapes = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    return shapes
