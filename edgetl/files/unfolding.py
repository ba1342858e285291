"""Graphs that are small on the disk and huge when they run: functions that call functions, loops in loops.

ONNX Runtime and onnx expand functions before they look at anything else. How much that would be can be
counted without it: each function once.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.errors import EngineError, one_sentence

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

MOST_OPERATORS = 1_000_000
"""After expansion, a loop's as often as they run; the largest networks have some tens of thousands."""

_DEEPEST = 100
_FUNCTIONS = 25
"""Number of the field of a ModelProto that holds functions."""


def refuse_unfolding(file: Path) -> None:
    """Refuse an ONNX model that would grow beyond all bounds when it is opened or run.

    Raises:
        EngineError: it would; or it has functions or loops, and cannot be read.
        OSError: the file cannot be read.
    """
    if not _may_unfold(file):
        return  # most models, without being parsed
    import onnx

    with one_sentence(EngineError, f"{file} is not an ONNX model that can be read"):
        model = onnx.load(file, load_external_data=False)
    check_unfolding(str(file), model)


def check_unfolding(what: str, model: ModelProto) -> None:
    """Refuse a model of more than `MOST_OPERATORS`.

    Args:
        what: names the model in the error.

    Raises:
        EngineError: it has more, or a function calls itself.
    """
    count = _Count(what, model).of_graph(model.graph, {})
    if count > MOST_OPERATORS:
        size = f"{count:,}" if count < 10**12 else f"more than 10^{len(str(count)) - 1}"
        raise EngineError(
            f"{what} unfolds to {size} operators, where at most {MOST_OPERATORS:,} are allowed: its functions call "
            "functions, or its loops run, too often; export it anew"
        )


class _Count:
    """Counts operators, each function once."""

    def __init__(self, what: str, model: ModelProto) -> None:
        self._what = what
        self._functions = {(function.domain, function.name): function for function in model.functions}
        self._known: dict[tuple[str, str], int] = {}
        self._open: list[tuple[str, str]] = []

    def of_graph(self, graph: GraphProto, outside: Mapping[str, NodeProto | int]) -> int:
        """Count a graph's operators; `outside` has what a graph around it knows, see `_scope`."""
        return self._of_nodes(graph.node, {**outside, **_scope(graph)})

    def _of_nodes(self, nodes: Iterable[NodeProto], scope: Mapping[str, NodeProto | int]) -> int:
        total = 0
        for node in nodes:
            inner = sum(self.of_graph(graph, scope) for graph in _subgraphs(node))
            total += 1 + inner * _trips(node, scope) + self._of_function((node.domain, node.op_type))
        return total

    def _of_function(self, key: tuple[str, str]) -> int:
        if key not in self._functions:
            return 0
        if key not in self._known:
            if key in self._open or len(self._open) >= _DEEPEST:
                why = "calls itself" if key in self._open else f"calls functions more than {_DEEPEST} deep"
                raise EngineError(f"{self._what} cannot be opened: its function {key[1]!r} {why}; export it anew")
            self._open.append(key)
            self._known[key] = self._of_nodes(self._functions[key].node, _scope(self._functions[key]))
            self._open.pop()
        return self._known[key]


def _scope(graph: GraphProto | FunctionProto) -> dict[str, NodeProto | int]:
    """Return what makes each value of a graph: its node, or the number that it always is."""
    from onnx import numpy_helper

    found: dict[str, NodeProto | int] = {output: node for node in graph.node for output in node.output}
    constants = [(t.name, t) for t in getattr(graph, "initializer", ())]
    for node in graph.node:
        if node.op_type == "Constant":
            constants.extend((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
            found.update((node.output[0], attribute.i) for attribute in node.attribute if attribute.name == "value_int")
    for name, tensor in constants:
        if list(tensor.dims) in ([], [1]) and tensor.data_type in _INTEGERS and not tensor.external_data:
            found[name] = int(numpy_helper.to_array(tensor).reshape(()))
    return found


def _trips(node: NodeProto, scope: Mapping[str, NodeProto | int]) -> int:
    """Return how often a Loop's body runs, as far as the graph says; 1 for other operators.

    A loop that may end before is not counted by its largest number.
    """
    if node.op_type != "Loop" or not node.input[0]:
        return 1
    most = scope.get(node.input[0])
    body = next(_subgraphs(node))
    inner = _scope(body)
    goes_on = body.output[0].name
    while not isinstance(maker := inner.get(goes_on), int) and maker is not None and maker.op_type == "Identity":
        goes_on = maker.input[0]
    always = inner.get(goes_on) == 1 or goes_on == body.input[1].name or scope.get(goes_on) == 1
    return max(1, most) if isinstance(most, int) and always else 1


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


_INTEGERS = (6, 7, 9)  # int32, int64, bool


def _may_unfold(file: Path) -> bool:
    """Return whether a model holds functions or loops."""
    with open(file, "rb") as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(b"Loop") >= 0 or _FUNCTIONS in _fields(content)
        except ValueError:  # it is empty
            return False


def _fields(content: mmap.mmap) -> Iterator[int]:
    """Return the numbers of a protobuf message's own fields, as far as it is one."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while position < len(content) and shift < 70:
            byte = content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
        return value

    while position < len(content):
        key = varint()
        yield key >> 3
        kind = key & 7
        if kind == 0:
            varint()
        elif kind in _WIDTHS:
            position += _WIDTHS[kind]
        elif kind == 2:
            size = varint()
            position += size
        else:
            return  # no message


_WIDTHS = {1: 8, 5: 4}
"""Bytes of numbers of a fixed width, by protobuf's wire type."""
