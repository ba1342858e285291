"""Looking things up in a graph, and removing what no output needs."""

from __future__ import annotations

import heapq

import onnx
from onnx import shape_inference

from edgetl.errors import ModelError


class GraphIndex:
    """Producers, initializers and (inferred) shapes of a graph, by value name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producer = {output: node for node in graph.node for output in node.output if output}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._graph = graph
        self._shapes: dict[str, tuple[int | None, ...]] | None = None

    def constant(self, name: str) -> onnx.TensorProto | None:
        """Return the initializer that `name` is, perhaps copied, cast or transposed; None if it is computed."""
        while (node := self.producer.get(name)) is not None and node.op_type in ("Identity", "Transpose", "Cast"):
            name = node.input[0]
        return self.initializers.get(name)

    def is_transposed(self, name: str) -> bool:
        """Return whether an odd number of transpositions lies between `name` and its initializer."""
        odd = False
        while (node := self.producer.get(name)) is not None and node.op_type in ("Identity", "Transpose", "Cast"):
            odd ^= node.op_type == "Transpose"
            name = node.input[0]
        return odd

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return a value's shape, with None for what is not known; None if nothing is."""
        if self._shapes is None:
            self._shapes = _infer(self._graph)
        return self._shapes.get(name)


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


def _infer(graph: onnx.GraphProto) -> dict[str, tuple[int | None, ...]]:
    from edgetl.graphs import make_model

    inferred = shape_inference.infer_shapes(make_model(graph)).graph
    shapes = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    return shapes
