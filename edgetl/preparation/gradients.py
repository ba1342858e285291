"""ONNX Runtime's training artifacts for the trainable part."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgetl import defaults
from edgetl.artifacts import (
    BATCH_LOGITS,
    ORT_CHECKPOINT,
    ORT_EVAL_MODEL,
    ORT_OPTIMIZER_MODEL,
    ORT_TRAINING_MODEL,
    Optimizer,
)
from edgetl.engines.optimizers import LOSS
from edgetl.engines.update import set_ort_optimizer
from edgetl.errors import EngineError, ModelError
from edgetl.preparation.aside import filled, move_to_inputs, serialized
from edgetl.preparation.decompose import decompose
from edgetl.preparation.graph import graph_inputs
from edgetl.preparation.losses import with_loss
from edgetl.preparation.run import Graph, draw
from edgetl.runtime import import_onnxruntime


def generate(
    trainable: onnx.ModelProto, parameters: Sequence[str], loss: str, optimizer: Optimizer, directory: Path
) -> None:
    """Write `ort/{training_model,eval_model,optimizer_model}.onnx` and `ort/checkpoint` below `directory`.

    The training model takes the features, `targets` (`[N, K]` float32) and `sample_weights` (`[N]`
    float32) and gives `loss` and the logits (see `losses`). Operators without a gradient have been
    rewritten in it (`decompose`), so it is not the graph that is deployed, but computes the same.

    Raises:
        EngineError: onnxruntime-training is not installed.
        ModelError: an operator behind the boundary has no gradient.
    """
    import_onnxruntime()
    try:
        with _quiet():
            import onnxruntime.training.onnxblock  # noqa: F401
    except ImportError as error:
        raise EngineError(
            f"prepare needs onnxruntime-training ({error}): in a fresh environment, pip install 'edgetl[prepare]'"
        ) from None

    differentiable = decompose(trainable, parameters)
    _check_same(trainable, differentiable)
    with_targets = with_loss(differentiable, loss)
    (directory / "ort").mkdir()
    try:
        with _quiet() as log:
            _write_artifacts(with_targets, parameters, optimizer, directory)
    except OSError:
        raise
    except Exception as error:  # onnxruntime raises RuntimeError and bare exceptions alike
        raise ModelError(f"onnxruntime-training cannot differentiate this model: {error or log}") from None


def _write_artifacts(model: onnx.ModelProto, parameters: Sequence[str], optimizer: Optimizer, directory: Path) -> None:
    """Do what `onnxruntime.training.artifacts.generate_artifacts` does, which holds every weight six times at once.

    The gradients do not depend on the weights, so these are inputs from the beginning, as they are in the end.
    """
    from onnxruntime.training import onnxblock

    class Step(onnxblock.TrainingBlock):  # type: ignore[misc]
        def build(self, *outputs: str) -> tuple[str, ...]:
            return outputs

    step, update = Step(), onnxblock.optim.AdamW()
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in parameters]
    for name in parameters:
        step.requires_grad(name)
    with onnxblock.base(filled(_with_inputs(model, parameters))):
        step(LOSS, BATCH_LOGITS)
        training_model, eval_model = step.to_model_proto()
    with onnxblock.empty_base(opset_version=defaults.OPSET):
        update((tensors, []))
        optimizer_model = update.to_model_proto()
    set_ort_optimizer(optimizer_model, optimizer)
    for made, name in (
        (training_model, ORT_TRAINING_MODEL),
        (eval_model, ORT_EVAL_MODEL),
        (optimizer_model, ORT_OPTIMIZER_MODEL),
    ):
        # onnx writes the newest IR version it knows; onnxruntime-training 1.19.2 stops at 10
        made.ir_version = defaults.IR_VERSION
        onnx.save(made, directory / name)
    onnxblock.save_checkpoint((list(map(_Parameter, tensors)), []), directory / ORT_CHECKPOINT)


def _with_inputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    move_to_inputs(result.graph, names)
    return result


@dataclass(frozen=True)
class _Parameter:
    """A tensor that is read where it lies when onnxruntime-training asks for it."""

    tensor: onnx.TensorProto

    def SerializeToString(self) -> bytes:
        return serialized(self.tensor)


def _check_same(trainable: onnx.ModelProto, differentiable: onnx.ModelProto) -> None:
    """Check that rewriting the operators has not changed what the graph computes."""
    features = draw(graph_inputs(trainable.graph), 2)
    before, after = (Graph(model).run((), features)[0] for model in (trainable, differentiable))
    if not np.allclose(
        before, after, rtol=1e-4, atol=1e-5 * max(1.0, float(np.nanmax(np.abs(before)))), equal_nan=True
    ):
        raise ModelError(
            f"rewriting operators changed the logits by {np.abs(before - after).max():.3g}: "
            "this is an error in edgetl, please report the model"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[str]:
    """Keep ONNX Runtime's C++ log, which has no switch here, out of the terminal."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield "see the log"
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
