"""A graph that was exported in training mode, as if it had been exported in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.graph.build import node_inputs, prune

_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_STATISTICS = {1: 3, 2: 4, 3: 3, 4: 4}
"""Of BatchNormalization: which input an output of its training mode takes the place of, by position."""


def in_evaluation_mode(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Return a graph of any opset in which batch normalisation uses its running statistics, and nothing drops out.

    An input that only says whether the network trains is dropped.

    Returns:
        The graph, and whether it was in training mode.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    true = set(_true_values(graph)) | {value.name for value in graph.input}
    read = {name for node in graph.node for name in node_inputs(node)}
    renamed: dict[str, str] = {}
    trained = False
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "BatchNormalization":
            extra = {i: name for i, name in enumerate(node.output) if i and name}
            trained |= bool(extra) or _flag(node, "training_mode")
            renamed.update({name: node.input[_STATISTICS[i]] for i, name in extra.items()})
            del node.output[1:]
            _clear(node, "training_mode")
        elif node.op_type == "Dropout":
            trained |= len(node.input) > 2 and node.input[2] in true
            del node.input[1:]
        if node.op_type in ("BatchNormalization", "Dropout") and any(a.name == "is_test" for a in node.attribute):
            trained |= not _flag(node, "is_test")
            _clear(node, "is_test")
            node.attribute.append(helper.make_attribute("is_test", 1))
    if not trained:
        return model, False
    outputs = [value for value in graph.output if value.name not in renamed]
    del graph.output[:]
    graph.output.extend(outputs)
    still = {name for node in graph.node for name in node_inputs(node)} | {value.name for value in outputs}
    inputs = [value for value in graph.input if value.name in still or value.name not in read]
    del graph.input[:]
    graph.input.extend(inputs)
    prune(graph)
    return result, True


def refuse_random(what: str, graph: onnx.GraphProto) -> None:
    """Refuse a graph whose outputs depend on numbers that it draws.

    Raises:
        ModelError: it names the operator.
    """
    for node in graph.node:
        if node.op_type in _RANDOM:
            raise ModelError(
                f"{what} draws random numbers ({node.op_type} {node.name or node.output[0]!r}), as in training: export "
                "the network in evaluation mode"
            )


def _true_values(graph: onnx.GraphProto) -> Iterator[str]:
    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.extend((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
    for name, tensor in tensors:
        if tensor.data_type == onnx.TensorProto.BOOL and numpy_helper.to_array(tensor).all():
            yield name


def _flag(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def _clear(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
