"""Execution providers: names, what is missing, and what ran where (the real ones: tests/providers)."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgetl.artifacts import TRAINABLE, load_artifacts
from edgetl.errors import EngineError
from edgetl.events import Event, Note
from edgetl.runtime.providers import CPU, PlacedSession, Provider, _shares, open_placed, resolve_provider


def test_names() -> None:
    assert resolve_provider("cpu") == resolve_provider("CPU") == resolve_provider(CPU) == Provider()
    with pytest.raises(EngineError, match="choose one of cpu, acl"):
        resolve_provider("gpu")


def test_a_missing_provider_is_an_error_or_the_cpu() -> None:
    with pytest.raises(EngineError, match=r"no MIGraphXExecutionProvider, only .*CPU.*--allow-fallback"):
        resolve_provider("migraphx")
    told: list[Event] = []
    assert resolve_provider("migraphx", {"device_id": "1"}, allow_fallback=True, on_event=told.append) == Provider()
    assert isinstance(told[0], Note)
    assert "the CPU is used" in told[0].text


def test_a_provider_that_refuses_is_an_error_or_the_cpu(digits_artifacts: Path) -> None:
    """onnxruntime puts the CPU in the place of a provider that it does not have; that must not pass for it."""
    file = load_artifacts(digits_artifacts).file(TRAINABLE)
    absent = Provider("MIGraphXExecutionProvider")
    with pytest.raises(EngineError, match=r"the head: MIGraphXExecutionProvider .*--allow-fallback"):
        open_placed(file, absent, threads=1, what="the head")
    told: list[Event] = []
    session = open_placed(
        file,
        Provider(absent.name, allow_fallback=True),
        threads=1,
        what="the head",
        on_event=told.append,
    )
    assert isinstance(told[0], Note)
    assert session.placement is None
    session.run(None, {"linear/flat": np.zeros((1, 64), np.float32)})
    assert session.placement == {CPU: 1.0}


def test_shares_are_of_the_time_of_nodes(tmp_path: Path) -> None:
    events = [
        {"cat": "Session", "dur": 1000, "args": {}},
        {"cat": "Node", "dur": 30, "args": {"provider": "OpenVINOExecutionProvider"}},
        {"cat": "Node", "dur": 10, "args": {"provider": CPU}},
        {"cat": "Node", "dur": 5, "args": {"op_name": "fence"}},
    ]
    (tmp_path / "profile.json").write_text(json.dumps(events))
    assert _shares(tmp_path / "profile.json") == {"OpenVINOExecutionProvider": 0.75, CPU: 0.25}


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match="refuses the model"):
        PlacedSession(tmp_path / "model.onnx", Provider(), threads=1, what="it")
