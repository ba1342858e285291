"""Run a graph and look at any of its values, or at no more than their types and shapes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgetl.artifacts import TensorSpec
from edgetl.runtime import process, sessions

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

_SHAPE = "edgetl/shape/"


def run_graph(model: onnx.ModelProto, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a graph on its inputs, by name, and return any of its values."""
    present = {output.name for output in model.graph.output} | set(feeds)
    added = [onnx.ValueInfoProto(name=name) for name in outputs if name not in present]
    with _extended(model, added=added):
        session = _opened(model)
    wanted = [output for output in outputs if output not in feeds]
    found = dict(zip(wanted, session.run(wanted, dict(feeds)) if wanted else [], strict=True))
    return [feeds[output] if output in feeds else found[output] for output in outputs]


class Shapes:
    """A graph that tells the shapes of its values, and the content of some, without holding them all at once.

    Args:
        names: of values; outputs of nodes.
        whole: those whose content is returned, too.
    """

    def __init__(self, model: onnx.ModelProto, names: Sequence[str], whole: Sequence[str] = ()) -> None:
        self._names, self._whole = list(names), list(whole)
        nodes = [helper.make_node("Shape", [name], [_SHAPE + name]) for name in names]
        ends = [helper.make_tensor_value_info(_SHAPE + name, TensorProto.INT64, None) for name in names]
        ends += [onnx.ValueInfoProto(name=name) for name in whole]
        if ends:
            with _extended(model, nodes, ends, only=True):
                self._session = _opened(model, shapes_first=True)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[dict[str, tuple[int, ...]], dict[str, NDArray[Any]]]:
        """Return shapes and contents by name."""
        wanted = [*(_SHAPE + name for name in self._names), *self._whole]
        found: list[NDArray[Any]] = self._session.run(wanted, dict(feeds)) if wanted else []
        shapes = {name: tuple(shape.tolist()) for name, shape in zip(self._names, found, strict=False)}
        return shapes, dict(zip(self._whole, found[len(self._names) :], strict=True))


def shapes_of(
    model: onnx.ModelProto, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a graph's values, its inputs among them, for these inputs."""
    made = {output for node in model.graph.node for output in node.output}
    shapes, _ = Shapes(model, [name for name in names if name in made]).run(feeds)
    return {**{name: feeds[name].shape for name in names if name in feeds}, **shapes}


def types_of(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, int]:
    """Return the `TensorProto.DataType` of values that nodes make, as onnxruntime infers it; nothing is computed."""
    with _extended(model, added=[onnx.ValueInfoProto(name=name) for name in names], only=True):
        session = _opened(model)
    return {value.name: _TYPES[value.type] for value in session.get_outputs()}


_TYPES = {f"tensor({name.lower()})": number for name, number in TensorProto.DataType.items()}
"""By onnxruntime's names of them."""


@contextlib.contextmanager
def _extended(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto] = (),
    added: Sequence[onnx.ValueInfoProto] = (),
    *,
    only: bool = False,
) -> Iterator[None]:
    """Let a graph have more nodes and outputs, or only these outputs, for a while; a copy would double its weights."""
    graph = model.graph
    count, outputs = len(graph.node), list(graph.output)
    try:
        graph.node.extend(nodes)
        if only:
            del graph.output[:]
        graph.output.extend(added)
        yield
    finally:
        del graph.node[count:]
        del graph.output[:]
        graph.output.extend(outputs)


def _opened(model: onnx.ModelProto, *, shapes_first: bool = False) -> onnxruntime.InferenceSession:
    # as it stands: onnxruntime 1.19 fuses MatMul, Reshape and BatchNormalization into a wrong Gemm
    return sessions.open_session(
        model.SerializeToString(), threads=process.available_cores(), optimize=False, shapes_first=shapes_first
    )


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
