"""ONNX graphs as both sides need them: joining, pruning, cleaning, replacing parameters. Needs onnx, not torch."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgetl import defaults
from edgetl.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Operand: TypeAlias = "str | float | NDArray[Any]"


class Nodes:
    """Nodes with one output each, written like calls: `op.Add(x, 1.0)` returns the name of the sum.

    Attributes:
        nodes, initializers: what has been written; numbers and arrays become initializers.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def __getattr__(self, op_type: str) -> Callable[..., str]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)
        return partial(self.add, op_type)

    def add(self, op_type: str, *operands: Operand, out: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output, `out` if given."""
        output = out or f"{self._prefix}/{len(self.nodes)}_{op_type}"
        self.nodes.append(helper.make_node(op_type, [self._name(item) for item in operands], [output], **attributes))
        return output

    def _name(self, operand: Operand) -> str:
        if isinstance(operand, str):
            return operand
        array = np.asarray(operand, np.float32) if isinstance(operand, float) else np.asarray(operand)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"{self._prefix}/constant_{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]


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


def prune(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that no output depends on, and keep the nodes in an order that runs."""
    producer = {output: i for i, node in enumerate(graph.node) for output in node.output if output}
    needed: set[int] = set()
    stack = [output.name for output in graph.output]
    used: set[str] = set()
    while stack:
        name = stack.pop()
        if name in used:
            continue
        used.add(name)
        position = producer.get(name)
        if position is not None and position not in needed:
            needed.add(position)
            stack.extend(value for value in node_inputs(graph.node[position]) if value)
    nodes = _sorted([node for i, node in enumerate(graph.node) if i in needed])
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def _sorted(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes in an order in which each comes after those it reads from, and else unchanged.

    Raises:
        ModelError: the graph has a cycle.
    """
    producer = {output: i for i, node in enumerate(nodes) for output in node.output if output}
    waits = [{producer[name] for name in node_inputs(node) if name in producer} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for reader, sources in enumerate(waits):
        for source in sources:
            readers[source].append(reader)
    ready = [i for i, sources in enumerate(waits) if not sources]
    order: list[int] = []
    while ready:
        done = heapq.heappop(ready)
        order.append(done)
        for reader in readers[done]:
            waits[reader].discard(done)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(node for i, node in enumerate(nodes) if waits[i])
        raise ModelError(f"the graph has a cycle through {stuck.op_type} {stuck.output[0]!r}: export it anew")
    return [nodes[i] for i in order]


def node_inputs(node: onnx.NodeProto) -> list[str]:
    """Return what a node reads, including what its subgraphs take from outside."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            inner = {o for n in graph.node for o in n.output} | {t.name for t in graph.initializer}
            inner |= {i.name for i in graph.input}
            outer = [name for n in graph.node for name in node_inputs(n)] + [o.name for o in graph.output]
            names.extend(name for name in outer if name not in inner)
    return names


def join(graphs: Sequence[onnx.GraphProto], name: str) -> onnx.GraphProto:
    """Chain graphs: each reads, by name, what those before it make; the last one's outputs remain.

    Where a later graph uses a name of its own that an earlier one has taken, it gets another.
    """
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    taken = {value.name for value in graphs[0].input}
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
