"""Lower onnxruntime-training's training graph to standard ONNX operators, so that any onnxruntime trains.

The forward and gradient nodes stay what onnxruntime-training's gradient builder made them. Each
operator that only it knows has a rule in the file of its family; the accumulation of gradients gives
way to the optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl import defaults
from edgetl.artifacts import (
    BATCH_LOGITS,
    PORTABLE_EVAL_STEP,
    PORTABLE_PARAMETERS,
    PORTABLE_TRAIN_STEP,
    SAMPLE_WEIGHTS,
    Optimizer,
    TensorSpec,
)
from edgetl.engines.optimizers import GRADIENT, LOSS
from edgetl.engines.update import with_update
from edgetl.errors import ModelError
from edgetl.graphs import make_model, prune
from edgetl.npz import npz_bytes
from edgetl.preparation.aside import array_of, filled
from edgetl.preparation.decompose.builder import FLOATS, Rule, Unsupported
from edgetl.preparation.losses import with_loss
from edgetl.preparation.lower import (
    activations,
    convolution,
    indexing,
    losses,
    normalisation,
    pooling,
    shape,
    standard,
)
from edgetl.preparation.lower.builder import Lowering
from edgetl.preparation.lower.observe import observe

RULES: dict[str, Rule] = {
    **activations.RULES,
    **convolution.RULES,
    **indexing.RULES,
    **losses.RULES,
    **normalisation.RULES,
    **pooling.RULES,
    **shape.RULES,
}

_ACCUMULATOR = "InPlaceAccumulatorV2"
_BUFFER = "_grad.accumulation.buffer"


def lower(training: onnx.ModelProto, trainable: Sequence[TensorSpec], optimizer: Optimizer) -> onnx.ModelProto:
    """Return `train_step.onnx`: one step of the optimizer, in operators of ai.onnx opset 18.

    Inputs: the features, `targets` (`[N, K]`), `sample_weights` (`[N]`), every trainable parameter p and
    its state by name (AdamW: `p/first_moment`, `p/second_moment`; SGD: `p/momentum`), `learning_rate`
    (float32 scalar) and `step` (int64 scalar, 1 for the first). Outputs: `loss` (scalar, before the
    step), `batch_logits`, and each parameter and state with `/new` behind its name.

    Args:
        training: onnxruntime-training's `training_model.onnx`.

    Raises:
        ModelError: operators have no rule; it names all of them.
    """
    model = with_update(lower_gradients(training, trainable), trainable, optimizer)
    onnx.checker.check_model(model)
    return model


def lower_gradients(training: onnx.ModelProto, trainable: Sequence[TensorSpec]) -> onnx.ModelProto:
    """Return the lowered graph without an optimizer: `loss`, `batch_logits` and `p/gradient` for each parameter.

    Raises:
        ModelError: operators have no rule; it names all of them.
    """
    graph, gradients, op = _lowered(training)
    inputs, outputs = _data(graph), _results(graph)
    for spec in trainable:
        if spec.name not in gradients:
            raise ModelError(f"the parameter {spec.name!r} has no gradient: let another share of the network train")
        inputs.append(_float(spec.name, spec.shape))
        outputs.append(_float(spec.name + GRADIENT, spec.shape))
        op.nodes.append(helper.make_node("Identity", [gradients[spec.name]], [spec.name + GRADIENT]))
    return _finished(graph, op, "gradients", inputs, outputs)


def lower_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return any graph that runs in onnxruntime-training in standard operators.

    Raises:
        ModelError: operators have no rule; it names all of them.
    """
    op = _translated(model)
    names = [value.name for value in model.graph.output]
    outputs = [helper.make_tensor_value_info(name, op.element_type(name), op.shape(name)) for name in names]
    return _finished(model.graph, op, model.graph.name, list(model.graph.input), outputs)


def missing(training: onnx.ModelProto) -> tuple[str, ...]:
    """Return the operators, and forms of operators, that no rule lowers; empty if `lower` will succeed."""
    graph, _ = _without_accumulators(training)
    found: list[str] = []
    _translated(_model(training, graph), found)
    return tuple(dict.fromkeys(found))


def eval_step(trainable_model: onnx.ModelProto, trainable: Sequence[TensorSpec], loss: str) -> onnx.ModelProto:
    """Return `eval_step.onnx`: features, `targets`, `sample_weights` and parameters to `loss` and `batch_logits`.

    Args:
        trainable_model: `trainable.onnx`, with the trainable parameters as initializers.
    """
    graph = with_loss(trainable_model, loss).graph
    names = {spec.name for spec in trainable}
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.input.extend(_float(spec.name, spec.shape) for spec in trainable)
    graph.name = "eval_step"
    return filled(make_model(graph))


def write_portable(
    directory: Path,
    training_model: onnx.ModelProto,
    trainable_model: onnx.ModelProto,
    parameters: Sequence[TensorSpec],
    loss: str,
    optimizer: Optimizer,
) -> None:
    """Write `portable/{train_step,eval_step}.onnx` and the initial values, `portable/parameters.npz`.

    Raises:
        ModelError: operators have no rule; it names all of them, and nothing is written.
    """
    step = lower(training_model, parameters, optimizer)
    values = {tensor.name: tensor for tensor in trainable_model.graph.initializer}
    initial = {spec.name: array_of(values[spec.name]) for spec in parameters}
    files = {
        PORTABLE_TRAIN_STEP: step.SerializeToString(),
        PORTABLE_EVAL_STEP: eval_step(trainable_model, parameters, loss).SerializeToString(),
        PORTABLE_PARAMETERS: npz_bytes(initial.items()),
    }
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def _lowered(training: onnx.ModelProto) -> tuple[onnx.GraphProto, dict[str, str], Lowering]:
    """Return the training graph without accumulators, each parameter's gradient, and the lowered nodes."""
    graph, gradients = _without_accumulators(training)
    return graph, gradients, _translated(_model(training, graph))


def _translated(model: onnx.ModelProto, problems: list[str] | None = None) -> Lowering:
    """Apply the rules to a graph; what is constant becomes an initializer."""
    values = observe(model)
    op = Lowering(model, values)
    found = problems if problems is not None else []
    for node in model.graph.node:
        constants = {name: values[name].constant for name in node.output if name}
        known = {name: value for name, value in constants.items() if value is not None}
        if len(known) == len(constants):
            op.initializers.extend(numpy_helper.from_array(value, name) for name, value in known.items())
            continue
        is_standard = node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type, defaults.OPSET, "")
        rule = (standard.RULES if is_standard else RULES).get(node.op_type)
        if rule is None:
            op.nodes.append(node)
            if not is_standard:
                found.append(node.op_type)
            continue
        try:
            _check_types(node, op)
            op.replacing(node, rule)
        except Unsupported as error:
            found.append(f"{node.op_type} ({error})")
    if found and problems is None:
        listed = ", ".join(dict.fromkeys(found))
        raise ModelError(f"the training graph has operators that standard ONNX lacks and no rule replaces: {listed}")
    return op


def _check_types(node: onnx.NodeProto, op: Lowering) -> None:
    # the rules' constants are float32
    others = {op.element_type(name) for name in node.output if name} & (FLOATS - {TensorProto.FLOAT})
    if others:
        raise Unsupported(f"of {TensorProto.DataType.Name(others.pop()).lower()}")


def _without_accumulators(training: onnx.ModelProto) -> tuple[onnx.GraphProto, dict[str, str]]:
    """Return a copy of the graph that ends in the gradients, and the name of each parameter's; no Identity is left."""
    graph = onnx.GraphProto()
    graph.CopyFrom(training.graph)
    ends = [node for node in graph.node if node.op_type == _ACCUMULATOR]
    gone = {name for node in ends for name in (node.input[0], node.input[2], *node.output)}
    copies = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}

    def source(name: str) -> str:
        while name in copies:
            name = copies[name]
        return name

    gradients = {node.input[0].removesuffix(_BUFFER): source(node.input[1]) for node in ends}
    nodes = [node for node in graph.node if node.op_type not in (_ACCUMULATOR, "Identity")]
    for node in nodes:
        node.input[:] = [source(name) for name in node.input]
    inputs = [value for value in graph.input if value.name not in gone]
    outputs = [value for value in graph.output if value.name not in gone]
    for value in outputs:
        if source(value.name) != value.name:
            nodes.append(helper.make_node("Identity", [source(value.name)], [value.name]))
    for part, kept in ((graph.node, nodes), (graph.input, inputs), (graph.output, outputs)):
        copied = [type(item).FromString(item.SerializeToString()) for item in kept]
        del part[:]
        part.extend(copied)
    return graph, gradients


def _model(training: onnx.ModelProto, graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=training.opset_import, ir_version=training.ir_version)


def _data(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are not parameters: features, targets and weights come first."""
    names = [value.name for value in graph.input]
    return list(graph.input[: names.index(SAMPLE_WEIGHTS) + 1])


def _results(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    (logits,) = (value for value in graph.output if value.name == BATCH_LOGITS)
    return [_float(LOSS, ()), logits]


def _finished(
    graph: onnx.GraphProto,
    op: Lowering,
    name: str,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    initializers = [*graph.initializer, *op.initializers]
    result = helper.make_graph(op.nodes, name, inputs, outputs, initializer=initializers)
    for node in result.node:
        node.name = ""
        if node.domain == "ai.onnx":
            node.domain = ""
    prune(result)
    model = make_model(result)
    onnx.checker.check_model(model)
    return model


def _float(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


__all__ = ["RULES", "eval_step", "lower", "lower_gradients", "lower_operators", "missing", "write_portable"]
