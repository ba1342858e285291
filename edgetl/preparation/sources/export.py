"""A torch module to a graph whose initializers are the module's parameters, by their own names."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import nn

from edgetl import defaults
from edgetl.artifacts import TensorSpec
from edgetl.errors import ModelError, first_line
from edgetl.events import Note, OnEvent, ignore
from edgetl.preparation.aside import LARGE, put
from edgetl.preparation.run import Graph, draw
from edgetl.preparation.simplify import fix_shapes, simplify
from edgetl.preparation.sources.channels import advice
from edgetl.preparation.sources.clean import clean
from edgetl.preparation.sources.float32 import TOLERANCE, in_float32
from edgetl.preparation.sources.quiet import quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray


def export(
    module: nn.Module, inputs: Sequence[TensorSpec], on_event: OnEvent = ignore, aside: Path | None = None
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Export in evaluation mode with a dynamic batch, and check the graph against the module.

    The exporter's own optimizer would fold batch normalisation into convolutions and rename
    transposed weights; without it every parameter keeps its name and can be trained, and `simplify`
    does the rest.

    Args:
        inputs: what the module takes for one sample, in the order of its arguments; the graph's inputs
            have the arguments' names. A size of -1 becomes the axis `length`.
        aside: where large weights are put, so that the graph only points there (see `edgetl.preparation.aside`).

    Returns:
        The graph, and the names of the module's parameters in it, in the module's order.

    Raises:
        ModelError: the exporter fails, or the graph computes something else.
    """
    module.eval()
    narrow = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters())
    examples = tuple(torch.from_numpy(array) for array in draw(inputs, 2, length=9).values())
    try:
        expected = _scores(module, examples)
    except Exception as error:
        taken = ", ".join("×".join(map(str, spec.shape)) for spec in inputs)
        raise ModelError(
            f"the network does not take samples of {taken} ({_reason(error)}): {advice(module, inputs)}"
        ) from None
    stored = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    model = export_program(module, examples, [_varying(spec) for spec in inputs], stored, aside)
    present = {tensor.name for tensor in model.graph.initializer}
    parameters = tuple(name for name, _ in module.named_parameters() if name in present)
    model, changed = in_float32(model)
    if narrow := narrow or changed:
        on_event(Note("the network holds 16-bit numbers: it computes and trains in 32 bits"))
    # one after the other: each makes a copy
    model = clean(model)
    model = simplify(model, stored)
    model = clean(model)
    model = fix_shapes(model)
    _check(model, examples, expected, TOLERANCE if narrow else 1e-3)
    left = {tensor.name for tensor in model.graph.initializer}
    return model, tuple(name for name in parameters if name in left)


def _scores(module: nn.Module, examples: Sequence[torch.Tensor]) -> object:
    """Return what the module makes of examples in 32 bits, after it has been put into 32 bits if it refuses them."""
    with torch.no_grad():
        try:
            return module(*examples)
        except RuntimeError:
            if not any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters()):
                raise
        return module.float()(*examples)


def _reason(error: Exception) -> str:
    """Return what an exception says; of a bare assertion, what it asserts."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, AssertionError) and not str(error) and frames and frames[-1].line:
        return first_line(frames[-1].line, 200)
    return first_line(error, 200)


def _varying(spec: TensorSpec) -> dict[int, Any]:
    length = torch.export.Dim("length", min=2)
    lengths = {axis: length for axis, size in enumerate(spec.shape, start=1) if size == -1}
    return {0: torch.export.Dim("batch", min=1), **lengths}


def export_program(
    program: Any,
    examples: tuple[torch.Tensor, ...],
    dynamic: Sequence[Mapping[int, Any]] | None,
    stored: Collection[str] = (),
    aside: Path | None = None,
) -> onnx.ModelProto:
    """Run torch's dynamo exporter on a module or an exported program, without its optimizer, and quietly.

    Args:
        stored: names of its parameters and buffers; those that are large are put `aside`, if that is given.

    Raises:
        ModelError: the exporter fails.
    """
    try:
        with quiet(), torch.no_grad():
            exported = torch.onnx.export(
                program,
                examples,
                dynamo=True,
                dynamic_shapes=tuple(map(dict, dynamic)) if dynamic else None,
                opset_version=defaults.OPSET,
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        raise ModelError(f"torch.onnx.export failed: {first_line(error)}") from error
    assert exported is not None, "with dynamo=True the exporter returns a program"
    if aside is not None:
        _put_aside(exported.model, stored, aside)
    return exported.model_proto


def _put_aside(model: Any, names: Collection[str], directory: Path) -> None:
    """Let large initializers of the exporter's own model lie in the directory, before it is written out as a graph."""
    from onnxscript import ir

    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if name not in names or tensor.nbytes < LARGE:
            continue
        where = put(tensor.numpy(), directory)
        location, offset, length = where["location"], int(where["offset"]), int(where["length"])
        value.const_value = ir.ExternalTensor(location, offset, length, tensor.dtype, shape=tensor.shape, name=name)


def _check(model: onnx.ModelProto, examples: Sequence[torch.Tensor], expected: object, tolerance: float) -> None:
    references = expected if isinstance(expected, tuple | list) else (expected,)
    if not all(isinstance(reference, torch.Tensor) for reference in references):
        raise ModelError(f"the network returns a {type(expected).__name__}, not a tensor of scores")
    names = [value.name for value in model.graph.input]
    outputs = Graph(model).run((), {name: item.numpy() for name, item in zip(names, examples, strict=True)})
    for found, reference in zip(outputs, map(_as_array, references), strict=True):
        scale = max(1.0, float(np.abs(reference).max()))
        if found.shape != reference.shape or not np.allclose(found, reference, rtol=1e-3, atol=tolerance * scale):
            raise ModelError("the exported graph does not compute what the network computes, so it is not used")


def _as_array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array
