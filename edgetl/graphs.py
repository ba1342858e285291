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

    Names that two graphs use for different things must not exist; an initializer that two graphs
    share is kept once.
    """
    nodes: list[onnx.NodeProto] = []
    initializers: dict[str, onnx.TensorProto] = {}
    for graph in graphs:
        nodes.extend(graph.node)
        initializers.update((tensor.name, tensor) for tensor in graph.initializer)
    return helper.make_graph(
        nodes, name, list(graphs[0].input), list(graphs[-1].output), initializer=list(initializers.values())
    )
