"""Run a graph and see any of its values; or walk through it and see no more than their types and shapes."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl import runtime
from edgetl.artifacts import TensorSpec
from edgetl.graphs import node_inputs
from edgetl.preparation.aside import array_of, with_fed_weights

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray


class Graph:
    """A graph that is open, as it stands: onnxruntime 1.19 fuses MatMul, Reshape and BatchNormalization wrongly."""

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str] = ()) -> None:
        light, self._weights = with_fed_weights(model)
        with _extended(light, outputs):
            self._session = runtime.open_session(
                light.SerializeToString(), threads=runtime.available_cores(), optimize=False, keep_memory=False
            )

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return outputs, by name; without names all that the graph has."""
        found: list[NDArray[Any]] = self._session.run(list(outputs) or None, {**feeds, **self._weights})
        return found


def run_graph(model: onnx.ModelProto, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a graph on its inputs, by name, and return any of its values."""
    wanted = [output for output in outputs if output not in feeds]
    found = dict(zip(wanted, Graph(model, wanted).run(wanted, feeds) if wanted else [], strict=True))
    return [feeds[output] if output in feeds else found[output] for output in outputs]


@contextlib.contextmanager
def _extended(model: onnx.ModelProto, outputs: Sequence[str]) -> Iterator[None]:
    """Let a graph have more outputs for a while; a copy would double its weights."""
    present = {output.name for output in model.graph.output}
    count = len(model.graph.output)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in present)
    try:
        yield
    finally:
        del model.graph.output[count:]


@dataclass(frozen=True)
class Seen:
    """What a walk has seen of a value.

    Attributes:
        element_type: a `TensorProto.DataType`.
        content: of integers, of what is no tensor, and of what depends on weights and shapes alone.
    """

    element_type: int
    shape: tuple[int, ...]
    content: Any = None


def walk(
    model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], ran: dict[Any, list[Seen]] | None = None
) -> Iterator[tuple[str, Seen]]:
    """Run a graph node by node, each on its own, and yield every value by name, the inputs first.

    Shapes depend on integers and on other shapes. So these are computed, and what depends on weights and shapes alone
    is; other floats are made up anew for each node, and none is held. Nodes that differ in names alone run once.

    Args:
        ran: what nodes have made in other walks; it grows.
    """
    graph = model.graph
    free = independent(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    declared = {value.name: value for value in (*graph.value_info, *graph.output)}
    left = Counter(name for node in graph.node for name in node_inputs(node))
    known = {tensor.name: Seen(tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    for name, array in feeds.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        known[name] = Seen(kind, array.shape, None if kind in _FLOATS else array)
        yield name, known[name]
    ran = {} if ran is None else ran
    for node in graph.node:
        reads = [name for name in dict.fromkeys(node_inputs(node)) if name]
        exact = free.issuperset(reads)
        given = {name: _needed(known[name], tensors.get(name), exact) for name in reads}
        key = _key(node, given, exact)
        made = ran.get(key) or _run_node(model, node, given, tensors, declared)
        made = [seen if exact or _is_kept(seen) else replace(seen, content=None) for seen in made]
        if key is not None and not any(map(_is_large, made)):
            ran[key] = made
        for name, seen in zip(filter(None, node.output), made, strict=True):
            known[name] = seen
            yield name, seen
        left.subtract(node_inputs(node))
        for name in reads:
            if left[name] == 0:
                known[name] = replace(known[name], content=None)


def independent(graph: onnx.GraphProto) -> set[str]:
    """Return the values that depend on initializers and on shapes alone."""
    free = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if node.op_type in _SHAPES_ONLY or free.issuperset(node_inputs(node)):
            free.update(node.output)
        elif node.op_type == "ConcatTraining":
            free.update(node.output[1:])  # the lengths of its inputs
    return free


_SHAPES_ONLY = {"Shape", "Size"}
_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_RANDOM = {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomUniform"}
_SMALL = 64
"""Bytes: floats and flags of which a shape may depend, such as the scales of Resize."""
_LARGE = 1 << 16
"""Bytes of content that is not compared."""


def _nbytes(seen: Seen) -> int:
    return math.prod(seen.shape) * int(helper.tensor_dtype_to_np_dtype(seen.element_type).itemsize)


def _is_kept(seen: Seen) -> bool:
    """Return whether the content of a value is needed although it depends on made-up numbers."""
    return seen.element_type not in _FLOATS and (seen.element_type != TensorProto.BOOL or _nbytes(seen) <= _SMALL)


def _is_large(seen: Seen) -> bool:
    return seen.content is not None and (isinstance(seen.content, list) or seen.content.nbytes > _LARGE)


def _needed(seen: Seen, tensor: TensorProto | None, exact: bool) -> Seen:
    """Return what a node's input is, with its content where that matters.

    Args:
        tensor: the initializer, if it is one.
        exact: whether the node's outputs depend on weights and shapes alone.
    """
    matters = exact or _is_kept(seen) or isinstance(seen.content, list) or _nbytes(seen) <= _SMALL
    if not matters:
        return replace(seen, content=None)
    return replace(seen, content=array_of(tensor)) if tensor is not None else seen


def _key(node: onnx.NodeProto, given: Mapping[str, Seen], exact: bool) -> Any:
    """Return what the node's outputs depend on; None if that is too much to be compared."""
    compound = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    if compound or node.op_type in _RANDOM or any(map(_is_large, given.values())):
        return None
    numbers = {name: i for i, name in enumerate(given)}
    inputs = [
        (seen.element_type, seen.shape, None if seen.content is None else seen.content.tobytes())
        for seen in given.values()
    ]
    attributes = sorted(attribute.SerializeToString() for attribute in node.attribute)
    order = [numbers.get(name, -1) for name in node.input]
    return node.domain, node.op_type, exact, *map(tuple, (attributes, order, map(bool, node.output), inputs))


def _run_node(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    given: Mapping[str, Seen],
    tensors: Mapping[str, TensorProto],
    declared: Mapping[str, onnx.ValueInfoProto],
) -> list[Seen]:
    """Run a node on its own.

    Args:
        tensors: the graph's initializers: some kernels take no others.
        declared: what the graph says of values: MaxPoolGrad crashes without.
    """
    arrays = {
        name: seen.content
        if seen.content is not None
        else np.full(seen.shape, 0.05, helper.tensor_dtype_to_np_dtype(seen.element_type))  # positive, so that no
        for name, seen in given.items()  # root or logarithm fails
    }
    fixed = [name for name in given if name in tensors and given[name].content is not None]
    wanted = [name for name in node.output if name]
    alone = helper.make_graph(
        [node],
        "node",
        [_described(name, given[name]) for name in given if name not in fixed],
        [declared.get(name) or onnx.ValueInfoProto(name=name) for name in wanted],
        initializer=[numpy_helper.from_array(arrays[name], name) for name in fixed],
    )
    single = helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = runtime.open_session(
        single.SerializeToString(), threads=runtime.available_cores(), optimize=False, keep_memory=False
    )
    found = session.run(wanted, {name: array for name, array in arrays.items() if name not in fixed})
    return [_seen(value, array) for value, array in zip(session.get_outputs(), found, strict=True)]


def _described(name: str, seen: Seen) -> onnx.ValueInfoProto:
    if isinstance(seen.content, list):
        return helper.make_tensor_sequence_value_info(name, seen.element_type, None)
    return helper.make_tensor_value_info(name, seen.element_type, seen.shape)


def _seen(value: onnxruntime.NodeArg, content: Any) -> Seen:
    element_type = _TYPES[value.type.removeprefix("seq(").removesuffix(")").removeprefix("tensor(").rstrip(")")]
    return Seen(element_type, () if isinstance(content, list) else content.shape, content)


_TYPES = {name.lower(): number for name, number in TensorProto.DataType.items()}
"""By onnxruntime's names of them."""


def shapes_of(
    model: onnx.ModelProto, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a graph's values, its inputs among them, for these inputs."""
    wanted = set(names)
    return {name: seen.shape for name, seen in walk(part_for(model, names), feeds) if name in wanted}


def part_for(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return the part of a graph that makes these values."""
    needed: set[str] = set(names)
    nodes: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(node_inputs(node))
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    part = helper.make_graph(nodes[::-1], "part", list(model.graph.input), [], initializer=initializers)
    return helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)


def draw(inputs: Sequence[TensorSpec], batch: int, *, length: int = 1, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return a batch of samples by input: floats from a normal distribution; of integers 0 and 1, and 1 first.

    So integers are valid as token ids and as masks, and no mask is empty.

    Args:
        length: of the axes whose size differs from sample to sample.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, NDArray[Any]] = {}
    for spec in inputs:
        shape = (batch, *(length if size == -1 else size for size in spec.shape))
        if np.issubdtype(np.dtype(spec.dtype), np.integer):
            feeds[spec.name] = rng.integers(0, 2, shape).astype(spec.dtype)
            if spec.shape:
                feeds[spec.name].reshape(batch, -1)[:, 0] = 1
        else:
            feeds[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
    return feeds
