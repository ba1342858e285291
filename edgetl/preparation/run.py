"""Run a graph and look at any of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgetl import runtime
from edgetl.artifacts import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


def run_graph(model: onnx.ModelProto, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a graph on its inputs, by name, and return any of its values."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    present = {output.name for output in probe.graph.output} | set(feeds)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in present)
    # as it stands: onnxruntime 1.19 fuses MatMul, Reshape and BatchNormalization into a wrong Gemm
    session = runtime.open_session(probe.SerializeToString(), threads=runtime.available_cores(), optimize=False)
    wanted = [output for output in outputs if output not in feeds]
    found = dict(zip(wanted, session.run(wanted, dict(feeds)) if wanted else [], strict=True))
    return [feeds[output] if output in feeds else found[output] for output in outputs]


def draw(inputs: Sequence[TensorSpec], batch: int, *, length: int = 1, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return a batch of samples by input: floats from a normal distribution; of integers 0 and 1, and 1 first.

    So integers are valid as token ids and as masks, and no mask is empty.

    Args:
        length: of the axes whose size differs from sample to sample.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, NDArray[Any]] = {}
    for spec in inputs:
        shape = (batch, *(length if size == -1 else size for size in spec.shape))
        if np.issubdtype(np.dtype(spec.dtype), np.integer):
            feeds[spec.name] = rng.integers(0, 2, shape).astype(spec.dtype)
            if spec.shape:
                feeds[spec.name].reshape(batch, -1)[:, 0] = 1
        else:
            feeds[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
    return feeds
