"""Bring a graph into the form the rest of the preparation works on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
from onnx import defs, inliner, shape_inference, version_converter

from edgetl import defaults
from edgetl.artifacts import ARRAY, AUDIO, BATCH_LOGITS, IMAGE, LOGITS, PROBABILITIES, VALUES
from edgetl.errors import ModelError
from edgetl.graph.build import prune, strip

_MOST_LISTED = 3
_CHANGED = {"DFT", "GridSample", "GroupNormalization"}
"""Operators that mean something else in a newer opset."""
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "block_size": (0,),
    "dilations": ([1], [1, 1], [1, 1, 1]),
    "output_dtype": (0,),
    "precision": (0,),
    "round_mode": (b"up",),
    "saturate": (0, 1),  # of 8-bit floats alone
}
"""Attributes of newer opsets, with values that change nothing."""
_NEWER_VALUES = {b"half_pixel_symmetric", b"wrap"}
_RESERVED = {IMAGE, AUDIO, ARRAY, LOGITS, PROBABILITIES, VALUES, BATCH_LOGITS, "labels"}


def clean(model: onnx.ModelProto, *, outputs: Sequence[str] = ()) -> onnx.ModelProto:
    """Return a copy in edgetl's opset and IR version, with a dynamic batch and no reserved names.

    Constants become initializers, what no output needs is dropped, nodes are in an order that runs.

    Args:
        outputs: names that the outputs must have; an optimizer may have renamed them.

    Raises:
        ModelError: the opset cannot be converted, or an operator is not a standard one.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    if foreign := [node for node in model.graph.node if node.domain not in ("", "ai.onnx")]:
        listed = ", ".join(f"{n.op_type} {n.name or n.output[0]!r} of {n.domain}" for n in foreign[:_MOST_LISTED])
        rest = f" and {len(foreign) - _MOST_LISTED} more" if len(foreign) > _MOST_LISTED else ""
        raise ModelError(
            f"the network needs operators outside of the ONNX standard: {listed}{rest}; export it without them"
            + (", before ONNX Runtime optimises it" if any("microsoft" in node.domain for node in foreign) else "")
        )
    version = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if version != defaults.OPSET:
        try:
            if version > defaults.OPSET:
                model = _without_newer_operators(model, version)
            older = _relabelled(model) if version > defaults.OPSET else None
            model = older or version_converter.convert_version(model, defaults.OPSET)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1].rpartition("failed: ")[-1]
            raise ModelError(f"the graph's opset {version} cannot be converted to {defaults.OPSET}: {reason}") from None
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ir_version = defaults.IR_VERSION
    result.producer_name = "edgetl"
    graph = result.graph
    _constants_to_initializers(graph)
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]  # IR 3 lists weights as inputs
    for value in inputs:
        if not value.type.tensor_type.shape.dim:
            raise ModelError(f"the model's input {value.name!r} has no batch axis: export the model with one")
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.input[:]
    graph.input.extend(inputs)
    _rename(graph, {name: f"{name}_" for name in _RESERVED})
    for output, name in zip(list(graph.output), outputs, strict=False):
        if output.name != name:
            graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
            output.name = name
    prune(graph)
    strip(result)
    return result


def _without_newer_operators(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Replace operators that edgetl's opset lacks, such as Gelu, by the older ones that define them."""
    newer = set()
    for op in {node.op_type for node in model.graph.node}:
        if op == "GroupNormalization" and version >= 21:  # its scale and bias changed their meaning
            newer.add(op)
        try:
            defs.get_schema(op, defaults.OPSET, "")
        except defs.SchemaError:
            newer.add(op)
    if not newer:
        return model
    typed = shape_inference.infer_shapes(model)  # some definitions depend on the types of their inputs
    typed.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in typed.graph.initializer
    )
    return inliner.inline_selected_functions(typed, [("", op) for op in sorted(newer)], inline_schema_functions=True)


def _relabelled(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return the model as one of edgetl's opset if all its nodes mean there what they mean in their own, else None.

    Most newer versions of operators only allow more types; onnx's converter refuses many of them.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in _nodes(result.graph):
        old = defs.get_schema(node.op_type, defaults.OPSET, "")
        if node.op_type in _CHANGED or len(node.input) > old.max_input or len(node.output) > old.max_output:
            return None
        defaults_only = [item for item in node.attribute if item.name not in old.attributes]
        if any(onnx.helper.get_attribute_value(item) not in _NEUTRAL.get(item.name, ()) for item in defaults_only):
            return None
        if any(item.s in _NEWER_VALUES for item in node.attribute):
            return None
        for item in defaults_only:
            node.attribute.remove(item)
    del result.opset_import[:]
    result.opset_import.append(onnx.helper.make_opsetid("", defaults.OPSET))
    return result


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner)


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    nodes = []
    for node in graph.node:
        value = _constant_value(node) if node.op_type == "Constant" else None
        if value is not None:
            value.name = node.output[0]
            graph.initializer.append(value)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return what a Constant holds, whichever of its attributes says so; None for a sparse tensor."""
    attribute = node.attribute[0]
    tensor = onnx.TensorProto()
    if attribute.name == "value":
        tensor.CopyFrom(attribute.t)
        return tensor
    kinds = {"value_float": ("f", 1), "value_floats": ("floats", 1), "value_int": ("i", 7), "value_ints": ("ints", 7)}
    if attribute.name not in kinds:
        return None
    field, data_type = kinds[attribute.name]
    value = getattr(attribute, field)
    many = field.endswith("s")
    return onnx.helper.make_tensor("", data_type, [len(value)] if many else [], value if many else [value])


def _rename(graph: onnx.GraphProto, wanted: dict[str, str]) -> None:
    """Give way where the graph uses a name that edgetl's own graphs use."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    renamed = {name: new for name, new in wanted.items() if name in taken}
    while clash := {name for name, new in renamed.items() if new in taken}:
        renamed.update({name: renamed[name] + "_" for name in clash})
    for node in graph.node:
        for values in (node.input, node.output):
            for i, name in enumerate(values):
                values[i] = renamed.get(name, name)
    for part in (graph.input, graph.output, graph.initializer):
        for item in part:
            item.name = renamed.get(item.name, item.name)
