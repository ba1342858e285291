"""MODEL.onnx: a classifier that is a graph already."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgetl import runtime
from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.graph import GraphIndex
from edgetl.preparation.simplify import simplify
from edgetl.preparation.sources.clean import clean

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


def load_onnx(file: Path, overrides: Mapping[str, Any]) -> tuple[onnx.ModelProto, tuple[str, ...], Preprocessing]:
    """Read an ONNX classifier with an input `[batch, channels, height, width]`.

    A fixed batch is made dynamic, and the result compared with the original on single pictures.

    Raises:
        ModelError: the file is not such a model.
    """
    from edgetl.preparation.sources import apply_overrides

    if not file.is_file():
        raise ModelError(f"{file} does not exist")
    try:
        original = onnx.load(file)
        onnx.checker.check_model(original)
    except Exception as error:  # protobuf, checker and external-data errors share no base
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{file} is not a valid ONNX model: {first}") from None
    model = clean(original)
    tensor = model.graph.input[0].type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    if tensor.elem_type != TensorProto.FLOAT or len(dims) != 4 or dims[1] not in (1, 3):
        raise ModelError(
            f"{file} takes {TensorProto.DataType.Name(tensor.elem_type)} {dims}; expected float pictures "
            "[batch, channels, height, width] with 1 or 3 channels"
        )
    fixed = {"size": (dims[2], dims[3])} if dims[2] and dims[3] else {}
    own = Preprocessing(channels=1, mean=(0.5,), std=(0.5,)) if dims[1] == 1 else Preprocessing()
    own = apply_overrides(own, {**fixed, **_given(overrides)})
    if fixed and (own.height, own.width) != (dims[2], dims[3]):
        raise ModelError(f"{file} takes pictures of {dims[2]}×{dims[3]} only, so --size cannot change them")
    tensor.shape.dim[2].dim_value, tensor.shape.dim[3].dim_value = own.height, own.width
    _free_batch(model.graph)
    parameters = find_parameters(model.graph)
    model = clean(simplify(model, parameters))
    _compare(file, original, model, own)
    left = {item.name for item in model.graph.initializer}
    return model, tuple(name for name in parameters if name in left), own


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


def _given(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if value is not None}


def _free_batch(graph: onnx.GraphProto) -> None:
    """Let Reshape keep a batch of any size where the file was written for one picture."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if len(shape) > 1 and shape[0] == 1:
            shape[0] = 0 if -1 in shape else -1
            name = f"{node.output[0]}_shape"
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name


def _compare(file: Path, original: onnx.ModelProto, model: onnx.ModelProto, own: Preprocessing) -> None:
    pictures = np.random.default_rng(0).standard_normal((2, own.channels, own.height, own.width)).astype(np.float32)
    try:
        before = runtime.open_session(file)
        name = before.get_inputs()[0].name
        expected = [before.run(None, {name: picture[None]})[0] for picture in pictures]
        after = runtime.open_session(model.SerializeToString())
        found = after.run(None, {model.graph.input[0].name: pictures})[0]
    except Exception as error:  # onnxruntime raises bare classes of its own
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{file} does not run on a batch of pictures: {first}") from None
    reference = np.concatenate(expected)
    if found.shape != reference.shape or not np.allclose(found, reference, rtol=1e-3, atol=1e-4):
        raise ModelError(f"{file} was written for one picture at a time, and its batch cannot be made dynamic")
