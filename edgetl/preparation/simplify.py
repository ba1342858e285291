"""Fold what is constant, but leave parameters alone."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgetl.graphs import node_inputs, prune
from edgetl.preparation.aside import array_of
from edgetl.preparation.graph import GraphIndex, graph_inputs
from edgetl.preparation.run import draw, part_for, walk


def simplify(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
    """Return the model after onnxscript's optimizer, which folds constants and removes what does nothing.

    The initializers named by `keep` are graph inputs meanwhile, so nothing is folded into or out of
    them. With an empty `keep` everything frozen is folded, batch normalisation into convolutions too.
    """
    import onnxscript.optimizer

    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    graph = open_model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name in keep]
    folded = [tensor for tensor in graph.initializer if tensor.name not in keep]
    del graph.initializer[:]
    graph.initializer.extend(folded)
    graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in kept)
    _keep_names_apart(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = onnxscript.optimizer.optimize(open_model)
    assert isinstance(result, onnx.ModelProto), "the optimizer returns what it is given"
    graph = result.graph
    names = {tensor.name for tensor in kept}
    inputs = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.initializer.extend(kept)
    _unpack_sequences(graph)
    return result


def _keep_names_apart(graph: onnx.GraphProto) -> None:
    """See to it that the optimizer makes no two constants of one name, of which it would lose one.

    It names the shape of a Reshape after what a Flatten reads, and a weight with batch normalisation
    in it after the weight.
    """
    flat: dict[tuple[str, bytes], str] = {}
    same: dict[str, str] = {}
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "Flatten" and node.output[0] not in outputs:
            key = node.input[0], b"".join(attribute.SerializeToString() for attribute in node.attribute)
            same[node.output[0]] = flat.setdefault(key, node.output[0])
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    used: Counter[str] = Counter()
    for node in graph.node:
        for i, name in enumerate(node.input if node.op_type in ("Conv", "ConvTranspose", "Gemm") else ()):
            if i == 0 or name not in tensors:
                continue
            used[name] += 1
            if used[name] > 1:
                copy = graph.initializer.add()
                copy.CopyFrom(tensors[name])
                copy.name = node.input[i] = f"{name}/use_{used[name]}"


def fix_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with constants where Reshape gets a computed shape in which only the batch varies.

    Batches of 2 and 3 are run to see the shapes. Runtimes can then infer what follows, which
    onnxruntime-training needs: of a shape that it does not know it takes the wrong gradient of a
    broadcast. A shape in which the length of the samples varies too is left as it is.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name for tensor in graph.initializer}
    computed = [n for n in graph.node if n.op_type == "Reshape" and n.input[1] not in constants]
    names = list(dict.fromkeys(node.input[1] for node in computed))
    inputs, part, wanted = graph_inputs(graph), part_for(model, names), set(names)
    two, three = (
        {name: seen.content for name, seen in walk(part, draw(inputs, batch, length=length)) if name in wanted}
        for batch, length in ((2, 5), (3, 7))
    )
    for node in computed:
        shape, other = two[node.input[1]], three[node.input[1]]
        varying = np.flatnonzero(shape != other)
        if len(varying) > 1 - (-1 in shape) or any(3 * shape[i] != 2 * other[i] for i in varying):
            continue
        fixed = np.where(shape == other, shape, -1).astype(np.int64)
        node.input[1] = f"edgetl/{node.output[0]}/shape"
        graph.initializer.append(numpy_helper.from_array(fixed, node.input[1]))
    prune(graph)
    return result


def _unpack_sequences(graph: onnx.GraphProto) -> None:
    """Replace SplitToSequence and SequenceAt, which have no gradient, by the slices that they take."""
    index = GraphIndex(graph)
    for node in graph.node:
        split = index.producer.get(node.input[0]) if node.op_type == "SequenceAt" else None
        if split is None or split.op_type != "SplitToSequence" or len(split.input) < 2:
            continue
        sizes, position = index.initializers.get(split.input[1]), index.initializers.get(node.input[1])
        if sizes is None or position is None:
            continue
        which = int(array_of(position))
        parts = array_of(sizes)
        if which < 0:
            continue
        start = which * int(parts) if parts.ndim == 0 else int(parts[:which].sum())
        length = int(parts) if parts.ndim == 0 else int(parts[which])
        axis = next((attribute.i for attribute in split.attribute if attribute.name == "axis"), 0)
        bounds = {"starts": start, "ends": start + length, "axes": axis}
        names = [f"edgetl/{node.output[0]}/{name}" for name in bounds]
        graph.initializer.extend(
            numpy_helper.from_array(np.array([value], np.int64), name)
            for name, value in zip(names, bounds.values(), strict=True)
        )
        node.op_type = "Slice"
        node.input[:] = [split.input[0], *names]
    prune(graph)


def freeze_batch_normalization(
    graph: onnx.GraphProto, ranks: Mapping[str, int], trainable: Collection[str] = ()
) -> None:
    """Replace every BatchNormalization by what it computes with frozen statistics.

    y = x · s + t with s = scale / √(variance + ε) and t = bias - mean · s, per channel. Scale and bias
    stay the parameters they are; mean and variance become constants that nothing can change. Behind a
    convolution that nobody else reads, y = Conv(x, W · s, b · s + t): a step then neither computes nor
    keeps the maps in between. ONNX Runtime folds the expressions when it opens a graph whose
    parameters are constants.

    Args:
        ranks: number of axes of values, by name; of each BatchNormalization's input or output.
        trainable: the parameters that train.
    """
    index = GraphIndex(graph)
    readers = Counter(name for node in graph.node for name in node_inputs(node))
    readers.update(output.name for output in graph.output)
    nodes: list[onnx.NodeProto] = []
    folded: set[str] = set()
    for node in graph.node:
        statistics = {node.input[3], node.input[4]} if node.op_type == "BatchNormalization" else set()
        trains = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        if not statistics or trains or not statistics <= index.initializers.keys():
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        conv = index.producer.get(x)
        if conv is not None and readers[x] == 1 and _folds(conv, node.input[1], trainable, index):
            folded.add(x)
        else:
            conv = None
        rank = ranks.get(x) or ranks.get(y) or len(index.shape(x) or (None,) * 4)
        made, constants = _frozen(node, conv, rank, index)
        nodes.extend(made)
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    del graph.node[:]
    graph.node.extend(node for node in nodes if folded.isdisjoint(node.output))


def _folds(conv: onnx.NodeProto, scale: str, trainable: Collection[str], index: GraphIndex) -> bool:
    """Return whether a convolution takes the scale behind it into its weight.

    Not where the scale trains and the weight does not: the scale's gradient would go through the
    weight's, which costs a convolution, where a sum over the maps does.
    """
    if conv.op_type != "Conv" or conv.input[1] not in index.initializers:
        return False
    return conv.input[1] in trainable or scale not in trainable


def _frozen(
    node: onnx.NodeProto, conv: onnx.NodeProto | None, rank: int, index: GraphIndex
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]:
    """Return the nodes and constants that replace a BatchNormalization, and the convolution before it if given.

    Args:
        rank: number of axes of the normalised map.
    """
    x, scale, bias, mean, variance = node.input
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    inverse = 1 / np.sqrt(array_of(index.initializers[variance]).astype(np.float64) + epsilon)
    offset = -array_of(index.initializers[mean]).astype(np.float64) * inverse
    prefix = f"edgetl/frozen/{node.output[0]}/"
    constants: dict[str, NDArray[Any]] = {
        prefix + "inverse": inverse.astype(np.float32),
        prefix + "offset": offset.astype(np.float32),
        prefix + "shape": np.array([1, -1, *[1] * (rank - 2)], np.int64),
    }
    if conv is not None:
        kernel = index.initializers[conv.input[1]].dims
        constants[prefix + "shape"] = np.array([-1, 1], np.int64)
        constants[prefix + "rows_shape"] = np.array([kernel[0], math.prod(kernel[1:])], np.int64)
        constants[prefix + "weight_shape"] = np.array(kernel, np.int64)
    nodes: list[onnx.NodeProto] = []

    def add(op: str, a: str, b: str, output: str) -> str:
        nodes.append(helper.make_node(op, [a, b], [output]))
        return output

    s = add("Mul", scale, prefix + "inverse", prefix + "s")
    t = add("Add", add("Mul", scale, prefix + "offset", prefix + "scaled_offset"), bias, prefix + "t")
    s_map = add("Reshape", s, prefix + "shape", prefix + "s_map")
    if conv is None:
        scaled = add("Mul", x, s_map, prefix + "scaled")
        add("Add", scaled, add("Reshape", t, prefix + "shape", prefix + "t_map"), node.output[0])
        return nodes, constants
    if len(conv.input) > 2 and conv.input[2]:
        t = add("Add", add("Mul", conv.input[2], s, prefix + "scaled_bias"), t, prefix + "shifted_bias")
    # as a matrix: onnxruntime would go through a weight that ends in axes of length 1 element by element
    rows = add("Reshape", conv.input[1], prefix + "rows_shape", prefix + "rows")
    scaled_rows = add("Mul", rows, s_map, prefix + "scaled_rows")
    weight = add("Reshape", scaled_rows, prefix + "weight_shape", prefix + "weight")
    replaced = helper.make_node("Conv", [conv.input[0], weight, t], [node.output[0]], conv.name)
    replaced.attribute.extend(conv.attribute)
    return [*nodes, replaced], constants
