"""MODEL.onnx: a classifier that is a graph already."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper, inliner

from edgetl.artifacts import SPECTROGRAM, Preprocessing, TensorSpec
from edgetl.errors import ModelError, first_line
from edgetl.events import Note, OnEvent, ignore
from edgetl.files.unfolding import refuse_unfolding
from edgetl.graph.batch import check_batch, free_batch
from edgetl.graph.build import node_inputs
from edgetl.graph.clean import clean
from edgetl.graph.index import GraphIndex, graph_inputs
from edgetl.graph.layout import simplify_layout
from edgetl.graph.simplify import simplify
from edgetl.preparation.heads import without_decisions
from edgetl.preparation.sources.evaluation import in_evaluation_mode, refuse_random
from edgetl.preparation.sources.float32 import in_float32
from edgetl.preparation.sources.overrides import of_file
from edgetl.preparation.sources.sizes import refuse_too_large
from edgetl.runtime import sessions

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ELEMENTWISE = {"Add", "Mul"}
_WEIGHT_OPERANDS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "Add": (0, 1),
    "Mul": (0, 1),
}


def load(
    file: Path, overrides: Mapping[str, Any], on_event: OnEvent = ignore
) -> tuple[onnx.ModelProto, tuple[str, ...], Preprocessing]:
    """Read an ONNX classifier with an input `[batch, channels, height, width]` or `[batch, height, width, channels]`.

    The result takes channels first and any batch, and is compared with the original on single
    pictures.

    Raises:
        ModelError: the file is not such a model.
    """
    original = _read(file, on_event)
    takes_bytes = _takes_bytes(original.graph)
    model = clean(original)
    if len(model.graph.input) != 1:
        raise ModelError(f"{file} has {len(model.graph.input)} inputs; a picture classifier has one")
    dims = _dims(model.graph.input[0])
    last = len(dims) == 4 and dims[1] not in (1, 3) and dims[3] in (1, 3)
    channels, height, width = (dims[3], *dims[1:3]) if last else (*dims[1:4], 0, 0, 0)[:3]
    kind = model.graph.input[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT or len(dims) != 4 or channels not in (0, 1, 3):
        raise ModelError(
            f"{file} takes {TensorProto.DataType.Name(kind)} {dims}; expected float pictures "
            "[batch, channels, height, width] or [batch, height, width, channels] with 1 or 3 channels"
        )
    default = None
    if takes_bytes:
        count = channels or 3
        default = Preprocessing(channels=count, mean=(0.0,) * count, std=(1 / 255,) * count)
        on_event(Note(f"{file} takes bytes, so it gets pixels as they are, 0..255"))
    own = of_file(str(file), channels, height, width, overrides, default)
    _channels_first(model.graph, own, last)
    return *_finished(file, original, model, last), own


def load_with_inputs(
    file: Path, inputs: Sequence[TensorSpec], on_event: OnEvent = ignore
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Read an ONNX classifier that takes these inputs, in this order, whatever the file calls them.

    Raises:
        ModelError: the file is not such a model.
    """
    original = _read(file, on_event)
    model = clean(original)
    found = graph_inputs(model.graph)
    if len(found) != len(inputs) or not all(map(_fits, found, inputs)):
        listed = ["; ".join(f"{spec.dtype} {list(spec.shape)}" for spec in specs) for specs in (found, inputs)]
        way = ""
        if inputs[0].name == SPECTROGRAM:
            way = "; change mels, seconds, hop_length, channels, time_first or channels_last with --audio-arg"
        raise ModelError(f"{file} takes, for one sample, {listed[0]} (-1 is any size), not {listed[1]}{way}")
    for value, spec in zip(model.graph.input, inputs, strict=True):
        shape: list[str | int | None] = ["batch", *spec.shape]
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
    return _finished(file, original, model, last=False)


def _read(file: Path, on_event: OnEvent) -> onnx.ModelProto:
    """Return what the file computes from samples to scores, in evaluation mode and with 32-bit numbers."""
    refuse_unfolding(file)
    try:
        model = onnx.load(file)  # onnx itself refuses external data outside of the file's directory
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, checker and external-data errors share no base
        raise ModelError(f"{file} is not a valid ONNX model: {first_line(error)}") from None
    if model.functions:
        model = inliner.inline_local_functions(model)
    refuse_too_large(str(file), model)
    model, trained = in_evaluation_mode(model)
    if trained:
        on_event(
            Note(
                f"{file} was exported in training mode: it is used as in evaluation mode, batch normalisation with its "
                "running statistics and without dropout"
            )
        )
    model, narrow = in_float32(model)
    if narrow:
        on_event(Note(f"{file} holds 16-bit numbers: the network computes and trains in 32 bits"))
    model = without_decisions(model)
    refuse_random(str(file), model.graph)
    return model


def _takes_bytes(graph: onnx.GraphProto) -> bool:
    """Let a graph take floats where it takes bytes, and return whether it took any."""
    constants = {tensor.name for tensor in graph.initializer}
    found = False
    for value in graph.input:
        if value.type.tensor_type.elem_type != TensorProto.UINT8 or value.name in constants:
            continue
        found = True
        value.type.tensor_type.elem_type = TensorProto.FLOAT
        readers = [node for node in graph.node if value.name in node_inputs(node)]
        if all(node.op_type == "Cast" for node in readers):
            continue  # which now has nothing to do
        turned = f"{value.name}/bytes"
        for node in readers:
            node.input[:] = [turned if name == value.name else name for name in node.input]
        graph.node.insert(0, helper.make_node("Cast", [value.name], [turned], to=TensorProto.UINT8))
    return found


def _finished(
    file: Path, original: onnx.ModelProto, model: onnx.ModelProto, last: bool
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Fold constants, free the batch, and compare with the original; `last` if that has channels last."""
    weights = {tensor.name for tensor in original.graph.initializer}
    batch = next(_dims(value)[0] for value in original.graph.input if value.name not in weights) or 1
    parameters = find_parameters(model.graph)
    model = simplify_layout(simplify(model, parameters))
    free_batch(model.graph, batch)
    model = clean(model)
    check_batch(str(file), model, batch, _original(original, model, last))
    left = {item.name for item in model.graph.initializer}
    return model, tuple(name for name in parameters if name in left)


def _fits(found: TensorSpec, wanted: TensorSpec) -> bool:
    if found.dtype != wanted.dtype or len(found.shape) != len(wanted.shape):
        return False
    return all(size in (-1, 0, other) for size, other in zip(found.shape, wanted.shape, strict=True))


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Return an input's shape, with 0 for what is not fixed."""
    return [d.dim_value if d.HasField("dim_value") else 0 for d in value.type.tensor_type.shape.dim]


def _channels_first(graph: onnx.GraphProto, own: Preprocessing, last: bool) -> None:
    """Fix the picture's size, and transpose it where the graph wants channels last."""
    name = graph.input[0].name
    if last:
        turned = f"{name}_nchw"
        graph.node.insert(0, helper.make_node("Transpose", [turned], [name], perm=[0, 2, 3, 1]))
        name = turned
    shape: list[str | int | None] = ["batch", own.channels, own.height, own.width]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _original(
    original: onnx.ModelProto, model: onnx.ModelProto, last: bool
) -> Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]:
    """Return the file as a function; the cleaned model where this onnxruntime does not read the file's version."""
    try:
        session = sessions.open_session(original.SerializeToString())
    except Exception:  # onnxruntime raises bare classes of its own
        session, last = sessions.open_session(model.SerializeToString()), False
    names = [value.name for value in session.get_inputs()]

    def run(feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        arrays = [array.transpose(0, 2, 3, 1) if last else array for array in feeds.values()]
        scores: NDArray[Any] = session.run(None, dict(zip(names, arrays, strict=True)))[0]
        return scores

    return run


def find_parameters(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the float initializers that are weights, in the order of their use.

    Those are: weights and biases of layers, scales and biases of normalisations, slopes, and any
    other tensor of more than one element that meets the data in Add or Mul (biases written as Add,
    layer scales, position embeddings), and tables in which the data look up rows.
    """
    index = GraphIndex(graph)
    from_input = {value.name for value in graph.input}
    found: dict[str, None] = {}
    for node in graph.node:
        if from_input.intersection(node_inputs(node)):
            from_input.update(node.output)
        least = 2 if node.op_type in _ELEMENTWISE else 1
        operands = _WEIGHT_OPERANDS.get(node.op_type, ())
        if node.op_type == "Gather" and node.input[1] in from_input:
            operands = (0,)
        for i in operands:
            tensor = index.constant(node.input[i]) if i < len(node.input) else None
            if tensor is not None and tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= least:
                found[tensor.name] = None
    return tuple(found)
