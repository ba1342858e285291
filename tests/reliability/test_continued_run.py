"""A finished run that goes on and dies anywhere: its best epoch is deployed, with that epoch's figures."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl import compare_runs, deploy, describe, evaluate, finetune, verify, write_report
from edgetl.data.dataset import read_rgb
from edgetl.deployment.deployed import DeployedModel
from edgetl.errors import DeployError, RunError
from edgetl.events import EpochEnd, Event, Note, OnEvent, ignore
from edgetl.runs.run import BEST, METRICS, VALIDATION, Run

PASSED: dict[str, Any] = {"lr": 1e-3, "init": "zero", "threads": 1}


class Killed(BaseException):
    """Nothing of ours catches it; nothing is cleaned up but what has been renamed is there, as after SIGKILL."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits: Path, digits_artifacts: Path) -> Path:
    root = tmp_path_factory.mktemp("finished")
    finetune(digits_artifacts, digits / "train", out=root / "run", epochs=1, cache=root / "cache", **PASSED)
    return root


@pytest.fixture
def go_on(finished: Path, digits: Path, digits_artifacts: Path, tmp_path: Path) -> Callable[..., Path]:
    def call(name: str, epochs: int = 3, on_event: OnEvent = ignore) -> Path:
        if not (tmp_path / name).exists():
            shutil.copytree(finished / "run", tmp_path / name)
        finetune(
            *(digits_artifacts, digits / "train"),
            **{"out": tmp_path / name, "epochs": epochs, "resume": True, "cache": finished / "cache", **PASSED},
            on_event=on_event,
        )
        return tmp_path / name

    return call


def renames(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> Iterator[str]:
    """Record the files that take their names; die when as many have."""
    real, seen = os.replace, list[str]()

    def replace(source: Path, target: Path) -> None:
        if len(seen) == limit:
            raise Killed
        real(source, target)
        seen.append(Path(target).name)

    monkeypatch.setattr(os, "replace", replace)
    return iter(seen)


def test_wherever_it_dies_the_best_epoch_is_deployed_with_its_own_figures(
    go_on: Callable[..., Path], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        seen = renames(patch, None)
        go_on("whole")
    names = list(seen)
    assert {"best.npz", "last.npz", "results.csv", "validation.npz", "metrics.json"} <= set(names)
    for step in range(names.index("metrics.json") + 1):
        run = tmp_path / f"run-{step}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            renames(patch, step)
            go_on(run.name)
        told: list[Event] = []
        model = tmp_path / f"{step}.onnx"
        deployed = deploy(run, out=model, threads=1, on_event=told.append)
        assert any(isinstance(note, Note) and f"{run} is not finished" in note.text for note in told), step
        # what was kept belongs to the weights: measured anew by another way, the deployed file itself
        expected = evaluate(model, digits / "train", threads=1)
        assert deployed.verified_samples == 16
        assert deployed.largest_difference < 1e-4
        assert expected.samples == 80
        best = Run(run).read_checkpoint(BEST)
        assert best is not None
        # in the end all samples train, and what the validation samples give then says nothing of new ones
        assert deployed.held_out == (Run(run).deployed_weights() == BEST), step
        if deployed.held_out:
            assert deployed.figures_before["accuracy"] == best.history[-1].val_figures["accuracy"], step
        assert DeployedModel(model).provenance["epoch"] == best.epoch
        assert not compare_runs(run)[0].finished
        assert not describe(run)["finished"]
        assert not write_report(run).finished
        with contextlib.suppress(RunError):  # it says that results.csv is a line short
            verify(run)
        assert go_on(run.name)
        assert verify(run).unchecked == ()
        assert deploy(run, out=model, threads=1, on_event=_no_notes).drop == 0


def _no_notes(event: Event) -> None:
    assert not isinstance(event, Note), event


def test_in_less_precision_it_is_compared_with_the_same_weights(go_on: Callable[..., Path], tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == 15:
            raise Killed

    with pytest.raises(Killed):
        go_on("run", 20, stop)
    run = tmp_path / "run"
    stale = Run(run).read_validation()
    result = deploy(run, out=tmp_path / "m.onnx", precision="float16", threads=1)
    best = Run(run).read_checkpoint(BEST)
    assert best is not None
    assert result.figures_before["accuracy"] == best.history[-1].val_figures["accuracy"]
    assert result.largest_difference < 0.02
    assert deploy(run, out=tmp_path / "w.onnx", threads=1).largest_difference < 1e-4
    deployed = DeployedModel(tmp_path / "w.onnx")
    found = np.stack([deployed(read_rgb(Path(path).read_bytes()))[1] for path in stale.paths])
    assert np.abs(found - stale.logits).max() > 0.1, "the file kept is of other weights"


def test_a_sample_that_has_changed_is_named(
    go_on: Callable[..., Path], digits: Path, digits_artifacts: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(digits / "train", tmp_path / "data"))

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        finetune(digits_artifacts, data, out=tmp_path / "run", epochs=5, on_event=stop, **PASSED)
    run = Run(tmp_path / "run")
    assert not (run.path / VALIDATION).exists()
    assert deploy(run.path, out=tmp_path / "m.onnx", threads=1).verified_samples == 16
    name = next(sample.name for sample in run.read_samples() if sample.part == "val")
    Path(name).write_bytes(next(data.rglob("*.png")).read_bytes() + b"more")
    with pytest.raises(DeployError, match=Path(name).name):
        deploy(run.path, out=tmp_path / "m.onnx", threads=1)


def test_without_validation_samples_and_from_another_folder(
    digits: Path, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits / "train", tmp_path / "here" / "data")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        finetune(digits_artifacts, "data", out="run", epochs=5, on_event=stop, val_fraction=0, **PASSED)
    monkeypatch.chdir(tmp_path / "there")
    result = deploy("../here/run", out="m.onnx", threads=1)
    assert result.verified_samples == 80
    assert result.largest_difference < 1e-4


def test_a_finished_run_that_lacks_its_proof_is_not_taken_for_one_that_goes_on(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    assert (run / METRICS).is_file()
    (run / VALIDATION).unlink()
    with pytest.raises(RunError, match="--resume"):
        deploy(run, out=tmp_path / "m.onnx")
