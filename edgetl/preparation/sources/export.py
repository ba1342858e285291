"""A torch module to a graph, through torch's dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import numpy as np
import onnx
import torch
from torch import nn

from edgetl import defaults, runtime
from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.sources.clean import clean


def export(module: nn.Module, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Export in evaluation mode with a dynamic batch, and check the graph against the module.

    Raises:
        ModelError: the exporter fails, or the graph computes something else.
    """
    module.eval()
    shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(2, *shape, generator=generator)
    try:
        with torch.no_grad():
            expected = module(example)
    except Exception as error:
        raise ModelError(
            f"the network does not take pictures of {shape[0]}×{shape[1]}×{shape[2]} (set --size): {error}"
        ) from None
    try:
        with warnings.catch_warnings(), _silenced(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                opset_version=defaults.OPSET,
                input_names=["input"],
                verbose=False,
            )
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"torch.onnx.export failed: {first}") from error
    assert program is not None, "with dynamo=True the exporter returns a program"
    model = clean(program.model_proto)
    _check(model, example, expected)
    return model


def _check(model: onnx.ModelProto, example: torch.Tensor, expected: object) -> None:
    if not isinstance(expected, torch.Tensor):
        raise ModelError(f"the network returns a {type(expected).__name__}, not one tensor of scores")
    session = runtime.open_session(model.SerializeToString(), threads=runtime.available_cores())
    (found,) = session.run(None, {model.graph.input[0].name: example.numpy()})
    reference = expected.numpy()
    if found.shape != reference.shape or not np.allclose(
        found, reference, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(reference).max()))
    ):
        raise ModelError("the exported graph does not compute what the network computes, so it is not used")


@contextlib.contextmanager
def _silenced():  # type: ignore[no-untyped-def]
    """Keep the exporter's progress and advice out of the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
