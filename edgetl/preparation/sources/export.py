"""A torch module to a graph whose initializers are the module's parameters, by their own names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from edgetl import defaults, runtime
from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.simplify import fix_shapes, simplify
from edgetl.preparation.sources.clean import clean
from edgetl.preparation.sources.quiet import first_line, quiet


def export(module: nn.Module, preprocessing: Preprocessing) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Export in evaluation mode with a dynamic batch, and check the graph against the module.

    The exporter's own optimizer would fold batch normalisation into convolutions and rename
    transposed weights; without it every parameter keeps its name and can be trained, and `simplify`
    does the rest.

    Returns:
        The graph, and the names of the module's parameters in it, in the module's order.

    Raises:
        ModelError: the exporter fails, or the graph computes something else.
    """
    module.eval()
    shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected = module(example)
    except Exception as error:
        raise ModelError(
            f"the network does not take pictures of {shape[0]}×{shape[1]}×{shape[2]} (set --size): {first_line(error)}"
        ) from None
    model = export_program(module, example, {0: torch.export.Dim("batch", min=1)})
    present = {tensor.name for tensor in model.graph.initializer}
    parameters = tuple(name for name, _ in module.named_parameters() if name in present)
    stored = {name for name, _ in module.named_buffers()}
    model = fix_shapes(clean(simplify(clean(model), {*parameters, *stored})), shape)
    _check(model, example, expected)
    left = {tensor.name for tensor in model.graph.initializer}
    return model, tuple(name for name in parameters if name in left)


def export_program(program: Any, example: torch.Tensor, dynamic: dict[int, Any] | None) -> onnx.ModelProto:
    """Run torch's dynamo exporter on a module or an exported program, without its optimizer, and quietly.

    Raises:
        ModelError: the exporter fails.
    """
    try:
        with quiet(), torch.no_grad():
            exported = torch.onnx.export(
                program,
                (example,),
                dynamo=True,
                dynamic_shapes=(dynamic,) if dynamic else None,
                opset_version=defaults.OPSET,
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        raise ModelError(f"torch.onnx.export failed: {first_line(error)}") from error
    assert exported is not None, "with dynamo=True the exporter returns a program"
    return exported.model_proto


def _check(model: onnx.ModelProto, example: torch.Tensor, expected: object) -> None:
    references = expected if isinstance(expected, tuple | list) else (expected,)
    if not all(isinstance(reference, torch.Tensor) for reference in references):
        raise ModelError(f"the network returns a {type(expected).__name__}, not a tensor of scores")
    session = runtime.open_session(model.SerializeToString(), threads=runtime.available_cores(), optimize=False)
    outputs = session.run(None, {model.graph.input[0].name: example.numpy()})
    for found, reference in zip(outputs, (reference.numpy() for reference in references), strict=True):
        scale = max(1.0, float(np.abs(reference).max()))
        if found.shape != reference.shape or not np.allclose(found, reference, rtol=1e-3, atol=1e-3 * scale):
            raise ModelError("the exported graph does not compute what the network computes, so it is not used")
