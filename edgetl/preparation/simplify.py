"""Fold what is constant, but leave parameters alone."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgetl.graphs import prune
from edgetl.preparation.graph import GraphIndex
from edgetl.preparation.run import run_graph


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


def fix_shapes(model: onnx.ModelProto, size: Sequence[int]) -> onnx.ModelProto:
    """Return the model with constants where Reshape gets a computed shape in which only the batch varies.

    Batches of 2 and 3 are run to see the shapes. Runtimes can then infer what follows, which
    onnxruntime-training needs: of a shape that it does not know it takes the wrong gradient of a
    broadcast.

    Args:
        size: of one sample, `(C, H, W)`.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name for tensor in graph.initializer}
    computed = [n for n in graph.node if n.op_type == "Reshape" and n.input[1] not in constants]
    names = list(dict.fromkeys(node.input[1] for node in computed))
    two, three = (
        dict(zip(names, run_graph(model, names, np.zeros((batch, *size), np.float32)), strict=True)) for batch in (2, 3)
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
        which = int(numpy_helper.to_array(position))
        parts = numpy_helper.to_array(sizes)
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


def freeze_batch_normalization(graph: onnx.GraphProto, ranks: Mapping[str, int]) -> None:
    """Replace every BatchNormalization by what it computes with frozen statistics.

    y = x · s + (bias - mean · s) with s = scale / √(variance + ε), per channel. Scale and bias stay
    the parameters they are; mean and variance become constants that nothing can change. ONNX Runtime
    folds the expression when it opens a graph whose parameters are constants.

    Args:
        ranks: number of axes of values, by name; of each BatchNormalization's input or output.
    """
    index = GraphIndex(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        statistics = {node.input[3], node.input[4]} if node.op_type == "BatchNormalization" else set()
        trains = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        if not statistics or trains or not statistics <= index.initializers.keys():
            nodes.append(node)
            continue
        x, scale, bias, mean, variance = node.input
        rank = ranks.get(x) or ranks.get(node.output[0]) or len(index.shape(x) or (None,) * 4)
        epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
        inverse = 1 / np.sqrt(numpy_helper.to_array(index.initializers[variance]).astype(np.float64) + epsilon)
        offset = -numpy_helper.to_array(index.initializers[mean]).astype(np.float64) * inverse
        prefix = f"edgetl/frozen/{node.output[0]}/"
        constants: dict[str, NDArray[Any]] = {
            "inverse": inverse.astype(np.float32),
            "offset": offset.astype(np.float32),
            "shape": np.array([1, -1, *[1] * (rank - 2)], np.int64),
        }
        graph.initializer.extend(numpy_helper.from_array(value, prefix + name) for name, value in constants.items())

        def add(op: str, inputs: list[str], output: str) -> None:
            nodes.append(helper.make_node(op, inputs, [output]))

        add("Mul", [scale, prefix + "inverse"], prefix + "s")
        add("Mul", [scale, prefix + "offset"], prefix + "scaled_offset")
        add("Add", [prefix + "scaled_offset", bias], prefix + "t")
        add("Reshape", [prefix + "s", prefix + "shape"], prefix + "s_map")
        add("Reshape", [prefix + "t", prefix + "shape"], prefix + "t_map")
        add("Mul", [x, prefix + "s_map"], prefix + "scaled")
        add("Add", [prefix + "scaled", prefix + "t_map"], node.output[0])
    del graph.node[:]
    graph.node.extend(nodes)
