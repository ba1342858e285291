"""Find the classifier in a graph and put one with another number of classes in its place.

Backwards from an output, what computes scores or labels from scores alone is passed over: activations,
Softmax, scaling, views, pooling over positions, decisions such as ArgMax. The linear layers behind it
are the classifier: Gemm, MatMul, or a convolution whose kernel has one position or covers the map.

The new head is one linear layer at the end of the graph. What was passed over is left out, because it
may let no gradient through where a new head starts: ReLU at zero, the product of two scores that are
zero. Positions that were pooled behind the old layer (SqueezeNet pools scores) are pooled before the
new one: the mean of linear scores is the score of the mean. Several layers whose scores are combined
(distilled DeiT) become one that reads the features of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgetl.artifacts import BATCH_LOGITS, Head
from edgetl.errors import ModelError
from edgetl.graphs import make_model, node_inputs, prune
from edgetl.preparation.graph import GraphIndex, graph_inputs
from edgetl.preparation.run import draw, shapes_of, walk
from edgetl.suggest import did_you_mean

# fmt: off
_ELEMENTWISE = {
    "Abs", "Add", "BatchNormalization", "Cast", "CastLike", "Celu", "Clip", "DequantizeLinear", "Div", "Dropout", "Elu",
    "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mish",
    "Mul", "Neg", "PRelu", "Pow", "QuantizeLinear", "Reciprocal", "Relu", "Selu", "Shrink", "Sigmoid", "Softplus",
    "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where",
}
_ACROSS_CLASSES = {"LogSoftmax", "Softmax"}
_VIEWS = {"Concat", "Flatten", "Gather", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
_MEANS = {"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"}
_MAXIMA = {"GlobalMaxPool", "MaxPool", "ReduceLogSumExp", "ReduceMax"}
_DECISIONS = {
    "And", "ArgMax", "ArgMin", "Ceil", "Compress", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "Less",
    "LessOrEqual", "NonZero", "Not", "OneHot", "Or", "Round", "Sign", "TopK", "Xor",
    # of ai.onnx.ml: from indices to labels, from probabilities to dictionaries
    "ArrayFeatureExtractor", "Binarizer", "CategoryMapper", "LabelEncoder", "Normalizer", "ZipMap",
}
# fmt: on
_PASSED_OVER = _ELEMENTWISE | _ACROSS_CLASSES | _VIEWS | _MEANS | _MAXIMA | _DECISIONS
_STANDARD = ("", "ai.onnx", "ai.onnx.ml")
_SAME_CONTENT = {"Dropout", "Flatten", "Identity"}
_MOST_LISTED = 6


@dataclass(frozen=True)
class Network:
    """A classifier graph, its parameters (what could train, in the order of the source) and those of its head."""

    model: onnx.ModelProto
    parameters: tuple[str, ...]
    head: tuple[str, ...]


@dataclass(frozen=True)
class _Way:
    """What lies between a value and the linear layers that it is computed from.

    Attributes:
        layers: their nodes, in the graph's order; empty if something else is in the way.
        passed: the operators in between.
        decided: the values from which decisions in between are made.
        blocked: what is in the way; None for an input of the graph.
    """

    layers: tuple[onnx.NodeProto, ...]
    passed: frozenset[str]
    decided: tuple[str, ...] = ()
    blocked: onnx.NodeProto | None = None


class _Reader(GraphIndex):
    """Finds linear layers in a graph of any opset.

    Attributes:
        data: the values that the content of the inputs reaches, and not only their shape.
    """

    def __init__(self, graph: onnx.GraphProto, model: onnx.ModelProto | None = None) -> None:
        super().__init__(graph, model)
        self.nodes = list(graph.node)
        self.data = {value.name for value in graph.input} - self.initializers.keys()
        for node in self.nodes:
            if node.op_type not in ("Shape", "Size") and not self.data.isdisjoint(node_inputs(node)):
                self.data.update(output for output in node.output if output)
        self.layers = [node for node in self.nodes if self._is_linear(node)]

    def behind(self, value: str) -> _Way:
        """Go back from a value to the linear layers behind it."""
        layers: set[str] = set()
        passed: set[str] = set()
        decided: dict[str, None] = {}
        blocked: onnx.NodeProto | None = None
        is_blocked = False
        linear = {node.output[0] for node in self.layers}
        seen: set[str] = set()
        stack = [value]
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            node = self.producer.get(name)
            if name in linear:
                layers.add(name)
            elif node is None or node.op_type not in _PASSED_OVER or node.domain not in _STANDARD:
                blocked = node if not is_blocked else blocked
                is_blocked = True
            else:
                inputs = [item for item in node_inputs(node) if item in self.data]
                passed.add(node.op_type)
                decided.update(dict.fromkeys(inputs if node.op_type in _DECISIONS else ()))
                stack.extend(inputs)
        if not is_blocked and len(layers) > 1 and ("Concat" in passed or self._feed_each_other(layers)):
            is_blocked, blocked = True, self._joint(value)
        ordered = tuple(node for node in self.layers if node.output[0] in layers)
        return _Way(() if is_blocked else ordered, frozenset(passed), tuple(decided), blocked)

    def ahead(self, layer: onnx.NodeProto) -> _Way:
        """Go forward from a linear layer through what can be passed over."""
        reached, passed = {layer.output[0]}, set()
        for node in self.nodes:
            if node.op_type in _PASSED_OVER and not reached.isdisjoint(node.input):
                passed.add(node.op_type)
                reached.update(node.output)
        return _Way((layer,), frozenset(passed))

    def feeds(self, earlier: Sequence[onnx.NodeProto], later: Sequence[onnx.NodeProto]) -> bool:
        """Return whether one of the later layers is computed from an earlier one's scores."""
        wanted = {node.output[0] for node in earlier}
        stack = [node.input[0] for node in later]
        seen: set[str] = set()
        while stack:
            name = stack.pop()
            if name in wanted:
                return True
            if name not in seen and name in self.producer:
                seen.add(name)
                stack.extend(node_inputs(self.producer[name]))
        return False

    def weight(self, layer: onnx.NodeProto) -> str:
        """Return the name of the initializer that a layer's weight is, or is computed from."""
        name: str = layer.input[1]
        while name not in self.initializers and (node := self.producer.get(name)) is not None and node.input:
            name = node.input[0]
        return name

    def label(self, layer: onnx.NodeProto) -> str:
        """Return what people call a layer: its module, or its node, or its weight."""
        weight = self.weight(layer)
        return weight.removesuffix(".weight") if weight.endswith(".weight") else layer.name or weight

    def names(self, layer: onnx.NodeProto) -> set[str]:
        """Return everything that may stand for a layer in `--head`."""
        added = {
            name
            for node in self.nodes
            if node.op_type == "Add" and layer.output[0] in node.input
            for name in (*node.input, *node.output)
        }
        label = self.label(layer)
        return {label, f"{label}.weight", self.weight(layer), layer.name, *layer.input[1:], *layer.output, *added} - {
            ""
        }

    def _is_linear(self, node: onnx.NodeProto) -> bool:
        """Return whether a node is a linear layer with a weight of its own; a convolution if its kernel allows."""
        if node.domain not in _STANDARD or node.op_type not in ("Gemm", "MatMul", "Conv") or len(node.input) < 2:
            return False
        if node.input[0] not in self.data or node.input[1] in self.data:
            return False
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        weight = self.constant(node.input[1])
        if node.op_type != "Conv":
            return not attributes.get("transA", 0) and (weight is None or len(weight.dims) == 2)
        if weight is None or attributes.get("group", 1) != 1:
            return False
        kernel = weight.dims[2:]
        return all(size == 1 for size in kernel) or self._covers(node, kernel)

    def _covers(self, node: onnx.NodeProto, kernel: Sequence[int]) -> bool:
        """Return whether a kernel lies on its whole map at once, without padding."""
        padded = any(item.name in ("pads", "auto_pad", "dilations") and _pads(item) for item in node.attribute)
        shape = self.shape(node.input[0])
        return not padded and shape is not None and list(shape[2:]) == list(kernel)

    def _feed_each_other(self, layers: set[str]) -> bool:
        found = [node for node in self.layers if node.output[0] in layers]
        return any(self.feeds([item], [other]) for item in found for other in found if item is not other)

    def _joint(self, value: str) -> onnx.NodeProto | None:
        """Return the last node behind a value that combines several."""
        node = self.producer.get(value)
        while node is not None and sum(name in self.data for name in node.input) == 1:
            node = self.producer.get(next(name for name in node.input if name in self.data))
        return node


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
    reader = _Reader(graph)
    way = _find(graph, reader, head)
    features, size = _features(graph, reader, way, named=head is not None)
    label = reader.label(way.layers[0]) if reader.weight(way.layers[0]).endswith(".weight") else "head"
    return _with_head(result, features, size, label, classes, parameters)


def append_head(
    model: onnx.ModelProto, classes: int, parameters: tuple[str, ...] = (), output: str | None = None
) -> Network:
    """Return the network with a new head behind its output, which are features; see `replace_head`.

    Args:
        output: name of the output, if there are several.

    Raises:
        ModelError: there are several outputs, or the output is not one vector for each sample.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    names = [value.name for value in graph.output]
    if output is None and len(names) > 1:
        raise ModelError(f"the network has {len(names)} outputs: choose the features with --head, one of {names}")
    if output is not None and output not in names:
        raise ModelError(f"--head {output!r} is not an output of the network: choose one of {names}")
    name = output or names[0]
    size = _vector(result, name)
    if size is None:
        raise ModelError(
            f"the output {name!r} is not one vector of numbers for each sample, so no head fits behind it: leave "
            "--append-head out, or give a network that pools its features"
        )
    flat = f"{name}/flat"
    graph.node.append(helper.make_node("Flatten", [name], [flat], axis=1))
    return _with_head(result, flat, size, "head", classes, parameters)


def features_output(model: onnx.ModelProto) -> str | None:
    """Return the only output of a network without classifier, if it is one vector for each sample; else None."""
    if len(model.graph.output) != 1:
        return None
    name: str = model.graph.output[0].name
    if _Reader(model.graph).behind(name).layers:
        return None
    return name if _vector(model, name) is not None else None


def _vector(model: onnx.ModelProto, output: str) -> int | None:
    """Return the length of an output that is one vector for each sample, perhaps with axes of size 1; else None."""
    seen = dict(walk(model, draw(graph_inputs(model.graph), _BATCH, length=_LENGTH)))[output]
    is_vector = seen.element_type == TensorProto.FLOAT and len(seen.shape) > 1 and seen.shape[0] == _BATCH
    size = math.prod(seen.shape[1:])
    return size if is_vector and size == max(seen.shape[1:]) > 1 else None


def _with_head(
    model: onnx.ModelProto, features: str, size: int, label: str, classes: int, parameters: tuple[str, ...]
) -> Network:
    """Give a graph a linear layer on the value `features`, `[batch, size]`, whose parameters are named by `label`."""
    graph = model.graph
    _set_outputs(graph, [onnx.ValueInfoProto(name=features)])
    prune(graph)
    left = {tensor.name for tensor in graph.initializer}
    stem = next(name for name in _numbered(label) if left.isdisjoint((f"{name}.weight", f"{name}.bias")))
    names = (f"{stem}.weight", f"{stem}.bias")
    for name, shape in zip(names, ((classes, size), (classes,)), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
    graph.node.append(helper.make_node("Gemm", [features, *names], [BATCH_LOGITS], transB=1))
    _set_outputs(graph, [helper.make_tensor_value_info(BATCH_LOGITS, TensorProto.FLOAT, ["batch", classes])])
    kept = [name for name in parameters if name in left and name not in names]
    return Network(model, (*kept, *names), names)


def linear_head(network: Network, trainable: onnx.ModelProto) -> Head | None:
    """Return the new head as a part of `trainable.onnx`; None if it is more than one linear layer at its end."""
    for node in trainable.graph.node:
        if BATCH_LOGITS in node.output and node.op_type == "Gemm" and tuple(node.input[1:]) == network.head:
            return Head(node.input[1], node.input[2], node.input[0])
    return None


def without_decisions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph of any opset with scores as outputs where labels, indices and dictionaries made of them were.

    What only these needed is dropped, with operators of other domains. So is an output behind such
    operators, if another one comes from a linear layer.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    reader = _Reader(graph, model)
    ways: dict[str, _Way] = {}
    pending = [output.name for output in graph.output]
    while pending:
        name = pending.pop(0)
        way = reader.behind(name)
        if way.decided:
            pending.extend(value for value in way.decided if value not in pending and value not in ways)
        else:
            ways.setdefault(name, way)
    if any(way.layers for way in ways.values()):
        ways = {name: way for name, way in ways.items() if way.blocked is None or way.blocked.domain in _STANDARD[:2]}
    if list(ways) == [output.name for output in graph.output]:
        return result
    known = {value.name: value for value in (*shape_inference.infer_shapes(model).graph.value_info, *graph.output)}
    float_ = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    outputs = [known.get(name) or onnx.ValueInfoProto(name=name, type=float_) for name in ways]
    # scores first: they are compared
    _set_outputs(graph, sorted(outputs, key=lambda value: not ways[value.name].layers))
    prune(graph)
    return result


def _find(graph: onnx.GraphProto, reader: _Reader, head: str | None) -> _Way:
    """Return the way to the layers that the new head replaces."""
    ways = {output.name: reader.behind(output.name) for output in graph.output}
    if head is not None:
        return _named(reader, ways, head)
    groups: dict[tuple[str, ...], _Way] = {}
    for way in ways.values():
        if way.layers:
            key = tuple(node.output[0] for node in way.layers)
            before = groups.get(key, way)
            groups[key] = _Way(way.layers, before.passed | way.passed)
    # features are an output too, perhaps, and made by a layer: the classifier comes last
    last = [way for way in groups.values() if not any(reader.feeds(way.layers, o.layers) for o in groups.values())]
    if len(last) == 1:
        return last[0]
    if last:
        listed = _listed(reader, [node for way in last for node in way.layers])
        raise ModelError(
            f"the network has {len(ways)} outputs ({', '.join(ways)}), so its classifier is ambiguous: choose with "
            f"--head, one of {listed}"
        )
    made = "; ".join(
        f"the output {name!r} is {_made_by(way.blocked or reader.producer.get(name))}" for name, way in ways.items()
    )
    raise ModelError(f"no classifier is recognisable: {made}, where a linear layer was expected; {_advice(reader)}")


def _named(reader: _Reader, ways: Mapping[str, _Way], head: str) -> _Way:
    """Return the way to the layer of a name, whatever lies between it and an output."""
    wanted = {head, f"{head}_"}  # what edgetl's own graphs call something is renamed so
    for name, way in ways.items():
        if name in wanted and way.layers:
            return way
    chosen = [layer for layer in reader.layers if not wanted.isdisjoint(reader.names(layer))]
    if len(chosen) > 1:
        exact = [layer for layer in chosen if head == reader.label(layer)]
        chosen = exact or chosen
    if not chosen:
        hint = did_you_mean(head, [name for layer in reader.layers for name in reader.names(layer)])
        raise ModelError(f"--head {head!r} names no linear layer of this network{hint or '; ' + _advice(reader)}")
    return reader.ahead(chosen[-1])


def _advice(reader: _Reader) -> str:
    if not reader.layers:
        return "it has no linear layer with weights of its own: give a classification model"
    return (
        "if a new head is to replace a layer and all that follows it, name the layer with --head, for example "
        f"{_listed(reader, reader.layers[::-1][:_MOST_LISTED])}"
    )


def _listed(reader: _Reader, layers: Sequence[onnx.NodeProto]) -> str:
    return ", ".join(dict.fromkeys(repr(reader.label(layer)) for layer in layers))


def _made_by(node: onnx.NodeProto | None) -> str:
    return "not computed" if node is None else f"made by {node.op_type} {node.name or node.output[0]!r}"


def _features(graph: onnx.GraphProto, reader: _Reader, way: _Way, *, named: bool) -> tuple[str, int]:
    """Add what brings the layers' inputs into the form `[batch, features]`; return its name and their number.

    Args:
        named: the layer was asked for by name, so its positions are averaged even if the network does not pool them.
    """
    sources: dict[str, onnx.NodeProto] = {}
    for layer in way.layers:
        origin = layer.input[0]
        while (node := reader.producer.get(origin)) is not None and node.op_type in _SAME_CONTENT:
            origin = node.input[0]
        sources.setdefault(origin, layer)
    layers = list(sources.values())
    inputs = [layer.input[0] for layer in layers]
    outputs = [layer.output[0] for layer in layers]
    shapes = shapes_of(make_model(graph), [*inputs, *outputs], draw(graph_inputs(graph), _BATCH, length=_LENGTH))
    found = []
    for layer in layers:
        x, y = shapes[layer.input[0]], shapes[layer.output[0]]
        pooled = "max" if way.passed & _MAXIMA and not way.passed & _MEANS else "mean"
        if not named and _positions(layer, y) > 1 and not way.passed & (_MEANS | _MAXIMA):
            raise ModelError(
                f"the layer {reader.label(layer)!r} gives scores for each of {_positions(layer, y)} positions of a "
                f"sample, and nothing pools them, so this is not a classifier of samples; --head "
                f"{reader.label(layer)} trains one on the mean over the positions"
            )
        found.append(_by_sample(graph, layer, x, y, pooled))
    names, sizes = [name for name, _ in found], [size for _, size in found]
    if len(found) == 1:
        return names[0], sizes[0]
    joined = f"{outputs[-1]}/features"
    graph.node.append(helper.make_node("Concat", names, [joined], axis=1))
    return joined, sum(sizes)


def _by_sample(
    graph: onnx.GraphProto, layer: onnx.NodeProto, x: Sequence[int], y: Sequence[int], pooled: str
) -> tuple[str, int]:
    """Add nodes that bring a layer's input into the form `[batch, features]`; return its name and their number.

    Args:
        x, y: the shapes of the layer's input and output for a batch.
    """
    source, flat = layer.input[0], f"{layer.output[0]}/flat"
    if x[0] > _BATCH and layer.op_type != "Conv":
        rows = f"{layer.output[0]}/rows"
        shape = numpy_helper.from_array(np.array([-1, x[0] // _BATCH, *x[1:]], np.int64), f"{rows}/shape")
        graph.initializer.append(shape)
        graph.node.append(helper.make_node("Reshape", [source, shape.name], [rows]))
        source, x = rows, (_BATCH, x[0] // _BATCH, *x[1:])
    size = math.prod(x[1:])
    if _positions(layer, y) > 1:
        axes = range(2, len(x)) if layer.op_type == "Conv" else range(1, len(x) - 1)
        size //= math.prod(x[axis] for axis in axes)
        along = numpy_helper.from_array(np.array(axes, np.int64), f"{layer.output[0]}/positions")
        graph.initializer.append(along)
        reduced = f"{layer.output[0]}/pooled"
        kind = "ReduceMax" if pooled == "max" else "ReduceMean"
        graph.node.append(helper.make_node(kind, [source, along.name], [reduced], keepdims=1))
        source = reduced
    graph.node.append(helper.make_node("Flatten", [source], [flat], axis=1))
    return flat, size


def _positions(layer: onnx.NodeProto, y: Sequence[int]) -> int:
    """Return how many scores of each class a layer gives for a sample; y is the shape of its scores for a batch."""
    sizes = y[2:] if layer.op_type == "Conv" else y[1:-1]
    return math.prod(sizes) * max(1, y[0] // _BATCH)


def _set_outputs(graph: onnx.GraphProto, outputs: Sequence[onnx.ValueInfoProto]) -> None:
    kept = [onnx.ValueInfoProto.FromString(output.SerializeToString()) for output in outputs]
    del graph.output[:]
    graph.output.extend(kept)


def _numbered(stem: str) -> Sequence[str]:
    return [stem, "head", *(f"head_{number}" for number in range(2, 100))]


def _pads(attribute: onnx.AttributeProto) -> bool:
    value = helper.get_attribute_value(attribute)
    if attribute.name == "auto_pad":
        return value not in (b"NOTSET", b"VALID")
    return any(size != (1 if attribute.name == "dilations" else 0) for size in value)


_BATCH, _LENGTH = 2, 5
"""Of the samples that are run to see shapes."""
