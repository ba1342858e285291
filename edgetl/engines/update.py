"""What follows the gradients in a training step: clipping, and the optimizer's arithmetic.

`portable/train_step.onnx` holds a step with the manifest's optimizer. On the device, other settings
take that optimizer's place, and gradients are added up over parts of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgetl.artifacts import BATCH_LOGITS, TensorSpec
from edgetl.engines.names import GRADIENT, LOSS, NEW, SUM
from edgetl.errors import EngineError
from edgetl.graph.build import Nodes, make_model, prune
from edgetl.optimizers.registry import Optimizer
from edgetl.optimizers.rule import LEARNING_RATE, STEP

CLIP_EPSILON = 1e-6
"""Added to the norm before dividing, as torch.nn.utils.clip_grad_norm_ and onnxruntime-training do."""


VECTOR = np.array([-1], np.int64)


def with_update(gradients: onnx.ModelProto, trainable: Sequence[TensorSpec], optimizer: Optimizer) -> onnx.ModelProto:
    """Return a whole step: a graph that ends in `p/gradient` for each parameter p, followed by the optimizer.

    Its outputs are `loss`, `batch_logits`, and `p/new` and `p/STATE/new` for each parameter.
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(gradients.graph)
    results = [value for value in graph.output if value.name in (LOSS, BATCH_LOGITS)]
    del graph.output[:]
    graph.output.extend(results)
    _append_update(graph, trainable, optimizer)
    graph.name = "train_step"
    return make_model(graph)


def update_step(trainable: Sequence[TensorSpec], optimizer: Optimizer) -> onnx.ModelProto:
    """Return the optimizer alone: parameters, `p/gradient`, state, rate and step to new parameters and state."""
    graph = helper.make_graph([], "update_step", [_float(spec.name + GRADIENT, spec) for spec in trainable], [])
    graph.input.extend(_float(spec.name, spec) for spec in trainable)
    _append_update(graph, trainable, optimizer)
    return make_model(graph)


def accumulating(train_step: onnx.ModelProto, trainable: Sequence[TensorSpec]) -> onnx.ModelProto:
    """Return a step's graph without its optimizer; the gradients are added to `p/sum`, giving `p/sum/new`."""
    graph = gradients_of(train_step, trainable).graph
    results = [value for value in graph.output if value.name in (LOSS, BATCH_LOGITS)]
    del graph.output[:]
    graph.output.extend(results)
    for spec in trainable:
        total = spec.name + SUM
        graph.input.append(_float(total, spec))
        graph.node.append(helper.make_node("Add", [total, spec.name + GRADIENT], [total + NEW]))
        graph.output.append(_float(total + NEW, spec))
    graph.name = "accumulate"
    return make_model(graph)


def gradients_of(train_step: onnx.ModelProto, trainable: Sequence[TensorSpec]) -> onnx.ModelProto:
    """Return a step's graph up to its gradients: `loss`, `batch_logits` and `p/gradient` for each parameter."""
    graph = onnx.GraphProto()
    graph.CopyFrom(train_step.graph)
    results = [value for value in graph.output if value.name in (LOSS, BATCH_LOGITS)]
    del graph.output[:]
    graph.output.extend([*results, *(_float(spec.name + GRADIENT, spec) for spec in trainable)])
    prune(graph)
    used = {name for node in graph.node for name in node.input}
    inputs = [value for value in graph.input if value.name in used]
    del graph.input[:]
    graph.input.extend(inputs)
    return make_model(graph)


def set_ort_optimizer(model: onnx.ModelProto, optimizer: Optimizer) -> None:
    """Give onnxruntime-training's `optimizer_model.onnx`, which holds an AdamWOptimizer, these settings, in place.

    Raises:
        EngineError: that operator cannot be this optimizer.
    """
    (node,) = (node for node in model.graph.node if node.op_type == "AdamWOptimizer")
    values = optimizer.rule.ort_attributes(optimizer.hyperparameters, optimizer.weight_decay)
    if values is None:
        raise EngineError(f"onnxruntime-training has no {optimizer.name}: use --engine portable")
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
    if optimizer.clip_norm is not None:
        clipped = helper.make_node(
            "InplaceClipGradNorm",
            [node.input[3]],
            ["clipped_gradients"],
            domain="com.microsoft",
            max_norm=optimizer.clip_norm,
        )
        node.input[3] = clipped.output[0]
        model.graph.node.insert(0, clipped)


def _append_update(graph: onnx.GraphProto, trainable: Sequence[TensorSpec], optimizer: Optimizer) -> None:
    op = Nodes("edgetl/update")
    gradients = {spec.name: spec.name + GRADIENT for spec in trainable}
    if optimizer.clip_norm is not None:
        gradients = _clipped(op, gradients, optimizer.clip_norm)
    rule, values = optimizer.rule, optimizer.hyperparameters
    decay = op.Mul(LEARNING_RATE, optimizer.weight_decay) if optimizer.weight_decay else None
    scalars = rule.scalars(op, values)
    suffixes = ("", *rule.state)
    for spec in trainable:
        operands = [spec.name + suffix for suffix in suffixes] + [gradients[spec.name]]
        # onnxruntime goes through a tensor that ends in axes of length 1, as 1×1 kernels do, element by
        # element where the other operand is a scalar: fifty times as slow as through a vector
        if flat := len(spec.shape) > 1 and spec.shape[-1] == 1:
            operands = [op.Reshape(name, VECTOR) for name in operands]
        parameter, *state, gradient = operands
        made = rule.update(op, parameter, state, gradient, decay, scalars, values)
        for suffix, value in zip(suffixes, made, strict=True):
            new = spec.name + suffix + NEW
            if flat:
                op.Reshape(value, np.array(spec.shape, np.int64), out=new)
            else:
                op.Identity(value, out=new)
            graph.output.append(_float(new, spec))
        graph.input.extend(_float(spec.name + suffix, spec) for suffix in suffixes[1:])
    graph.input.append(helper.make_tensor_value_info(LEARNING_RATE, TensorProto.FLOAT, []))
    graph.input.append(helper.make_tensor_value_info(STEP, TensorProto.INT64, []))
    graph.node.extend(op.nodes)
    graph.initializer.extend(op.initializers)


def _clipped(op: Nodes, gradients: Mapping[str, str], largest: float) -> dict[str, str]:
    """Scale all gradients by `min(1, largest/(‖g‖ + ε))`, ‖g‖ over all of them (Pascanu et al. 2013)."""
    squares = [op.ReduceSumSquare(gradient, keepdims=0) for gradient in gradients.values()]
    norm = op.Sqrt(squares[0] if len(squares) == 1 else op.Sum(*squares))
    factor = op.Min(op.Div(largest, op.Add(norm, CLIP_EPSILON)), 1.0)
    return {name: op.Mul(gradient, factor) for name, gradient in gradients.items()}


def _float(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(spec.shape))
