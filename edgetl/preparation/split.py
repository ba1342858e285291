"""Cut a network at its freeze boundary: the latest one that has everything trainable behind it.

A node lies behind the boundary if a trainable parameter or another such node feeds it. The boundary
is every value that crosses; it may be more than one tensor, and it is the network's input where the
first layer trains. Values that cross but hold no features are computed anew behind it: shapes
computed from the batch's size, constants, and what integer inputs alone give without parameters (an
attention mask for every pair of positions, from one of a row).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgetl.artifacts import TensorSpec
from edgetl.errors import ModelError
from edgetl.graphs import join, make_model, node_inputs, prune, replace_parameters
from edgetl.preparation.aside import filled
from edgetl.preparation.costs import multiply_accumulates
from edgetl.preparation.graph import graph_inputs
from edgetl.preparation.heads import Network
from edgetl.preparation.run import draw, run_graph, shapes_of
from edgetl.preparation.simplify import freeze_batch_normalization, simplify
from edgetl.preparation.sources.clean import clean

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Parts:
    """A network in two parts.

    Attributes:
        backbone: input → features; None where nothing is frozen before the first trainable layer.
        trainable: features → `batch_logits`, with the parameters' initial values.
        inputs: the network's inputs for one sample.
        features: the boundary's tensors for one sample.
        parameters: the trainable parameters.
        frozen: all other parameters.
        backbone_macs, trainable_macs: multiply-accumulates of a forward pass for one sample.
    """

    backbone: onnx.ModelProto | None
    trainable: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    features: tuple[TensorSpec, ...]
    parameters: tuple[TensorSpec, ...]
    frozen: tuple[TensorSpec, ...]
    backbone_macs: int
    trainable_macs: int


def split(network: Network, trainable: Sequence[str], *, length: int = 1) -> Parts:
    """Cut the network and check by running it that both parts together give what it gives.

    Args:
        length: the largest size of what differs from sample to sample.

    Raises:
        ModelError: a boundary tensor is not a fixed number of rows per sample, or the parts disagree
            with the whole.
    """
    graph = network.model.graph
    inputs = graph_inputs(graph)
    front_nodes, back_nodes, from_input = _divide(graph, trainable, network.parameters)
    behind = {name for node in back_nodes for name in node.output}
    crossing = _crossing(back_nodes, from_input, behind)
    boundary = _probe(network.model, crossing)
    ranks = _batch_normalization_ranks(network.model)

    tail = helper.make_graph(
        [
            *boundary.behind,
            *(node for node in front_nodes if not from_input.intersection(node.output)),
            *back_nodes,
        ],
        "trainable",
        [_described(spec) for spec in boundary.features],
        list(graph.output),
        initializer=[*graph.initializer, *boundary.constants],
    )
    freeze_batch_normalization(tail, ranks, trainable)
    prune(tail)
    backbone = None
    if not {spec.name for spec in boundary.features} <= {spec.name for spec in inputs}:
        front = helper.make_graph(
            [*front_nodes, *boundary.before],
            "backbone",
            list(graph.input),
            [_described(spec) for spec in boundary.features],
            initializer=[*graph.initializer, *boundary.shapes],
        )
        prune(front)
        backbone = clean(simplify(filled(make_model(front)), ()), outputs=[f.name for f in boundary.features])
        freeze_batch_normalization(backbone.graph, ranks)
    initializers = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    macs = multiply_accumulates(network.model, length=length)
    parts = Parts(
        backbone=backbone,
        trainable=make_model(tail),
        inputs=inputs,
        features=boundary.features,
        parameters=tuple(TensorSpec(name, initializers[name]) for name in trainable),
        frozen=tuple(TensorSpec(n, initializers[n]) for n in network.parameters if n not in set(trainable)),
        backbone_macs=sum(count for name, count in macs.items() if name not in behind),
        trainable_macs=sum(count for name, count in macs.items() if name in behind),
    )
    _check_parts(network.model, parts)
    return parts


def _described(spec: TensorSpec) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(spec.name, kind, ["batch", *spec.shape])


def _batch_normalization_ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of axes of every BatchNormalization's input and output, as seen when run."""
    found = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    inputs = list(dict.fromkeys(node.input[0] for node in found))
    shapes = shapes_of(model, inputs, draw(graph_inputs(model.graph), 2))
    return {name: len(shapes[node.input[0]]) for node in found for name in (node.input[0], node.output[0])}


def _divide(
    graph: onnx.GraphProto, trainable: Sequence[str], parameters: Sequence[str]
) -> tuple[list[NodeProto], list[NodeProto], set[str]]:
    """Return the nodes before and behind the boundary, and every value that depends on the input.

    Arithmetic on sizes or on integer inputs alone stands on both sides where both need it.
    """
    sources = {value.name for value in graph.input}
    integers = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.INT64}
    weights = set(parameters)
    trained, from_input, from_data = set(trainable), set(sources), set(sources)
    for node in graph.node:
        inputs = [name for name in node_inputs(node) if name]
        moving = from_data.intersection(inputs)
        if moving and moving <= integers and not weights.intersection(inputs):
            integers.update(node.output if node.op_type not in ("Shape", "Size") else ())
        elif not moving and weights.intersection(inputs):
            weights.update(node.output)
        if from_input.intersection(inputs):
            from_input.update(node.output)
        if from_data.intersection(inputs) and node.op_type not in ("Shape", "Size"):
            from_data.update(node.output)
        if trained.intersection(inputs):
            trained.update(node.output)
    front = [node for node in graph.node if not trained.intersection(node.output)]

    producer = {output: node for node in graph.node for output in node.output if output}
    behind = {name for name in trained if name in producer}
    stack = list(behind)
    while stack:
        for name in node_inputs(producer[stack.pop()]):
            is_arithmetic = name in producer and producer[name].op_type not in ("Shape", "Size")
            from_sizes = is_arithmetic and name in from_input and name not in from_data
            if (from_sizes or (name in producer and name in integers)) and name not in behind:
                behind.add(name)
                stack.append(name)
    return front, [node for node in graph.node if behind.intersection(node.output)], from_input


def _crossing(back: Sequence[NodeProto], from_input: set[str], behind: set[str]) -> list[str]:
    names = [name for node in back for name in node_inputs(node) if name in from_input and name not in behind]
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class _Boundary:
    """The features, and what makes the other crossing values from them: nodes and constants on either side."""

    features: tuple[TensorSpec, ...]
    before: tuple[NodeProto, ...]
    behind: tuple[NodeProto, ...]
    shapes: tuple[TensorProto, ...]
    constants: tuple[TensorProto, ...]


def _probe(model: onnx.ModelProto, crossing: Sequence[str]) -> _Boundary:
    """Run batches of 2 and 3 and see what each crossing value is.

    A constant (the same in both), a size (integers that are linear in the batch), or features: inputs
    of the network, or rows of floats, a fixed number for each sample, which are grouped by sample if
    there are several. Samples of different lengths must have features of the same size.
    """
    inputs = graph_inputs(model.graph)
    given = {spec.name for spec in inputs}
    two, three = (
        dict(zip(crossing, run_graph(model, crossing, draw(inputs, n, length=size, seed=n)), strict=True))
        for n, size in ((2, 5), (3, 7))
    )
    features: list[TensorSpec] = []
    before: list[NodeProto] = []
    behind: list[NodeProto] = []
    shapes: list[TensorProto] = []
    constants: list[TensorProto] = []
    sizes: list[str] = []
    for name in crossing:
        a, b = two[name], three[name]
        if a.shape == b.shape and a.dtype == b.dtype and (a == b).all():
            constants.append(numpy_helper.from_array(np.ascontiguousarray(a), name))
        elif a.dtype == np.int64 and a.shape == b.shape:
            sizes.append(name)
        elif name in given and a.shape[1:] == b.shape[1:]:
            features.append(TensorSpec(name, a.shape[1:], a.dtype.name))
        elif a.dtype == np.float32 and a.ndim > 0 and a.shape[1:] == b.shape[1:] and 3 * len(a) == 2 * len(b):
            rows = len(a) // 2
            if rows == 1:
                features.append(TensorSpec(name, a.shape[1:]))
                continue
            grouped, together = f"edgetl/{name}/by_sample", f"edgetl/{name}/rows"
            shapes.append(numpy_helper.from_array(np.array([-1, rows, *a.shape[1:]], np.int64), grouped + "/shape"))
            constants.append(numpy_helper.from_array(np.array([-1, *a.shape[1:]], np.int64), together + "/shape"))
            before.append(helper.make_node("Reshape", [name, grouped + "/shape"], [grouped]))
            behind.append(helper.make_node("Reshape", [grouped, together + "/shape"], [name]))
            features.append(TensorSpec(grouped, (rows, *a.shape[1:])))
        elif any(-1 in spec.shape for spec in inputs):
            raise ModelError(
                f"samples keep their own length, and so would the features {name!r}: train only what comes after the "
                "length is gone (--train head), or leave out --dynamic-length"
            )
        else:
            raise ModelError(
                f"the network cannot be cut at {name!r}, which is {a.dtype} {list(a.shape)} for two samples and "
                f"{list(b.shape)} for three: let more of it train, or less"
            )
    if not {spec.name for spec in features} <= given:
        for i, spec in enumerate(features):
            if spec.name in given:  # an output of the backbone needs a name of its own
                features[i] = TensorSpec(f"edgetl/{spec.name}/feature", spec.shape, spec.dtype)
                before.append(helper.make_node("Identity", [spec.name], [features[i].name]))
                behind.append(helper.make_node("Identity", [features[i].name], [spec.name]))
    for name in sizes:
        nodes, tensors = _size_of_batch(name, two[name], three[name], features[0].name)
        behind.extend(nodes)
        constants.extend(tensors)
    return _Boundary(tuple(features), tuple(before), tuple(behind), tuple(shapes), tuple(constants))


def _size_of_batch(
    name: str, two: NDArray[Any], three: NDArray[Any], feature: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Compute integers that are linear in the batch, given their values for 2 and 3, from a feature's first axis."""
    slope = three - two
    prefix = f"edgetl/{name}/"
    tensors = [
        numpy_helper.from_array(np.atleast_1d(slope), prefix + "slope"),
        numpy_helper.from_array(np.atleast_1d(two - 2 * slope), prefix + "offset"),
        numpy_helper.from_array(np.array(two.shape, np.int64), prefix + "shape"),
    ]
    nodes = [
        helper.make_node("Shape", [feature], [prefix + "batch"], start=0, end=1),
        helper.make_node("Mul", [prefix + "batch", prefix + "slope"], [prefix + "linear"]),
        helper.make_node("Add", [prefix + "linear", prefix + "offset"], [prefix + "sum"]),
        helper.make_node("Reshape", [prefix + "sum", prefix + "shape"], [name]),
    ]
    return nodes, tensors


def _check_parts(model: onnx.ModelProto, parts: Parts) -> None:
    """Compare the parts with the whole on a batch, and each sample's features with those it has on its own."""
    samples = draw(parts.inputs, 5, length=6, seed=1)
    graphs = [part.graph for part in (parts.backbone, parts.trainable) if part is not None]
    names = [spec.name for spec in parts.features]
    joined = make_model(join(graphs, "joined"))
    entering = {value.name for value in joined.graph.input}
    entered = {name: array for name, array in samples.items() if name in entering}
    scores = model.graph.output[0].name
    # a new head is zero, which would hide every difference
    rng = np.random.default_rng(2)
    drawn = {spec.name: rng.standard_normal(spec.shape).astype(np.float32) * 0.1 for spec in parts.parameters[-2:]}
    model = make_model(model.graph)
    for graph in (joined.graph, model.graph):
        replace_parameters(graph, drawn)
    found = run_graph(joined, [*names, scores], entered)
    (expected,) = run_graph(model, [scores], samples)
    if not np.allclose(found[-1], expected, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(expected).max()))):
        raise ModelError(
            f"the cut network differs from the whole by {np.abs(found[-1] - expected).max():.3g}: this is an error in "
            "edgetl, please report the model"
        )
    alone = run_graph(joined, names, {name: array[3:4] for name, array in entered.items()})
    for name, batched, single in zip(names, found, alone, strict=False):
        scale = max(1.0, float(np.abs(single).max()))
        if not np.allclose(batched[3:4], single, rtol=1e-3, atol=1e-3 * scale):
            raise ModelError(f"the features {name!r} of one sample depend on the others in its batch")
