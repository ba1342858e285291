"""Losses, in operators that onnxruntime-training differentiates exactly.

Every loss is `Σₙ wₙ·ℓ(zₙ, tₙ)`, with logits z and targets t `[N, K]` and the samples' weights w `[N]`.
Weights that add up to 1 over a batch give its mean, whatever parts the batch is computed in; label
smoothing and the weights of classes are in t and w, not in the graph.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgetl.artifacts import BATCH_LOGITS, SAMPLE_WEIGHTS, TARGETS
from edgetl.engines.names import LOSS
from edgetl.errors import ModelError
from edgetl.graph.build import Nodes, make_model


def with_loss(model: onnx.ModelProto, loss: str) -> onnx.ModelProto:
    """Return features → `batch_logits` extended by the inputs `targets` and `sample_weights` and the output `loss`.

    Raises:
        ModelError: there is no such loss, or the model has taken one of these names.
    """
    if loss not in LOSSES:
        raise ModelError(f"there is no loss {loss!r}: choose one of {', '.join(LOSSES)}")
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    names |= {name for node in graph.node for name in node.output}
    if clash := names & {TARGETS, SAMPLE_WEIGHTS, LOSS}:
        raise ModelError(f"the network has a tensor named {clash.pop()!r}, which the training graph needs: rename it")
    op = Nodes("edgetl/loss")
    each = LOSSES[loss](op, BATCH_LOGITS, TARGETS)
    op.ReduceSum(op.Mul(each, SAMPLE_WEIGHTS), keepdims=0, out=LOSS)
    logits = graph.output[0]
    width = logits.type.tensor_type.shape.dim[1].dim_value
    graph.input.append(helper.make_tensor_value_info(TARGETS, TensorProto.FLOAT, ["batch", width]))
    graph.input.append(helper.make_tensor_value_info(SAMPLE_WEIGHTS, TensorProto.FLOAT, ["batch"]))
    graph.output.insert(0, helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, []))
    graph.node.extend(op.nodes)
    graph.initializer.extend(op.initializers)
    return make_model(graph)


def _cross_entropy(op: Nodes, z: str, t: str) -> str:
    """`-Σₖ tₖ·log softmax(z)ₖ`."""
    return op.Neg(_sum(op, op.Mul(t, op.LogSoftmax(z, axis=1))))


def _binary_cross_entropy(op: Nodes, z: str, t: str) -> str:
    """`-(1/K) Σₖ tₖ·log σ(zₖ) + (1 - tₖ)·log σ(-zₖ)`: a cross-entropy of the pairs `(z/2, -z/2)`.

    The usual form `max(z, 0) - z·t + log(1 + exp(-|z|))` has the wrong gradient at z = 0, where a new
    head begins.
    """
    pairs = op.Concat(op.Unsqueeze(op.Mul(z, 0.5), LAST), op.Unsqueeze(op.Mul(z, -0.5), LAST), axis=2)
    wanted = op.Concat(op.Unsqueeze(t, LAST), op.Unsqueeze(op.Sub(1.0, t), LAST), axis=2)
    each = op.ReduceSum(op.Mul(wanted, op.LogSoftmax(pairs, axis=2)), LAST, keepdims=0)
    return op.Neg(_mean(op, each))


def _mean_squared_error(op: Nodes, z: str, t: str) -> str:
    """`(1/K) Σₖ (zₖ - tₖ)²`."""
    error = op.Sub(z, t)
    return _mean(op, op.Mul(error, error))


def _l1(op: Nodes, z: str, t: str) -> str:
    """`(1/K) Σₖ |zₖ - tₖ|`; its slope at 0 is taken as 0."""
    return _mean(op, op.Abs(op.Sub(z, t)))


def _sum(op: Nodes, x: str) -> str:
    return op.ReduceSum(x, COLUMNS, keepdims=0)


def _mean(op: Nodes, x: str) -> str:
    return op.ReduceMean(x, COLUMNS, keepdims=0)


COLUMNS = np.array([1], np.int64)
LAST = np.array([2], np.int64)

LOSSES: dict[str, Callable[[Nodes, str, str], str]] = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "mean_squared_error": _mean_squared_error,
    "l1": _l1,
}
