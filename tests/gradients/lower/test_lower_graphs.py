"""Lowered gradients of whole graphs against onnxruntime-training's, for every operator and form of `decompose`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgetl.artifacts import TensorSpec
from edgetl.engines.names import GRADIENT
from edgetl.gradients.decompose.decompose import decompose
from edgetl.gradients.lower.lower import lower_gradients, missing
from edgetl.runtime import sessions

_FILE = Path(__file__).parents[1] / "decompose" / "test_rules.py"
_SPEC = importlib.util.spec_from_file_location("decompose_cases", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
cases = importlib.util.module_from_spec(_SPEC)
sys.modules["decompose_cases"] = cases
_SPEC.loader.exec_module(cases)


# these hold constants for one size of batch, and the last computes in double precision
FIXED = {
    "LayerNormalization of a frozen input",
    "BatchNormalization off the path",
    "Einsum nij,nkj->nik",
    "Einsum nijx,nj->ni",
    "GatherElements",
    "Cast",
}
CASES = [case for case in cases.CASES if case.name not in FIXED]


@pytest.mark.parametrize("case", CASES, ids=[" ".join(case.name.split()) for case in CASES])
def test_gradients_are_those_of_onnxruntime_training(case: Any, tmp_path: Path) -> None:
    model, _, x, labels, _, expected = cases.build(case)
    names = list(expected)
    logits, gradients = cases.train_step(decompose(model, names), names, x, labels, tmp_path)
    training = onnx.load(tmp_path / "training_model.onnx")
    assert missing(training) == ()
    initial = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in names}
    lowered = lower_gradients(training, [TensorSpec(name, initial[name].shape) for name in names])
    assert all(node.domain == "" for node in lowered.graph.node)
    targets, weights = cases.ENCODE(labels)
    session = sessions.open_session(lowered.SerializeToString())
    outputs = [output.name for output in lowered.graph.output]
    found = dict(
        zip(outputs, session.run(None, {"x": x, "targets": targets, "sample_weights": weights, **initial}), strict=True)
    )
    cases.close(found["batch_logits"], logits, 1e-5)
    for name in names:
        cases.close(found[name + GRADIENT], np.asarray(gradients[name]).reshape(initial[name].shape), 2e-5)
