"""Biases of a quantised network, changed so that the mean of each channel is the float network's.

Rounded weights and activations shift the mean of what a layer gives, and shifts add up over layers. One layer after
the other, from the input on, its bias takes up the difference of the means over a few samples (Nagel et al. 2019,
"Data-Free Quantization through Weight Equalization and Bias Correction", section 4.2, with means measured on samples
as in its appendix D): the layers before it are then corrected already, and rounded as they will be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.graph.observe import Feeds, Reduction, observe
from edgetl.runtime import sessions

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_WITH_BIAS = ("Conv", "Gemm")


def add_biases(model: onnx.ModelProto) -> None:
    """Give convolutions without a bias one of zeros, in place, so that they can be corrected."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 2 and node.input[1] in tensors:
            zeros = np.zeros(tensors[node.input[1]].dims[0], np.float32)
            name = f"{node.output[0]}/bias"
            model.graph.initializer.append(numpy_helper.from_array(zeros, name))
            node.input.append(name)


def channel_means(model: onnx.ModelProto, samples: Iterable[Feeds]) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each channel of what convolutions and linear layers give, by the node's name."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in _WITH_BIAS and node.input[1] in ranks]
    reductions = [Reduction(node.output[0], "ReduceMean", ranks[node.input[1]]) for node in nodes]
    if not nodes:
        return {}
    means = [[value.astype(np.float64) for value in reduced] for reduced in observe(model, reductions, samples)]
    return {node.name: np.mean(values, axis=0) for node, values in zip(nodes, zip(*means, strict=True), strict=True)}


def correct_biases(
    quantized: onnx.ModelProto, means: Mapping[str, NDArray[np.float64]], samples: Sequence[Feeds]
) -> None:
    """Change the int32 biases of a graph of QuantizeLinear and DequantizeLinear in place.

    It runs in pieces, from one QuantizeLinear to the next, so that of each sample only bytes are kept.

    Args:
        means: of the float network over the same samples, from `channel_means`.
    """
    graph = quantized.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    known: dict[str, list[NDArray[Any]]] = {
        value.name: [feed[value.name] for feed in samples] for value in graph.input if value.name not in tensors
    }
    correctable = [node for node in graph.node if node.name in means and _quantized_bias(node, producers, tensors)]
    pieces = _pieces(graph, known) if correctable else []
    for number, piece in enumerate(pieces):
        for node in piece.nodes:
            bias = _quantized_bias(node, producers, tensors) if node.name in means else None
            if bias is not None:
                found = [value.mean(axis=(0, *range(2, value.ndim))) for value in _run(piece, node.output[0], known)]
                _shift(*bias, means[node.name] - np.mean(found, axis=0, dtype=np.float64))
        known[piece.output] = list(_run(piece, piece.output, known))
        later = {name for other in pieces[number + 1 :] for name in other.inputs}
        known = {name: values for name, values in known.items() if name in later}


@dataclass(frozen=True)
class _Piece:
    """Nodes that give `output` from `inputs`, with the tensors that they hold."""

    nodes: list[onnx.NodeProto]
    tensors: list[onnx.TensorProto]
    inputs: list[str]
    output: str


def _pieces(graph: onnx.GraphProto, inputs: Iterable[str]) -> list[_Piece]:
    """Cut a graph, whose nodes are in order, after each QuantizeLinear of an activation, and at its outputs."""
    from edgetl.graph.build import node_inputs

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    position = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    ends = [node.output[0] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in tensors]
    ends += [value.name for value in graph.output if value.name in position and value.name not in ends]
    sources, pieces = set(inputs), []
    for end in ends:
        needed: set[int] = set()
        read: set[str] = set()
        stack = [end]
        while stack:
            name = stack.pop()
            if name in read:
                continue
            if name in sources or name in tensors:
                read.add(name)
            elif name in position and position[name] not in needed:
                needed.add(position[name])
                stack.extend(name for name in node_inputs(graph.node[position[name]]) if name)
        held, taken = [tensors[name] for name in sorted(read - sources)], sorted(read & sources)
        pieces.append(_Piece([graph.node[i] for i in sorted(needed)], held, taken, end))
        sources.add(end)
    return pieces


def _run(piece: _Piece, output: str, known: Mapping[str, list[NDArray[Any]]]) -> Iterator[NDArray[Any]]:
    """Yield one of a piece's tensors for each sample."""
    import onnx
    from onnx import helper

    from edgetl.graph.build import make_model

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(known[name][0].dtype), None)
        for name in piece.inputs
    ]
    graph = helper.make_graph(piece.nodes, "piece", inputs, [onnx.ValueInfoProto(name=output)], piece.tensors)
    session = sessions.open_session(make_model(graph).SerializeToString())
    for values in zip(*(known[name] for name in piece.inputs), strict=True):
        yield session.run([output], dict(zip(piece.inputs, values, strict=True)))[0]


def _quantized_bias(
    node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], tensors: Mapping[str, onnx.TensorProto]
) -> tuple[onnx.TensorProto, NDArray[np.float32]] | None:
    """The int32 tensor of a node's bias and its scale, `[]` or `[C]`; None where the node is not quantised."""
    from onnx import TensorProto, numpy_helper

    scaled = producers.get(node.input[2]) if len(node.input) > 2 else None
    if scaled is None or scaled.op_type != "DequantizeLinear" or scaled.input[0] not in tensors:
        return None
    bias = tensors[scaled.input[0]]
    return (bias, numpy_helper.to_array(tensors[scaled.input[1]])) if bias.data_type == TensorProto.INT32 else None


def _shift(bias: onnx.TensorProto, scale: NDArray[np.float32], shift: NDArray[np.float64]) -> None:
    from onnx import numpy_helper

    limits = np.iinfo(np.int32)
    shifted = np.rint(numpy_helper.to_array(bias) + shift / scale).clip(limits.min, limits.max)
    bias.CopyFrom(numpy_helper.from_array(shifted.astype(np.int32), bias.name))
