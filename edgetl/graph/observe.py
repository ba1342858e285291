"""What values within a network are like, over samples: reduced within the graph, so that no map is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetl.runtime import sessions

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

Feeds = Mapping[str, "NDArray[Any]"]


@dataclass(frozen=True)
class Reduction:
    """One number, or one for each channel, of a tensor.

    Attributes:
        tensor: its name.
        operator: `ReduceMin`, `ReduceMax` or `ReduceMean`.
        rank: of the tensor, whose channels are kept apart; None reduces it to one number.
        channels: the axis of the channels.
    """

    tensor: str
    operator: str
    rank: int | None = None
    channels: int = 1


def observe(
    model: onnx.ModelProto, reductions: Sequence[Reduction], feeds: Iterable[Feeds]
) -> Iterator[list[NDArray[Any]]]:
    """Yield the reductions of one sample after the other: `[]`, or `[C]` where channels are kept apart."""
    if not reductions:  # a session gives something
        yield from ([] for _ in feeds)
        return
    import onnx

    from edgetl.graph.build import Nodes

    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    op = Nodes("edgetl/observed")
    names = []
    for reduction in reductions:
        operands: list[Any] = [reduction.tensor]
        if reduction.rank is not None:
            axes = [axis for axis in range(reduction.rank) if axis != reduction.channels % reduction.rank]
            operands.append(axes)
        names.append(op.add(reduction.operator, *operands, keepdims=0))
    # each right behind what it reads, and run in this order, so that maps are given up early: 60 MB less of 210
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in op.nodes:
        node.name = node.output[0]
        readers.setdefault(node.input[0], []).append(node)
    nodes = [reader for value in model.graph.input for reader in readers.pop(value.name, [])]
    for node in model.graph.node:
        nodes += [node, *(reader for name in node.output for reader in readers.pop(name, []))]
    del observed.graph.node[:]
    observed.graph.node.extend(nodes)
    observed.graph.initializer.extend(op.initializers)
    del observed.graph.output[:]
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    ort = sessions.import_onnxruntime()
    options = sessions.session_options(1)
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    session = ort.InferenceSession(observed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for feed in feeds:
        yield session.run(names, dict(feed))
