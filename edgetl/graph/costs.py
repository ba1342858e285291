"""How many multiply-accumulates a graph takes for one sample."""

from __future__ import annotations

import math

import onnx

from edgetl.graph.execute import draw, shapes_of
from edgetl.graph.index import GraphIndex, graph_inputs


def multiply_accumulates(model: onnx.ModelProto, *, length: int = 1) -> dict[str, int]:
    """Return the multiply-accumulates of every layer for one sample, by the name of its output.

    Convolution: outputs × (input channels of a group × kernel). Transposed convolution: inputs ×
    (output channels of a group × kernel). Matrix product: outputs × inner dimension. Everything
    else counts nothing. Shapes are those seen when the graph is run, on a sample of `length` where that may vary.
    """
    index = GraphIndex(model.graph)
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    names = list(dict.fromkeys(name for node in layers for name in (*node.input[:2], node.output[0])))
    computed = [name for name in names if name not in index.initializers]
    shapes = shapes_of(model, computed, draw(graph_inputs(model.graph), 1, length=length))
    shapes.update((name, tuple(tensor.dims)) for name, tensor in index.initializers.items())
    counts = {}
    for node in layers:
        entering, leaving = shapes[node.input[0]], shapes[node.output[0]]
        if node.op_type == "Conv":
            count = math.prod(leaving) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":
            count = math.prod(entering) * math.prod(shapes[node.input[1]][1:])
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            count = math.prod(leaving) * entering[0 if transposed else -1]
        counts[node.output[0]] = count
    return counts
