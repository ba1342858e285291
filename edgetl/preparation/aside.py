"""Large weights lie in a file while a network is prepared, and its graphs only point there.

So a copy of a graph copies no weights, and a run maps them instead of parsing them: memory does not grow with the
number of graphs that are held at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LARGE = 1 << 14
"""Bytes; what is smaller stays in the graph."""

_FILE = "weights"
_ALIGNMENT = 64
_GRAPH, _INITIALIZER, _RAW_DATA, _EXTERNAL_DATA = 7, 5, 9, 13
"""Numbers of fields in ONNX's messages."""


def set_aside(model: onnx.ModelProto, names: Collection[str], directory: Path) -> onnx.ModelProto:
    """Write the large weights of these names to the directory; return the model without them, which then points there.

    The given model is changed, too, but holds on to its memory.
    """
    for tensor in model.graph.initializer:
        if tensor.name in names and len(tensor.raw_data) >= LARGE:
            point(tensor, put(numpy_helper.to_array(tensor), directory))
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def put(array: NDArray[Any], directory: Path) -> dict[str, str]:
    """Write an array to the directory and return where it lies, as a tensor's `external_data` says it."""
    with open(directory / _FILE, "ab") as file:
        file.write(bytes(-file.tell() % _ALIGNMENT))
        offset = file.tell()
        np.ascontiguousarray(array).tofile(file)
    # absolute, as no model that is read may have it: nothing but this module follows it
    return {"location": str((directory / _FILE).resolve()), "offset": str(offset), "length": str(array.nbytes)}


def point(tensor: TensorProto, where: Mapping[str, str]) -> None:
    """Let a tensor have its content where `put` has written it."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in where.items():
        tensor.external_data.add(key=key, value=value)


def is_aside(tensor: TensorProto) -> bool:
    """Return whether a tensor points to its content."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """Return a tensor's content; what lies aside is mapped, not read."""
    if not is_aside(tensor):
        return numpy_helper.to_array(tensor)
    where = {entry.key: entry.value for entry in tensor.external_data}
    dtype, shape = helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
    return np.asarray(np.memmap(where["location"], dtype, "r", int(where["offset"]), shape))


def filled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model that holds its weights itself."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in filter(is_aside, result.graph.initializer):
        tensor.raw_data = array_of(tensor).tobytes()
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return result


def with_fed_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """Return a model of which the weights that lie aside are inputs, and these: a session takes them as they lie."""
    weights = {tensor.name: array_of(tensor) for tensor in model.graph.initializer if is_aside(tensor)}
    if not weights:
        return model, {}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    move_to_inputs(result.graph, weights)
    return result, weights


def move_to_inputs(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Make initializers inputs, the last ones, in the order of the initializers."""
    moved = [tensor for tensor in graph.initializer if tensor.name in names]
    graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in moved)
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name in names:
            del graph.initializer[i]


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model with the weights that lie aside, byte for byte as `filled(model).SerializeToString()` gives it."""
    graph: list[Any] = [_fields(model.graph, range(_INITIALIZER))]
    for tensor in model.graph.initializer:
        content = _tensor(tensor)
        graph += [_head(_INITIALIZER, sum(map(len, content))), *content]
    graph.append(_fields(model.graph, range(_INITIALIZER + 1, 1 << 29)))
    with open(path, "wb") as file:
        file.write(_fields(model, range(_GRAPH)))
        file.write(_head(_GRAPH, sum(map(len, graph))))
        for part in graph:
            file.write(part)
        file.write(_fields(model, range(_GRAPH + 1, 1 << 29)))


def serialized(tensor: TensorProto) -> bytes:
    """Return what a tensor with its content in it gives, serialised."""
    return b"".join(_tensor(tensor))


def _tensor(tensor: TensorProto) -> list[Any]:
    if not is_aside(tensor):
        return [tensor.SerializeToString()]
    data = array_of(tensor).reshape(-1).view(np.uint8)
    before, behind = _fields(tensor, range(_RAW_DATA)), _fields(tensor, range(_RAW_DATA + 1, _EXTERNAL_DATA))
    return [before, _head(_RAW_DATA, len(data)), data, behind]


def _fields(message: Any, numbers: range) -> bytes:
    """Return a message with the fields of some numbers alone, serialised."""
    part = type(message)()
    for field, value in message.ListFields():
        if field.number not in numbers:
            continue
        if isinstance(value, str | bytes | int | float):
            setattr(part, field.name, value)
        else:
            getattr(part, field.name).MergeFrom(value)
    return bytes(part.SerializeToString())


def _head(number: int, length: int) -> bytes:
    """Return what comes before the content of a field that holds bytes or a message."""
    return bytes(_varint(number << 3 | 2)) + bytes(_varint(length))


def _varint(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value
