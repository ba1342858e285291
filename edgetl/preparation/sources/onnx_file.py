"""MODEL.onnx: a classifier that is a graph already."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper

from edgetl import runtime
from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.graph import GraphIndex
from edgetl.preparation.simplify import simplify
from edgetl.preparation.sources.batch import check_batch, free_batch
from edgetl.preparation.sources.clean import clean
from edgetl.preparation.sources.layout import simplify_layout
from edgetl.preparation.sources.overrides import of_file
from edgetl.preparation.sources.quiet import first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ELEMENTWISE = {"Add", "Mul"}
_WEIGHT_OPERANDS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "Add": (0, 1),
    "Mul": (0, 1),
}


def load(file: Path, overrides: Mapping[str, Any]) -> tuple[onnx.ModelProto, tuple[str, ...], Preprocessing]:
    """Read an ONNX classifier with an input `[batch, channels, height, width]` or `[batch, height, width, channels]`.

    The result takes channels first and any batch, and is compared with the original on single
    pictures.

    Raises:
        ModelError: the file is not such a model.
    """
    try:
        original = onnx.load(file)  # onnx itself refuses external data outside of the file's directory
        onnx.checker.check_model(original)
    except Exception as error:  # protobuf, checker and external-data errors share no base
        raise ModelError(f"{file} is not a valid ONNX model: {first_line(error)}") from None
    model = clean(original)
    batch, dims = _input_dims(original), _input_dims(model)
    last = len(dims) == 4 and dims[1] not in (1, 3) and dims[3] in (1, 3)
    channels, height, width = (dims[3], *dims[1:3]) if last else (*dims[1:4], 0, 0, 0)[:3]
    kind = model.graph.input[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT or len(dims) != 4 or channels not in (0, 1, 3):
        raise ModelError(
            f"{file} takes {TensorProto.DataType.Name(kind)} {dims}; expected float pictures "
            "[batch, channels, height, width] or [batch, height, width, channels] with 1 or 3 channels"
        )
    own = of_file(str(file), channels, height, width, overrides)
    _channels_first(model.graph, own, last)
    parameters = find_parameters(model.graph)
    model = simplify_layout(simplify(model, parameters))
    free_batch(model.graph, batch[0] or 1)
    model = clean(model)
    check_batch(str(file), model, own, batch[0] or 1, _original(file, model, last))
    left = {item.name for item in model.graph.initializer}
    return model, tuple(name for name in parameters if name in left), own


def _input_dims(model: onnx.ModelProto) -> list[int]:
    """Return the shape of the model's input, with 0 for what is not fixed."""
    weights = {tensor.name for tensor in model.graph.initializer}
    value = next(value for value in model.graph.input if value.name not in weights)
    return [d.dim_value if d.HasField("dim_value") else 0 for d in value.type.tensor_type.shape.dim]


def _channels_first(graph: onnx.GraphProto, own: Preprocessing, last: bool) -> None:
    """Fix the picture's size, and transpose it where the graph wants channels last."""
    name = graph.input[0].name
    if last:
        turned = f"{name}_nchw"
        graph.node.insert(0, helper.make_node("Transpose", [turned], [name], perm=[0, 2, 3, 1]))
        name = turned
    shape: list[str | int | None] = ["batch", own.channels, own.height, own.width]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _original(file: Path, model: onnx.ModelProto, last: bool) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """Return the file as a function; the cleaned model where this onnxruntime does not read the file's version."""
    try:
        session = runtime.open_session(file)
    except Exception:  # onnxruntime raises bare classes of its own
        session, last = runtime.open_session(model.SerializeToString()), False
    name = session.get_inputs()[0].name

    def run(pictures: NDArray[np.float32]) -> NDArray[Any]:
        scores: NDArray[Any] = session.run(None, {name: pictures.transpose(0, 2, 3, 1) if last else pictures})[0]
        return scores

    return run


def find_parameters(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the float initializers that are weights, in the order of their use.

    Those are: weights and biases of layers, scales and biases of normalisations, slopes, and any
    other tensor of more than one element that meets the data in Add or Mul (biases written as Add,
    layer scales, position embeddings).
    """
    index = GraphIndex(graph)
    found: dict[str, None] = {}
    for node in graph.node:
        least = 2 if node.op_type in _ELEMENTWISE else 1
        for i in _WEIGHT_OPERANDS.get(node.op_type, ()):
            tensor = index.constant(node.input[i]) if i < len(node.input) else None
            if tensor is not None and tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= least:
                found[tensor.name] = None
    return tuple(found)
