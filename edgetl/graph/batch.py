"""Let a graph that was written for a fixed batch take a batch of any size."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from edgetl import defaults
from edgetl.artifacts import TensorSpec
from edgetl.errors import ModelError, first_line
from edgetl.graph.execute import draw
from edgetl.graph.index import graph_inputs
from edgetl.runtime import process, sessions

if TYPE_CHECKING:
    from numpy.typing import NDArray


_FATAL = 4
_FAILED = re.compile(r"while running (\w+) node\. Name:'([^']*)'")

_LARGEST = 3 * defaults.MAX_PIXELS


def free_batch(graph: onnx.GraphProto, batch: int = 1) -> None:
    """Undo what fixes the first axis to `batch`: shapes of Reshape and Expand, and constants in Concat.

    Whether that was enough, `check_batch` shows.
    """
    source = graph.input[0].name
    constants = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {name: numpy_helper.to_array(tensor).tolist() for name, tensor in constants.items() if _is_shape(tensor)}
    nodes = [helper.make_node("Shape", [source], [f"{source}/batch"], start=0, end=1)]  # pruned where nothing needs it

    def constant(name: str, values: Sequence[int]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def shape_with_batch(name: str, rest: Sequence[int]) -> str:
        nodes.append(helper.make_node("Concat", [f"{source}/batch", constant(f"{name}/rest", rest)], [name], axis=0))
        return name

    for node in graph.node:
        shape = shapes.get(node.input[1], []) if node.op_type in ("Reshape", "Expand") else []
        if len(shape) > 1 and shape[0] == batch:
            name = f"{node.output[0]}_shape"
            if node.op_type == "Expand":
                node.input[1] = shape_with_batch(name, shape[1:])
            else:
                node.input[1] = constant(name, [0 if -1 in shape else -1, *shape[1:]])
        elif len(shape) > 1 and min(shape) > 0 and node.op_type == "Reshape":
            # the batch in one axis with channels, as where ShuffleNet mixes them
            node.input[1] = constant(f"{node.output[0]}_shape", [-1, *shape[1:]])
        elif node.op_type == "Concat":
            for i, name in enumerate(node.input):
                dims = list(constants[name].dims) if name in constants else []
                # a class token, say, which each picture needs
                if len(dims) > 1 and dims[0] == batch == 1 and _axis(node) % len(dims) != 0:
                    repeated = f"{node.output[0]}_{i}"
                    rest = shape_with_batch(f"{repeated}/shape", dims[1:])
                    nodes.append(helper.make_node("Expand", [name, rest], [repeated]))
                    node.input[i] = repeated
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _is_shape(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1


def _axis(node: NodeProto) -> int:
    return int(next(attribute.i for attribute in node.attribute if attribute.name == "axis"))


def refuse_large(what: str, batch: int, inputs: Sequence[TensorSpec]) -> None:
    """Refuse what takes batches that nobody could give it, before one is made.

    Raises:
        ModelError: it is so.
    """
    numbers = batch * sum(abs(math.prod(spec.shape)) for spec in inputs)
    if numbers > _LARGEST:
        raise ModelError(
            f"{what} takes {numbers:.3g} numbers at once, more than the {_LARGEST / 1e6:.0f} million allowed: export "
            "it with a dynamic batch"
        )


def check_batch(
    what: str,
    model: onnx.ModelProto,
    copies: int,
    reference: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]],
    tolerance: float = 1e-4,
) -> None:
    """Compare the graph on a batch of samples with the original on each of them, repeated `copies` times.

    Args:
        reference: from inputs, by the graph's names, to scores.
        tolerance: by which scores may differ, relative to the largest.

    Raises:
        ModelError: either does not run, or they differ.
    """
    refuse_large(what, copies, graph_inputs(model.graph))
    samples = draw(graph_inputs(model.graph), 2)
    try:
        scores = [
            reference({name: np.repeat(array[i : i + 1], copies, axis=0) for name, array in samples.items()})
            for i in range(2)
        ]
        options = sessions.session_options(process.available_cores())
        options.log_severity_level = _FATAL  # what fails is told below
        session = sessions.import_onnxruntime().InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = session.run(None, samples)[0]
    except ModelError:
        raise
    except Exception as error:  # onnxruntime raises bare classes of its own
        where = _FAILED.search(str(error))
        reason = f"it fails at {where[1]} {where[2]!r}" if where else first_line(error, 200)
        raise ModelError(
            f"{what} does not run on a batch of samples ({reason}): export it with a dynamic batch"
        ) from None
    expected = np.concatenate([score[: len(score) // copies] for score in scores])
    scale = float(np.abs(expected).max())
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-3, atol=tolerance * scale):
        if copies == 1 and _is_same(session, samples, expected, tolerance * scale):
            raise ModelError(
                f"{what} gives a sample other scores where others are in its batch, as in training: export it in "
                "evaluation mode"
            )
        raise ModelError(
            f"{what} was written for batches of {copies} and cannot take others: export it with a dynamic batch"
        )
    if len(found) != len(scores):
        raise ModelError(f"{what} gives {list(found.shape)} for two samples, not scores of each")


def _is_same(session: Any, samples: Mapping[str, NDArray[Any]], expected: NDArray[Any], tolerance: float) -> bool:
    """Return whether the graph gives each sample on its own the scores that are expected."""
    alone = [
        session.run(None, {name: array[i : i + 1] for name, array in samples.items()})[0] for i in range(len(expected))
    ]
    found = np.concatenate(alone)
    return found.shape == expected.shape and np.allclose(found, expected, rtol=1e-3, atol=tolerance)
