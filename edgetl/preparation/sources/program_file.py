"""FILE.pt2: a classifier as torch.export has saved it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.events import Note, OnEvent, ignore
from edgetl.graph.batch import check_batch, free_batch, refuse_large
from edgetl.graph.clean import clean
from edgetl.graph.simplify import simplify
from edgetl.preparation.sources.export import export_program
from edgetl.preparation.sources.float32 import TOLERANCE, in_float32
from edgetl.preparation.sources.overrides import of_file
from edgetl.preparation.sources.program_archive import read_program
from edgetl.preparation.sources.sizes import check_size

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load(
    file: Path, overrides: Mapping[str, Any], on_event: OnEvent = ignore
) -> tuple[onnx.ModelProto, tuple[str, ...], Preprocessing]:
    """Read a program with one input `[batch, channels, height, width]`, of a fixed or a dynamic batch.

    Raises:
        ModelError: the file is not such a program.
    """
    program = read_program(file)
    names = program.graph_signature.user_inputs
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or values[0].ndim != 4:
        raise ModelError(f"{file} does not take one batch of pictures [batch, channels, height, width]")
    if program.graph_signature.buffers_to_mutate or any(_trains(node) for node in program.graph.nodes):
        raise ModelError(f"{file} was exported in training mode: call eval() on the network and export it anew")
    batch, channels, height, width = (size if isinstance(size, int) else 0 for size in values[0].shape)
    _refuse_too_large(file, program)
    own = of_file(str(file), channels, height, width, overrides)
    copies = batch or 2
    refuse_large(str(file), copies, own.inputs)
    example = torch.zeros(copies, own.channels, own.height, own.width, dtype=values[0].dtype)
    model, narrow = in_float32(export_program(program, (example,), None))
    if narrow:
        on_event(Note(f"{file} holds 16-bit numbers: the network computes and trains in 32 bits"))
    model = clean(model)
    present = {tensor.name for tensor in model.graph.initializer}
    parameters = tuple(name for name, _ in program.named_parameters() if name in present)
    model = simplify(model, present & program.state_dict.keys())
    if batch:
        free_batch(model.graph, batch)
    model = clean(model)
    network = program.module()

    def reference(feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        with torch.no_grad():
            scores = network(*(torch.from_numpy(array).to(example.dtype) for array in feeds.values()))
        if not isinstance(scores, torch.Tensor):
            raise ModelError(f"{file} returns a {type(scores).__name__}, not a tensor of scores")
        result: NDArray[Any] = scores.float().numpy()
        return result

    check_batch(str(file), model, copies, reference, TOLERANCE if narrow else 1e-4)
    left = {tensor.name for tensor in model.graph.initializer}
    return model, tuple(name for name in parameters if name in left), own


def _refuse_too_large(file: Path, program: torch.export.ExportedProgram) -> None:
    """Refuse a program with an operator whose value is too large; sizes that are not fixed count as 1."""
    varies = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if any(source.name in varies for source in node.all_input_nodes):
            varies.add(node.name)
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.Tensor):
            elements = math.prod(size if isinstance(size, int) else 1 for size in value.shape)
            constant = node.name not in varies
            check_size(str(file), f"{node.target} {node.name!r}", elements * value.element_size(), constant=constant)


def _trains(node: torch.fx.Node) -> bool:
    """Return whether an operator was told to compute as in training: batch normalisation, dropout."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return any(given.get(name) is True for name in ("training", "train"))
