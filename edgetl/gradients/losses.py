"""A network's graph with its loss: what is differentiated."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edgetl.artifacts import BATCH_LOGITS, SAMPLE_WEIGHTS, TARGETS
from edgetl.engines.names import LOSS
from edgetl.errors import ModelError
from edgetl.graph.build import Nodes, make_model
from edgetl.losses.registry import LOSSES


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
    each = LOSSES[loss].each(op, BATCH_LOGITS, TARGETS)
    op.ReduceSum(op.Mul(each, SAMPLE_WEIGHTS), keepdims=0, out=LOSS)
    logits = graph.output[0]
    width = logits.type.tensor_type.shape.dim[1].dim_value
    graph.input.append(helper.make_tensor_value_info(TARGETS, TensorProto.FLOAT, ["batch", width]))
    graph.input.append(helper.make_tensor_value_info(SAMPLE_WEIGHTS, TensorProto.FLOAT, ["batch"]))
    graph.output.insert(0, helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, []))
    graph.node.extend(op.nodes)
    graph.initializer.extend(op.initializers)
    return make_model(graph)
