"""Weights that an ONNX file keeps in other files: they may lie in its own directory, and nowhere else.

Newer versions of ONNX Runtime see to that themselves, and 1.19 reads any file that a model names.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.errors import EngineError, one_sentence

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_KEY = b"location"
"""Of the entry that names the other file."""


def refuse_external_data_elsewhere(model: Path) -> None:
    """Refuse an ONNX model whose weights lie outside of its directory.

    Raises:
        EngineError: it names the first such file; or the model names files, perhaps, and cannot be read.
        OSError: the model cannot be read.
    """
    home = model.resolve().parent
    for location in _external(model):
        if not (home / location).resolve().is_relative_to(home):
            raise EngineError(f"{model} keeps weights in {location!r}, outside of its directory: they are not read")


def external_files(model: Path) -> list[Path]:
    """Return the files in which an ONNX model keeps weights, as far as they are there, sorted.

    Raises:
        EngineError, OSError: as above.
    """
    found = {model.resolve().parent / location for location in _external(model)}
    return sorted(file for file in found if file.is_file())


def _external(model: Path) -> Iterator[str]:
    if not _mentions(model, _KEY):
        return  # most models, without being parsed
    import onnx

    # what only another reader understands is not handed on to it
    with one_sentence(EngineError, f"{model} is not an ONNX model that can be read"):
        found = onnx.load(model, load_external_data=False)
    yield from _locations(found)


def _mentions(file: Path, text: bytes) -> bool:
    with open(file, "rb") as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(text) >= 0
        except ValueError:  # it is empty
            return False


def _locations(model: ModelProto) -> Iterator[str]:
    inner = (_of_nodes(function.node) for function in model.functions)
    for tensor in itertools.chain(_tensors(model.graph), *inner):
        yield from (entry.value for entry in tensor.external_data if entry.key == _KEY.decode())


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)
