"""Rewrite, exactly, what onnxruntime-training 1.19.2 cannot differentiate into operators that it can.

Three kinds of nodes need it: those without a registered gradient, those whose gradient has no CPU
kernel, and those whose gradient is wrong or fails in some form. Each has a rule, in the file of its
family. What the rules leave is listed in `DIFFERENTIABLE`; the forms were found, and are tested, by
comparing every gradient with torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from edgetl.gradients.decompose import activations, convolution, linear, normalisation, reductions, resampling, shape
from edgetl.graph.build import node_inputs, prune
from edgetl.graph.rewrite import Builder, Rule, Unsupported

RULES: dict[str, Rule] = {
    **activations.RULES,
    **convolution.RULES,
    **linear.RULES,
    **normalisation.RULES,
    **reductions.RULES,
    **resampling.RULES,
    **shape.RULES,
}

# right in every form that no rule changes
# fmt: off
DIFFERENTIABLE = {
    "Abs", "Add", "Cast", "Clip", "Concat", "Conv", "Cos", "Div", "Erf", "Exp", "Expand", "Flatten", "Gather",
    "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "Identity", "LayerNormalization",
    "LeakyRelu", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad", "Pow", "Reciprocal",
    "ReduceL2", "ReduceLogSumExp", "ReduceMean", "ReduceSum", "Relu", "Reshape", "ScatterElements", "ScatterND",
    "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "TopK", "Transpose",
    "Trilu", "Unsqueeze", "Where",
}
# fmt: on


# onnxruntime-training changes these where no gradient passes, too
EVERYWHERE = {"BatchNormalization", "Transpose"}


@dataclass(frozen=True)
class Obstacle:
    """A node on a gradient's path that cannot be differentiated.

    Attributes:
        op_type: the operator.
        node: the node's name; its first output's name if it has none.
        reason: why not, to be read behind the two.
    """

    op_type: str
    node: str
    reason: str


def decompose(model: onnx.ModelProto, trainable: Sequence[str]) -> onnx.ModelProto:
    """Return a copy in which every node between a trainable parameter and an output has a gradient.

    Inputs, outputs and the trainable initializers are as before; so is, but for rounding, what the
    graph computes. What cannot be rewritten is left as it is: see `obstacles`.

    Args:
        model: opset 18, a dynamic batch named `batch`, constants as initializers.
        trainable: names of initializers.
    """
    return _rewritten(model, trainable)[0]


def obstacles(model: onnx.ModelProto, trainable: Sequence[str]) -> tuple[Obstacle, ...]:
    """Return every node that stays without a gradient after `decompose`, in the graph's order."""
    return _rewritten(model, trainable)[1]


def _rewritten(model: onnx.ModelProto, trainable: Sequence[str]) -> tuple[onnx.ModelProto, tuple[Obstacle, ...]]:
    builder = Builder(model, trainable)
    found = []
    for node in model.graph.node:
        if not _on_path(node, builder) and node.op_type not in EVERYWHERE:
            builder.nodes.append(node)
            continue
        rule = RULES.get(node.op_type, _unchanged)
        try:
            replaced = builder.replacing(node, rule)
        except Unsupported as error:
            found.append(Obstacle(node.op_type, node.name or node.output[0], str(error)))
            builder.nodes.append(node)
            continue
        if not replaced and node.op_type not in DIFFERENTIABLE:
            reason = "onnxruntime-training 1.19.2 has no gradient for it, and no rule rewrites it"
            found.append(Obstacle(node.op_type, node.name or node.output[0], reason))
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(builder.nodes)
    result.graph.initializer.extend(builder.initializers)
    del result.graph.value_info[:]
    prune(result.graph)
    return result, tuple(found)


def _on_path(node: onnx.NodeProto, builder: Builder) -> bool:
    return not builder.carries.isdisjoint(node_inputs(node)) and not builder.carries.isdisjoint(node.output)


def _unchanged(node: onnx.NodeProto, op: Builder) -> None:
    return None


__all__ = ["DIFFERENTIABLE", "RULES", "Obstacle", "decompose", "obstacles"]
