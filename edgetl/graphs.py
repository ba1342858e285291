"""ONNX graphs as both sides need them: joining, cleaning, replacing parameters. Needs onnx, not torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import onnx
from onnx import helper, numpy_helper

from edgetl import defaults

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def make_model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """Wrap a graph as a model of the opset and IR version that edgetl writes."""
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", defaults.OPSET)],
        ir_version=defaults.IR_VERSION,
        producer_name="edgetl",
    )
    strip(model)
    for node in model.graph.node:
        # unique, and not empty: onnxruntime derives names of fused nodes from these
        node.name = next(output for output in node.output if output)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Remove what older runtimes reject and nobody reads: node metadata, doc strings, intermediate shapes."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    del graph.value_info[:]
    graph.doc_string = ""
    for part in (graph.node, graph.input, graph.output, graph.initializer):
        for item in part:
            item.doc_string = ""
            if hasattr(item, "metadata_props"):
                del item.metadata_props[:]


def replace_parameters(graph: onnx.GraphProto, parameters: Mapping[str, NDArray[np.float32]]) -> None:
    """Put new values into the initializers named by `parameters`.

    Raises:
        ValueError: a parameter is not in the graph, or its shape differs.
    """
    by_name = {tensor.name: tensor for tensor in graph.initializer}
    for name, value in parameters.items():
        if name not in by_name or tuple(by_name[name].dims) != value.shape:
            raise ValueError(f"parameter {name!r} of shape {list(value.shape)} is not in the graph")
        by_name[name].CopyFrom(numpy_helper.from_array(value, name))


def join(graphs: Sequence[onnx.GraphProto], name: str) -> onnx.GraphProto:
    """Chain graphs: each reads, by name, what those before it make; the last one's outputs remain.

    Where a later graph uses a name of its own that an earlier one has taken, it gets another.
    """
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    taken: set[str] = set()
    for graph in graphs:
        outputs = {output.name for output in graph.output}
        own = {tensor.name for tensor in graph.initializer} | {o for node in graph.node for o in node.output if o}
        graph = _renamed(graph, {old: _free(old, taken | own) for old in (own & taken) - outputs})
        nodes.extend(graph.node)
        initializers.extend(graph.initializer)
        taken.update(tensor.name for tensor in graph.initializer)
        taken.update(output for node in graph.node for output in node.output)
    return helper.make_graph(nodes, name, list(graphs[0].input), list(graphs[-1].output), initializer=initializers)


def _renamed(graph: onnx.GraphProto, names: Mapping[str, str]) -> onnx.GraphProto:
    if not names:
        return graph
    result = onnx.GraphProto()
    result.CopyFrom(graph)
    for node in result.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    for tensor in result.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    return result


def _free(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name}/{number}" in taken:
        number += 1
    return f"{name}/{number}"
