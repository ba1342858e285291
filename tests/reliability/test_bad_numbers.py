"""What is no finite number never trains: it is left out and named, or it stops the run where it came up."""

import dataclasses
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgetl import deploy, finetune
from edgetl.artifacts import BACKBONE, load_artifacts, save_manifest
from edgetl.engines.ort_training import OrtTrainingEngine
from edgetl.engines.portable import PortableEngine
from edgetl.errors import DataError, EngineError, RunError
from edgetl.events import Event, Note
from edgetl.files import storage
from edgetl.runs.run import LAST, Run


@pytest.fixture
def train(digits: Path, digits_artifacts: Path, tmp_path: Path) -> Callable[..., Any]:
    def call(artifacts: Path = digits_artifacts, **options: Any) -> Any:
        return finetune(artifacts, digits / "train", out=tmp_path / "run", **{"lr": 1e-2, "epochs": 3, **options})

    return call


@pytest.fixture
def rescaled(digits_artifacts: Path, tmp_path: Path) -> Callable[[float], Path]:
    """Makes a prepared directory whose features are so many times as large."""

    def make(factor: float) -> Path:
        copy = Path(shutil.copytree(digits_artifacts, tmp_path / f"times {factor}"))
        model = onnx.load(copy / BACKBONE)
        (output,) = model.graph.output
        (last,) = (node for node in model.graph.node if output.name in node.output)
        last.output[0] = "unscaled"
        model.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), "factor"))
        model.graph.node.append(onnx.helper.make_node("Mul", ["unscaled", "factor"], [output.name]))
        onnx.save(model, copy / BACKBONE)
        manifest = load_artifacts(digits_artifacts).manifest
        files = {**manifest.files, BACKBONE: storage.sha256_file(copy / BACKBONE)}
        save_manifest(copy, dataclasses.replace(manifest, files=files))
        return copy

    return make


@pytest.mark.parametrize("factor", [np.inf, np.nan, 3e38])
def test_samples_whose_features_are_not_finite_are_left_out(
    train: Callable[..., Any], rescaled: Callable[[float], Path], factor: float
) -> None:
    events: list[Event] = []
    with pytest.raises(DataError, match="no usable sample is left"):
        train(rescaled(factor), on_event=events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "numbers that are not finite" in notes[0]
    assert notes[0].startswith("left out ")


def test_features_beyond_float16_ask_for_float32(
    train: Callable[..., Any], rescaled: Callable[[float], Path], tmp_path: Path
) -> None:
    large = rescaled(1e5)
    with pytest.raises(EngineError, match="--cache-precision float32"):
        train(large, cache_precision="float16")
    assert not (tmp_path / "run").exists()
    train(large, init="zero", epochs=1, lr=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_rate_that_is_far_too_large_stops_at_the_step_and_keeps_what_was_good(
    train: Callable[..., Any], tmp_path: Path, schedule: str
) -> None:
    with pytest.raises(RunError, match=r"in epoch 1, step \d: the last good epoch, 0, .*smaller --lr.*--clip-norm"):
        train(lr=1e38, epochs=5, schedule=schedule)
    run = Run(tmp_path / "run")
    last = run.read_checkpoint(LAST)
    assert last is not None
    assert len(run.read_results()) == 1
    assert all(np.isfinite(value).all() for value in last.parameters.values())
    assert run.read_metrics() is None


def engine_class(name: str) -> type[PortableEngine] | type[OrtTrainingEngine]:
    return PortableEngine if name == "portable" else OrtTrainingEngine


@pytest.mark.parametrize(
    ("method", "counted", "message"),
    [
        # 64 samples are two steps; parameters are looked at behind each, and at the start and at each epoch's end
        ("is_finite", 1 + 3 + 3 + 1, r"a parameter became infinite or no number in epoch 3, step 2"),
        ("train_step", 2 + 2 + 1, r"the loss became nan in epoch 3, step 2"),
        # 16 samples validate at once
        ("evaluate", 3, r"the validation loss became nan after epoch 3"),
    ],
)
def test_it_stops_at_the_step_and_can_end_with_what_is_good(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, counted: int, message: str
) -> None:
    engine = engine_class(train(epochs=0).engine)
    original, calls = getattr(engine, method), itertools.count()

    def turning_bad(self: Any, *arguments: Any) -> Any:
        found = original(self, *arguments)
        if next(calls) < counted:
            return found
        return {
            "is_finite": False,
            "train_step": np.nan,
            "evaluate": (np.nan, found[1] if method == "evaluate" else None),
        }[method]

    monkeypatch.setattr(engine, method, turning_bad)
    with pytest.raises(RunError, match=message + r": .* --resume --epochs 2"):
        train(epochs=5, force=True)
    monkeypatch.undo()
    # as the message says
    assert train(epochs=2, resume=True).epochs == 2
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    assert [result.epoch for result in Run(tmp_path / "run").read_results()] == [0, 1, 2]


def test_a_head_in_closed_form_that_is_not_finite_is_no_start(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgetl.training.finetune

    found = edgetl.training.finetune.initial_head

    def broken(job: Any) -> dict[str, Any]:
        return {name: np.full_like(value, np.inf) for name, value in found(job).items()}

    monkeypatch.setattr(edgetl.training.finetune, "initial_head", broken)
    with pytest.raises(RunError, match=r"after epoch 0: .* begin at other weights"):
        train(init="ridge")
    assert Run(tmp_path / "run").read_checkpoint(LAST) is None
