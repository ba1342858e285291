"""Find the classifier in a graph and put one with another number of classes in its place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.preparation.graph import GraphIndex, prune

BATCH_LOGITS = "batch_logits"

# between the classifier and the output: what does not change which class wins, or only the shape
_PASSED_OVER = {"Softmax", "LogSoftmax", "Identity", "Flatten", "Reshape", "Squeeze", "Dropout", "Cast"}


@dataclass(frozen=True)
class Network:
    """A classifier graph and the names of the parameters of its head."""

    model: onnx.ModelProto
    head: tuple[str, ...]


@dataclass(frozen=True)
class _Classifier:
    """The value that enters the classifier, its number of features, and its parameters' names."""

    input: str
    features: int
    weight: str
    bias: str


def replace_head(model: onnx.ModelProto, classes: int) -> Network:
    """Return the network with a new head: flatten, then `Gemm` to `classes` logits named `batch_logits`.

    The new weight `[classes, features]` and bias `[classes]` are zero: all classes are equally
    likely before the first step, and the result does not depend on a random draw. They keep the
    names of the old ones where those are names of a module's parameters.

    Raises:
        ModelError: no classifier is recognisable.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    found = _find(graph)
    flat = f"{found.input}_flat"
    graph.node.extend(
        [
            helper.make_node("Flatten", [found.input], [flat], axis=1),
            helper.make_node("Gemm", [flat, found.weight, found.bias], [BATCH_LOGITS], transB=1),
        ]
    )
    kept = [tensor for tensor in graph.initializer if tensor.name not in (found.weight, found.bias)]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros((classes, found.features), np.float32), found.weight),
            numpy_helper.from_array(np.zeros(classes, np.float32), found.bias),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(BATCH_LOGITS, TensorProto.FLOAT, ["batch", classes]))
    prune(graph)
    return Network(result, (found.weight, found.bias))


def _find(graph: onnx.GraphProto) -> _Classifier:
    if len(graph.output) != 1:
        names = ", ".join(output.name for output in graph.output)
        raise ModelError(f"the model has {len(graph.output)} outputs ({names}), so its classifier is ambiguous")
    index = GraphIndex(graph)
    name = graph.output[0].name
    bias: str | None = None
    while (node := index.producer.get(name)) is not None:
        if node.op_type in _PASSED_OVER:
            name = node.input[0]
        elif node.op_type == "Add" and bias is None and (constant := _constant_side(node, index)):
            bias = constant
            name = next(value for value in node.input if value != constant)
        elif found := _as_classifier(node, bias, index):
            return found
        else:
            break
    made_by = f"made by {node.op_type}" if node is not None else "not computed at all"
    raise ModelError(
        f"no classifier is recognisable: the output {graph.output[0].name!r} is {made_by} where a linear layer "
        "(Linear, or a 1×1 convolution on a 1×1 map) was expected; give a classification model"
    )


def _constant_side(node: onnx.NodeProto, index: GraphIndex) -> str | None:
    return next((value for value in node.input if value in index.initializers), None)


def _as_classifier(node: onnx.NodeProto, bias: str | None, index: GraphIndex) -> _Classifier | None:
    """Return the classifier if `node` is a linear layer with constant weights."""
    if node.op_type not in ("Gemm", "MatMul", "Conv") or len(node.input) < 2:
        return None
    weight = index.initializers.get(node.input[1])
    if weight is None:
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    shape = index.shape(node.input[0])
    if node.op_type == "Gemm":
        if attributes.get("transA", 0):
            return None
        features = weight.dims[1] if attributes.get("transB", 0) else weight.dims[0]
        bias = bias or (node.input[2] if len(node.input) > 2 else None)
    elif node.op_type == "MatMul":
        if len(weight.dims) != 2 or shape is None or any(size != 1 for size in shape[1:-1]):
            return None
        features = weight.dims[0]
    else:
        if any(size != 1 for size in weight.dims[2:]) or attributes.get("group", 1) != 1:
            return None
        if shape is None or any(size != 1 for size in shape[2:]):
            return None
        features = weight.dims[1]
        bias = bias or (node.input[2] if len(node.input) > 2 else None)
    # a module's parameters have dotted names; others get one that says what they are
    own = node.input[1].endswith(".weight")
    stem = node.input[1].removesuffix(".weight") if own else "head"
    return _Classifier(node.input[0], int(features), f"{stem}.weight", f"{stem}.bias")
