"""Run a graph and look at any of its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx

from edgetl import runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def run_graph(model: onnx.ModelProto, outputs: Sequence[str], samples: NDArray[np.float32]) -> list[NDArray[Any]]:
    """Run a graph on `[N, C, H, W]` samples and return any of its values."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    source = probe.graph.input[0].name
    present = {output.name for output in probe.graph.output} | {source}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in present)
    # as it stands: onnxruntime 1.19 fuses MatMul, Reshape and BatchNormalization into a wrong Gemm
    session = runtime.open_session(probe.SerializeToString(), threads=runtime.available_cores(), optimize=False)
    wanted = [output for output in outputs if output != source]
    found = dict(zip(wanted, session.run(wanted, {source: samples}) if wanted else [], strict=True))
    return [samples if output == source else found[output] for output in outputs]
