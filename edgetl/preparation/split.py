"""Cut a network at its freeze boundary: the latest one that has everything trainable behind it.

A node lies behind the boundary if a trainable parameter or another such node feeds it. The boundary
is every value that crosses; it may be more than one tensor, and it is the network's input where the
first layer trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgetl import runtime
from edgetl.artifacts import Preprocessing, TensorSpec
from edgetl.errors import ModelError
from edgetl.graphs import join, make_model
from edgetl.preparation.graph import node_inputs, prune


@dataclass(frozen=True)
class Parts:
    """A network in two parts.

    Attributes:
        backbone: input → features; None where nothing is frozen before the first trainable layer.
        trainable: features → logits, with the parameters' initial values.
        input: the network's input for one sample.
        features: the boundary's tensors for one sample.
        parameters: the trainable parameters.
        frozen_elements: number of elements of all other weights.
    """

    backbone: onnx.ModelProto | None
    trainable: onnx.ModelProto
    input: TensorSpec
    features: tuple[TensorSpec, ...]
    parameters: tuple[TensorSpec, ...]
    frozen_elements: int


def split(model: onnx.ModelProto, trainable: Sequence[str], *, image: Preprocessing) -> Parts:
    """Cut `model` and check by running it that both parts together give what it gives.

    Raises:
        ModelError: a boundary tensor is not one row per sample, or the parts disagree with the whole.
    """
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    source = graph.input[0].name
    behind: set[str] = set(trainable)
    from_input: set[str] = {source}
    back_nodes, front_nodes, boundary = [], [], []
    for node in graph.node:
        inputs = [name for name in node_inputs(node) if name]
        if from_input.intersection(inputs):
            from_input.update(node.output)
        if behind.intersection(inputs):
            behind.update(node.output)
            back_nodes.append(node)
        else:
            front_nodes.append(node)
    for node in back_nodes:
        for name in node_inputs(node):
            if name in from_input and name not in behind and name not in boundary:
                boundary.append(name)

    size = (image.channels, image.height, image.width)
    samples = np.random.default_rng(0).standard_normal((2, *size)).astype(np.float32)
    values = _run(model, [*boundary, graph.output[0].name], samples)
    features = []
    for name, value in zip(boundary, values, strict=False):
        if value.ndim == 0 or value.shape[0] != len(samples) or value.dtype != np.float32:
            raise ModelError(
                f"the network cannot be cut at {name!r}: it is {value.dtype} {list(value.shape)} for two pictures, "
                "not one row of floats for each"
            )
        features.append(TensorSpec(name, tuple(value.shape[1:])))

    tail = helper.make_graph(
        [*(node for node in front_nodes if not from_input.intersection(node.output)), *back_nodes],
        "trainable",
        [helper.make_tensor_value_info(f.name, TensorProto.FLOAT, ["batch", *f.shape]) for f in features],
        list(graph.output),
        initializer=list(graph.initializer),
    )
    prune(tail)
    backbone = None
    if boundary != [source]:
        front = helper.make_graph(
            front_nodes,
            "backbone",
            list(graph.input),
            [helper.make_tensor_value_info(f.name, TensorProto.FLOAT, ["batch", *f.shape]) for f in features],
            initializer=list(graph.initializer),
        )
        prune(front)
        backbone = make_model(front)
    parts = Parts(
        backbone=backbone,
        trainable=make_model(tail),
        input=TensorSpec(source, size),
        features=tuple(features),
        parameters=tuple(TensorSpec(name, tuple(initializers[name].dims)) for name in trainable),
        frozen_elements=sum(
            int(np.prod(tensor.dims))
            for tensor in graph.initializer
            if tensor.name not in trainable and tensor.data_type == TensorProto.FLOAT
        ),
    )
    _check_parts(parts, samples, values[-1])
    return parts


def _check_parts(parts: Parts, samples: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    graphs = [part.graph for part in (parts.backbone, parts.trainable) if part is not None]
    joined = make_model(join(graphs, "joined"))
    (found,) = _run(joined, [joined.graph.output[0].name], samples)
    if not np.allclose(found, expected, rtol=1e-4, atol=1e-5):
        raise ModelError(
            f"the cut network differs from the whole by {np.abs(found - expected).max():.3g}: this is an error in "
            "edgetl, please report the model"
        )


def _run(model: onnx.ModelProto, outputs: Sequence[str], samples: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Run a graph on `[N, C, H, W]` samples and return any of its values."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    present = {output.name for output in probe.graph.output} | {probe.graph.input[0].name}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in present)
    session = runtime.open_session(probe.SerializeToString(), threads=runtime.available_cores())
    name = probe.graph.input[0].name
    wanted = [output for output in outputs if output != name]
    found = dict(zip(wanted, session.run(wanted, {name: samples}), strict=True))
    return [samples if output == name else found[output] for output in outputs]
