"""Bring graphs that compute with channels last nearer to the form that torch exports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper, shape_inference

from edgetl.graph.build import prune
from edgetl.graph.index import GraphIndex


def fold_views(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return the model with those initializers stored as they are used: reshaped, transposed.

    Keras keeps kernels with the output's channels last and reshapes the parameters of each
    normalisation.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    uses = Counter(name for node in graph.node for name in node.input)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    views = {node.input[0]: node for node in graph.node if node.op_type in ("Reshape", "Transpose", "Identity")}
    renamed: dict[str, str] = {}
    for name in names:
        value = name
        while name in tensors and uses[value] == 1 and (node := views.get(value)) is not None:
            array = numpy_helper.to_array(tensors[name])
            if node.op_type == "Reshape":
                if node.input[1] not in tensors:
                    break
                array = array.reshape(numpy_helper.to_array(tensors[node.input[1]]))
            elif node.op_type == "Transpose":
                array = array.transpose(helper.get_node_attr_value(node, "perm"))
            tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
            value = node.output[0]
            renamed[value] = name
    for node in graph.node:
        for i, value in enumerate(node.input):
            node.input[i] = renamed.get(value, value)
    prune(graph)
    return result


def simplify_layout(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with biases in their convolutions, and without transpositions that only move a single pixel.

    So the classifier is found where a convolution computes the scores of a 1×1 map with channels
    last.
    """
    result = shape_inference.infer_shapes(model, data_prop=True)
    graph = result.graph
    shapes = {
        value.name: [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    index = GraphIndex(graph)
    nodes: list[NodeProto] = []
    last: dict[str, NodeProto] = {}  # what makes a value with channels last
    for node in graph.node:
        turned = last.get(node.input[0]) if node.input else None
        if node.op_type == "Transpose" and list(helper.get_node_attr_value(node, "perm")) == [0, 2, 3, 1]:
            last[node.output[0]] = node
        elif turned is not None and node.op_type == "Add" and _take_bias(node, turned, index, uses):
            turned.output[0] = node.output[0]
            last[node.output[0]] = turned
            continue
        elif turned is not None and node.op_type in ("Reshape", "Flatten", "Squeeze"):
            single = shapes.get(turned.input[0], [])[2:] == [1, 1]
            if single and len(shapes.get(node.output[0], [])) == 2:
                node = helper.make_node("Flatten", [turned.input[0]], [node.output[0]], axis=1)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    prune(graph)
    return result


def _take_bias(add: NodeProto, turned: NodeProto, index: GraphIndex, uses: Counter[str]) -> bool:
    """Move what `add` adds to a transposed convolution into the convolution, if that is a bias of it alone."""
    convolution = index.producer.get(turned.input[0])
    bias = index.initializers.get(add.input[1])
    if convolution is None or convolution.op_type != "Conv" or len(convolution.input) > 2 or bias is None:
        return False
    weight = index.constant(convolution.input[1])
    if weight is None or list(bias.dims) not in ([weight.dims[0]], [1, 1, 1, weight.dims[0]]):
        return False
    if not uses[turned.output[0]] == uses[turned.input[0]] == uses[bias.name] == 1:
        return False
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias).reshape(-1), bias.name))
    convolution.input.append(bias.name)
    return True
