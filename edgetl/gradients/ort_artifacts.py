"""ONNX Runtime's training artifacts for the trainable part."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgetl import defaults
from edgetl.artifacts import BATCH_LOGITS, ORT_EVAL_MODEL, ORT_OPTIMIZER_MODEL, ORT_TRAINING_MODEL
from edgetl.engines.names import LOSS
from edgetl.engines.update import set_ort_optimizer
from edgetl.errors import EngineError, ModelError
from edgetl.gradients.decompose.decompose import decompose
from edgetl.gradients.losses import with_loss
from edgetl.graph.execute import draw
from edgetl.graph.index import graph_inputs
from edgetl.optimizers.registry import Optimizer
from edgetl.runtime.process import available_cores
from edgetl.runtime.sessions import import_onnxruntime, open_session


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
            from onnxruntime.training import artifacts
    except ImportError as error:
        raise EngineError(
            f"prepare needs onnxruntime-training ({error}): in a fresh environment, pip install 'edgetl[prepare]'"
        ) from None

    differentiable = decompose(trainable, parameters)
    _check_same(trainable, differentiable)
    with_targets = with_loss(differentiable, loss)
    target = directory / "ort"
    target.mkdir()
    try:
        with _quiet() as log:
            artifacts.generate_artifacts(
                with_targets,
                requires_grad=list(parameters),
                frozen_params=[],
                loss_input_names=[LOSS],
                optimizer=artifacts.OptimType.AdamW,
                artifact_directory=target,
                additional_output_names=[BATCH_LOGITS],
            )
    except OSError:
        raise
    except Exception as error:  # onnxruntime raises RuntimeError and bare exceptions alike
        raise ModelError(f"onnxruntime-training cannot differentiate this model: {error or log}") from None
    for name in (ORT_TRAINING_MODEL, ORT_EVAL_MODEL, ORT_OPTIMIZER_MODEL):
        model = onnx.load(directory / name)
        # onnx writes the newest IR version it knows; onnxruntime-training 1.19.2 stops at 10
        model.ir_version = defaults.IR_VERSION
        if name == ORT_OPTIMIZER_MODEL:
            set_ort_optimizer(model, optimizer)
        onnx.save(model, directory / name)


def _check_same(trainable: onnx.ModelProto, differentiable: onnx.ModelProto) -> None:
    """Check that rewriting the operators has not changed what the graph computes."""
    features = draw(graph_inputs(trainable.graph), 2)
    before, after = (
        open_session(model.SerializeToString(), threads=available_cores()).run(None, features)[0]
        for model in (trainable, differentiable)
    )
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
