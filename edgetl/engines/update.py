"""What follows the gradients in a training step: clipping, and the optimizer's arithmetic.

`portable/train_step.onnx` holds a step with the manifest's optimizer. On the device, other settings
take that optimizer's place, and gradients are added up over parts of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgetl.artifacts import BATCH_LOGITS, Optimizer, TensorSpec
from edgetl.engines.optimizers import GRADIENT, LEARNING_RATE, LOSS, NEW, STEP, SUM, state_suffixes
from edgetl.graph.build import Nodes, make_model, prune

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
    """Give onnxruntime-training's `optimizer_model.onnx` these settings, in place.

    Its AdamWOptimizer with `adam_mode` 0 is torch's AdamW (decay first, epsilon outside of the
    corrected root). onnxruntime-training has no momentum for SGD, but with β₂ = 1, ε = 1 and without
    bias correction the same operator is `m ← μm + (1 - μ)g; p ← p - ηm`: SGD with momentum, if the
    rate is divided by `1 - μ` (`ort_learning_rate`).
    """
    (node,) = (node for node in model.graph.node if node.op_type == "AdamWOptimizer")
    if optimizer.name == "adamw":
        values: dict[str, float] = {
            "adam_mode": 0,
            "correct_bias": 1,
            "alpha": optimizer.betas[0],
            "beta": optimizer.betas[1],
            "epsilon": optimizer.epsilon,
            "weight_decay": optimizer.weight_decay,
        }
    else:
        values = {
            "adam_mode": 1,
            "correct_bias": 0,
            "alpha": optimizer.momentum,
            "beta": 1.0,
            "epsilon": 1.0,
            "weight_decay": optimizer.weight_decay * (1 - optimizer.momentum),
        }
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
    decay = op.Mul(LEARNING_RATE, optimizer.weight_decay) if optimizer.weight_decay else None
    rates = _adamw_rates(op, optimizer) if optimizer.name == "adamw" else (LEARNING_RATE, "")
    suffixes = ("", *state_suffixes(optimizer))
    for spec in trainable:
        operands = [spec.name + suffix for suffix in suffixes] + [gradients[spec.name]]
        # onnxruntime goes through a tensor that ends in axes of length 1, as 1×1 kernels do, element by
        # element where the other operand is a scalar: fifty times as slow as through a vector
        if flat := len(spec.shape) > 1 and spec.shape[-1] == 1:
            operands = [op.Reshape(name, VECTOR) for name in operands]
        if optimizer.name == "adamw":
            made = _adamw(op, operands, optimizer, decay, *rates)
        else:
            made = _sgd(op, operands, optimizer, decay)
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


def _adamw_rates(op: Nodes, optimizer: Optimizer) -> tuple[str, str]:
    """Return the scalars `η·√(1 - β₂ᵗ)/(1 - β₁ᵗ)` and `ε·√(1 - β₂ᵗ)`; the powers in float64, as torch does."""
    t = op.Cast(STEP, to=TensorProto.DOUBLE)
    first, second = (op.Sub(np.float64(1), op.Pow(np.float64(beta), t)) for beta in optimizer.betas)
    root = op.Sqrt(second)
    size = op.Mul(LEARNING_RATE, op.Cast(op.Div(root, first), to=TensorProto.FLOAT))
    return size, op.Cast(op.Mul(root, np.float64(optimizer.epsilon)), to=TensorProto.FLOAT)


def _adamw(
    op: Nodes, operands: Sequence[str], optimizer: Optimizer, decay: str | None, size: str, epsilon: str
) -> tuple[str, ...]:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2, in torch's order).

    `m ← β₁m + (1 - β₁)g`, `v ← β₂v + (1 - β₂)g²`, and with `m̂ = m/(1 - β₁ᵗ)`, `v̂ = v/(1 - β₂ᵗ)`:
    `p ← p(1 - η·wd) - η·m̂/(√v̂ + ε)`. The last fraction is extended by `√(1 - β₂ᵗ)`, so that each
    correction is a scalar.
    """
    p, m, v, gradient = operands
    beta1, beta2 = optimizer.betas
    m = op.Add(op.Mul(m, beta1), op.Mul(gradient, 1 - beta1))
    v = op.Add(op.Mul(v, beta2), op.Mul(op.Mul(gradient, gradient), 1 - beta2))
    change = op.Mul(op.Div(m, op.Add(op.Sqrt(v), epsilon)), size)
    return op.Sub(_decayed(op, p, decay), change), m, v


def _sgd(op: Nodes, operands: Sequence[str], optimizer: Optimizer, decay: str | None) -> tuple[str, ...]:
    """SGD with momentum (Sutskever et al. 2013, as torch writes it) and decoupled decay (SGDW).

    `m ← μm + g`, `p ← (p - ηm)(1 - η·wd)`.
    """
    p, m, gradient = operands
    m = op.Add(op.Mul(m, optimizer.momentum), gradient)
    moved = op.Sub(p, op.Mul(m, LEARNING_RATE))
    return _decayed(op, moved, decay), m


def _decayed(op: Nodes, p: str, decay: str | None) -> str:
    """Return `p - p·decay`: in a factor `1 - η·wd` as torch has it, small rates lose digits that are none of p's."""
    return op.Sub(p, op.Mul(p, decay)) if decay else p


def _float(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(spec.shape))
