"""Bring a graph into the form the rest of prepare works on."""

from __future__ import annotations

import onnx
from onnx import version_converter

from edgetl import defaults
from edgetl.deployed import IMAGE, LOGITS, PROBABILITIES
from edgetl.errors import ModelError
from edgetl.graphs import strip
from edgetl.preparation.graph import prune
from edgetl.preparation.heads import BATCH_LOGITS

_RESERVED = {IMAGE, LOGITS, PROBABILITIES, BATCH_LOGITS, "labels"}


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in edgetl's opset and IR version, with a dynamic batch and no reserved names.

    Raises:
        ModelError: the opset cannot be converted, or an operator is not a standard one.
    """
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if foreign or model.functions:
        raise ModelError(
            f"the graph uses operators outside of the ONNX standard ({', '.join(sorted(foreign)) or 'functions'})"
        )
    version = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if version != defaults.OPSET:
        try:
            model = version_converter.convert_version(model, defaults.OPSET)
        except Exception as error:
            raise ModelError(f"the graph's opset {version} cannot be converted to {defaults.OPSET}: {error}") from None
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ir_version = defaults.IR_VERSION
    result.producer_name = "edgetl"
    graph = result.graph
    _constants_to_initializers(graph)
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]  # IR 3 lists weights as inputs
    del graph.input[:]
    graph.input.extend(inputs)
    if len(inputs) != 1:
        raise ModelError(f"the model has {len(inputs)} inputs; a picture classifier has one")
    inputs[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    graph.input[0].CopyFrom(inputs[0])
    _rename_reserved(graph)
    prune(graph)
    strip(result)
    return result


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    nodes = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _rename_reserved(graph: onnx.GraphProto) -> None:
    """Give way where the graph uses a name that edgetl's own graphs use."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    renamed = {name: f"{name}_" for name in _RESERVED & taken}
    while clash := {name for name, new in renamed.items() if new in taken}:
        renamed.update({name: renamed[name] + "_" for name in clash})
    for node in graph.node:
        for values in (node.input, node.output):
            for i, name in enumerate(values):
                values[i] = renamed.get(name, name)
    for part in (graph.input, graph.output, graph.initializer):
        for item in part:
            item.name = renamed.get(item.name, item.name)
