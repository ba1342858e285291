"""Find the classifier in a graph and put one with another number of classes in its place.

From the output backwards, what does not change which class wins is passed over (Softmax, Flatten,
Dropout …). The linear layer behind it is the classifier: Gemm, MatMul with or without Add, or a
convolution with a 1×1 kernel. Pooling after it is kept (SqueezeNet pools scores), and so is the
average of two classifiers (distilled DeiT), both of which are replaced.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts import BATCH_LOGITS, Head
from edgetl.errors import ModelError
from edgetl.graphs import prune
from edgetl.preparation.graph import GraphIndex

_PASSED_OVER = {"Softmax", "LogSoftmax", "Identity", "Flatten", "Reshape", "Squeeze", "Dropout", "Cast"}
_KEPT = {"Relu", "GlobalAveragePool", "AveragePool", "ReduceMean"}
_COMBINING = {"Add", "Sum", "Mean", "Mul", "Div"}


@dataclass(frozen=True)
class Network:
    """A classifier graph, its parameters (what could train, in the order of the source) and those of its head."""

    model: onnx.ModelProto
    parameters: tuple[str, ...]
    head: tuple[str, ...]


@dataclass(frozen=True)
class _Classifier:
    """A linear layer.

    Attributes:
        node: the Gemm, MatMul or Conv.
        end: the value that holds its scores, bias included.
        features: number of inputs of the layer.
        stem: the new parameters are `{stem}.weight` and `{stem}.bias`.
        rank: of its input; None if not known.
        single: the input has one position only (not a map or a sequence of them).
    """

    node: onnx.NodeProto
    end: str
    features: int
    stem: str
    rank: int | None
    single: bool


def replace_head(
    model: onnx.ModelProto, classes: int, parameters: tuple[str, ...] = (), head: str | None = None
) -> Network:
    """Return the network with a new head and one output, `batch_logits` `[batch, classes]`.

    The new weights are zero: all classes are equally likely before the first step, and the result
    does not depend on a random draw. They keep the old names where those are a module's.

    Args:
        parameters: names of the initializers that could train.
        head: name of the classifier (of its layer, its weight, or the output it makes) where the
            graph alone does not tell.

    Raises:
        ModelError: no classifier is recognisable, or several are; the message lists them.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    index = GraphIndex(graph)
    output, found = _find(graph, index, head)
    names: list[str] = []
    for classifier in found:
        names.extend(_replace(graph, classifier, classes))
    alone = len(found) == 1 and found[0].single
    _end(graph, f"{found[0].end}/new" if alone else _follow(graph, index, output, found), classes)
    left = {tensor.name for tensor in graph.initializer}
    kept = [name for name in parameters if name in left and name not in names]
    return Network(result, (*kept, *names), tuple(names))


def linear_head(network: Network, trainable: onnx.ModelProto) -> Head | None:
    """Return the new head as a part of `trainable.onnx`; None if it is more than one linear layer at its end."""
    for node in trainable.graph.node:
        if BATCH_LOGITS in node.output and node.op_type == "Gemm" and tuple(node.input[1:]) == network.head:
            return Head(node.input[1], node.input[2], node.input[0])
    return None


def _find(graph: onnx.GraphProto, index: GraphIndex, head: str | None) -> tuple[str, list[_Classifier]]:
    """Return the output to keep and the classifiers that it combines."""
    per_output = {output.name: _candidates(output.name, index) for output in graph.output}
    everything = [item for found in per_output.values() for item in found]
    listed = ", ".join(repr(item.stem) for item in everything) or "none"
    if head is not None:
        for output, found in per_output.items():
            chosen = [item for item in found if head in (item.stem, f"{item.stem}.weight", item.node.name, item.end)]
            if head == output:
                chosen = found
            if chosen:
                return (output, found) if len(chosen) == len(found) else (chosen[0].end, chosen)
        raise ModelError(f"--head {head!r} names no classifier of this network; those found: {listed}")
    if len(graph.output) == 1:
        output = graph.output[0].name
        if not per_output[output]:
            node = _last_node(output, index)
            made_by = f"made by {node.op_type}" if node is not None else "not computed at all"
            raise ModelError(
                f"no classifier is recognisable: the output {output!r} is {made_by} where a linear layer was "
                "expected; give a classification model, or name its last linear layer with --head"
            )
        return output, per_output[output]
    raise ModelError(
        f"the network has {len(graph.output)} outputs ({', '.join(per_output)}), so its classifier is ambiguous: "
        f"choose with --head, one of {listed}"
    )


def _last_node(name: str, index: GraphIndex) -> onnx.NodeProto | None:
    node = index.producer.get(name)
    while node is not None and node.op_type in _PASSED_OVER:
        node = index.producer.get(node.input[0])
    return node


def _candidates(name: str, index: GraphIndex) -> list[_Classifier]:
    """All classifiers that the value `name` combines; empty as soon as one branch has none."""
    node = index.producer.get(name)
    if node is None:
        return []
    if found := _as_classifier(node, name, index):
        return [found]
    if node.op_type in _PASSED_OVER | _KEPT:
        return _candidates(node.input[0], index)
    if node.op_type in _COMBINING:
        branches = [value for value in node.input if index.constant(value) is None]
        per_branch = [_candidates(value, index) for value in branches]
        return [item for found in per_branch for item in found] if all(per_branch) else []
    return []


def _as_classifier(node: onnx.NodeProto, end: str, index: GraphIndex) -> _Classifier | None:
    """Return the classifier if `node` is a linear layer, or the Add of its bias."""
    if node.op_type == "Add":
        for value, other in (node.input, reversed(node.input)):
            inner = index.producer.get(value)
            bias = index.constant(other)
            if inner is None or bias is None or inner.op_type != "MatMul" or len(bias.dims) != 1:
                continue
            if found := _as_classifier(inner, value, index):
                stem = other.removesuffix(".bias") if found.stem == "head" and other.endswith(".bias") else found.stem
                return _Classifier(inner, end, found.features, stem, found.rank, found.single)
        return None
    if node.op_type not in ("Gemm", "MatMul", "Conv") or len(node.input) < 2:
        return None
    weight = index.constant(node.input[1])
    if weight is None:
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    shape = index.shape(node.input[0])
    rank = len(shape) if shape is not None else None
    turned = index.is_transposed(node.input[1])
    if node.op_type == "Conv":
        if any(size != 1 for size in weight.dims[2:]) or attributes.get("group", 1) != 1:
            return None
        features, single = weight.dims[1], shape is not None and all(size == 1 for size in shape[2:])
    elif len(weight.dims) != 2 or attributes.get("transA", 0):
        return None
    else:
        features = weight.dims[1 if bool(attributes.get("transB", 0)) != turned else 0]
        single = node.op_type == "Gemm" or (shape is not None and all(size == 1 for size in shape[1:-1]))
    stem = weight.name.removesuffix(".weight") if weight.name.endswith(".weight") else "head"
    return _Classifier(node, end, int(features), stem, rank, single)


def _replace(graph: onnx.GraphProto, classifier: _Classifier, classes: int) -> tuple[str, str]:
    """Add the new layer, whose scores are `{end}/new`, and its parameters."""
    weight, bias = f"{classifier.stem}.weight", f"{classifier.stem}.bias"
    source, target = classifier.node.input[0], f"{classifier.end}/new"
    shape: tuple[int, ...] = (classes, classifier.features)
    if classifier.single:
        flat = f"{classifier.end}/flat"
        graph.node.append(helper.make_node("Flatten", [source], [flat], axis=1))
        graph.node.append(helper.make_node("Gemm", [flat, weight, bias], [target], transB=1))
    elif classifier.node.op_type == "Conv":
        shape = (*shape, *[1] * ((classifier.rank or 4) - 2))
        node = helper.make_node("Conv", [source, weight, bias], [target])
        # strides and padding of the old layer; only its channels change
        node.attribute.extend(attribute for attribute in classifier.node.attribute)
        graph.node.append(node)
    else:
        scores, turned = f"{classifier.end}/scores", f"{classifier.end}/weight"
        graph.node.append(helper.make_node("Transpose", [weight], [turned], perm=[1, 0]))
        graph.node.append(helper.make_node("MatMul", [source, turned], [scores]))
        graph.node.append(helper.make_node("Add", [scores, bias], [target]))
    others = [tensor for tensor in graph.initializer if tensor.name not in (weight, bias)]
    del graph.initializer[:]
    graph.initializer.extend(others)
    graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), weight))
    graph.initializer.append(numpy_helper.from_array(np.zeros(classes, np.float32), bias))
    return weight, bias


def _follow(graph: onnx.GraphProto, index: GraphIndex, output: str, found: list[_Classifier]) -> str:
    """Repeat what lies between the classifiers and the output, but for what is passed over, on the new scores."""
    renamed = {item.end: f"{item.end}/new" for item in found}

    def follow(name: str) -> str:
        if name in renamed or index.constant(name) is not None:
            return renamed.get(name, name)
        node = index.producer[name]
        if node.op_type in _PASSED_OVER:
            renamed[name] = follow(node.input[0])
            return renamed[name]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = ""
        for i, value in enumerate(node.input):
            copy.input[i] = follow(value) if value else value
        for i, value in enumerate(node.output):
            copy.output[i] = f"{value}/new"
        graph.node.append(copy)
        renamed[name] = f"{name}/new"
        return renamed[name]

    return follow(output)


def _end(graph: onnx.GraphProto, scores: str, classes: int) -> None:
    """Make `scores`, flattened, the only output, and drop what no longer leads to it."""
    graph.node.append(helper.make_node("Flatten", [scores], [BATCH_LOGITS], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(BATCH_LOGITS, TensorProto.FLOAT, ["batch", classes]))
    if graph.node[-2].output[0] == scores and graph.node[-2].op_type == "Gemm":
        graph.node[-2].output[0] = BATCH_LOGITS
        del graph.node[-1]
    prune(graph)
