"""One command from a network's source to an evaluated file."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_pictures

from edgetl import adapt, prepare
from edgetl.adaptation import Adaptation
from edgetl.artifacts import load_artifacts
from edgetl.cli.main import main
from edgetl.errors import EdgetlError, RunError
from edgetl.events import Event, Note, Stage

SOURCE = """
import torch
from torch import nn

def build(width=6):
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 9))

def numbers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
"""


def write_source(folder: Path, seed: int = 0) -> Path:
    (folder / "nets.py").write_text(SOURCE.replace("SEED", str(seed)))
    return folder / "nets.py"


class Told:
    """Receives events, and counts how often a network is loaded."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.loaded = 0

    def __call__(self, event: Event) -> None:
        self.loaded += event == Stage("loading and exporting")
        if isinstance(event, Note):
            self.notes.append(event.text)


def test_the_prepared_directory_serves_as_long_as_nothing_changes(tmp_path: Path) -> None:
    source = f"{write_source(tmp_path)}:build"
    data = write_pictures(tmp_path / "data" / "train", {"a": 8, "b": 8}).parent
    write_pictures(data / "test", {"a": 3, "b": 3}, seed=1)
    told = Told()
    options = {"out": tmp_path / "m.onnx", "epochs": 1, "preprocessing": {"size": 12}, "on_event": told}
    first = adapt(source, data, **options)
    assert told.loaded == 1
    assert first.prepared is not None
    assert first.prepared.labels == ("a", "b")
    assert first.evaluated is not None
    assert first.evaluated.samples == 6

    write_pictures(data / "train", {"b": 9}, seed=2)
    second = adapt(source, data, **options)
    assert told.loaded == 1
    assert second.prepared is None
    assert (second.finetuned.features_computed, second.finetuned.features_reused) == (9, 8)
    assert any("is used again" in text for text in told.notes)
    # what concerns training alone, or how much of it fits, prepares nothing
    adapt(source, data, lr=1e-2, memory_mb=2000, **options)
    assert told.loaded == 1

    write_source(tmp_path, seed=1)  # other weights
    adapt(source, data, **options)
    assert told.loaded == 2
    adapt(source, data, **{**options, "preprocessing": {"size": 10}})
    assert told.loaded == 3
    adapt(source, data, model_args={"width": 5}, **{**options, "preprocessing": {"size": 10}})
    assert told.loaded == 4
    write_pictures(data / "train", {"c": 8})
    write_pictures(data / "test", {"c": 3})
    third = adapt(source, data, **options)
    assert told.loaded == 5
    assert third.prepared is not None
    assert third.prepared.labels == ("a", "b", "c")
    # damaged, or made anew behind its back
    (tmp_path / "m.edgetl" / "artifacts" / "preprocess.onnx").write_bytes(b"x")
    adapt(source, data, **options)
    assert told.loaded == 6
    adapt(source, data, force=True, **options)
    assert told.loaded == 7


def test_it_prepares_what_prepare_does(tmp_path: Path) -> None:
    source = f"{write_source(tmp_path)}:build"
    data = write_pictures(tmp_path / "data", {"a": 8, "b": 8})
    options = {"preprocessing": {"size": 12}, "train": ("all",)}
    adapt(source, data, out=tmp_path / "m.onnx", epochs=1, **options)
    prepare(source, out=tmp_path / "art", labels_from=data, **options)
    manifests = (load_artifacts(path).manifest for path in (tmp_path / "m.edgetl" / "artifacts", tmp_path / "art"))
    ours, theirs = manifests
    assert replace(ours, files={}) == replace(theirs, files={})
    assert ours.files.keys() == theirs.files.keys()


@pytest.mark.parametrize(
    ("before", "stage"),
    [
        *(("nothing", stage) for stage in (
            *("loading and exporting", "generating gradients", "features", "training"),
            *("training on all 16 samples", "composing", "evaluating"),
        )),
        *(("fewer pictures", stage) for stage in ("features", "training", "evaluating")),
        *(("another width", stage) for stage in ("loading and exporting", "features")),
        *(("the same, and --force", stage) for stage in ("loading and exporting", "training")),
    ],
)  # fmt: skip
def test_it_goes_on_wherever_it_stopped(
    tmp_path: Path, stage: str, before: str, finished: tuple[str, Path, dict[str, Any], Adaptation]
) -> None:
    """With the result of an undisturbed call, whatever another call had left there."""

    class Stop(BaseException):
        pass

    def stop(event: Event) -> None:
        if event == Stage(stage):
            raise Stop

    source, data, options, whole = finished
    model, forces = tmp_path / "m.onnx", before.endswith("--force")
    if before != "nothing":
        shutil.copytree(data, tmp_path / "data")
        (tmp_path / "data" / "train" / "a" / "007.png").unlink()
        fewer = before == "fewer pictures"
        others = {**options, "model_args": {"width": 5}} if before == "another width" else options
        adapt(source, tmp_path / "data" if fewer else data, out=model, **others)
    told = Told()
    with pytest.raises(Stop):
        adapt(source, data, out=model, on_event=stop, force=forces, **options)
    result = adapt(source, data, out=model, resume=True, on_event=told, **options)
    assert told.loaded == (stage in ("loading and exporting", "generating gradients"))
    assert result.evaluated is not None
    assert whole.evaluated is not None
    assert (result.evaluated.figures, result.evaluated.loss) == (whole.evaluated.figures, whole.evaluated.loss)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, Any], Adaptation]:
    """Source, data, options, and what an undisturbed call gives."""
    root = tmp_path_factory.mktemp("finished")
    source = f"{write_source(root)}:build"
    data = write_pictures(root / "data" / "train", {"a": 8, "b": 8}).parent
    write_pictures(data / "test", {"a": 3, "b": 3}, seed=1)
    options = {"epochs": 2, "lr": 1e-2, "preprocessing": {"size": 12}}
    return source, data, options, adapt(source, data, out=root / "whole.onnx", **options)


def test_a_mistake_leaves_what_there_was(
    finished: tuple[str, Path, dict[str, Any], Adaptation], tmp_path: Path
) -> None:
    source, data, options, _ = finished
    model = tmp_path / "m.onnx"
    adapt(source, data, out=model, **options)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    (tmp_path / "empty").mkdir()
    for arguments in (
        {"data": tmp_path / "empty"},
        {"head": "nothing"},
        {"metric": "r2"},
        {"head": "nothing", "force": True},
    ):
        with pytest.raises(EdgetlError):
            adapt(**{"source": source, "data": data, "out": model, **options, **arguments})  # type: ignore[arg-type]
        after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        changed = {file.name for file in before.keys() | after.keys() if before.get(file) != after.get(file)}
        assert changed <= {"adapt.json"}
    assert adapt(source, data, out=model, **options).evaluated is not None
    assert (tmp_path / "m.edgetl" / "run-before" / "args.yaml").is_file()


def test_the_commands_that_it_prints_give_the_same(tmp_path: Path) -> None:
    source = f"{write_source(tmp_path)}:build"
    data = write_pictures(tmp_path / "my data" / "train", {"a": 8, "b": 8}).parent
    write_pictures(data / "test", {"a": 3, "b": 3}, seed=1)
    options = [
        "--size",
        "12",
        "--mean",
        "0.4,0.5,0.6",
        "--train",
        "bias",
        "--train",
        "last:1",
        "--model-arg",
        "width=5",
    ]
    options += ["--epochs", "2", "--no-flip", "--augment", "light", "--views", "1", "--max-drop", "2", "--threads", "1"]
    arguments = ["adapt", source, str(data), "--out", str(tmp_path / "m.onnx"), *options, "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    shutil.rmtree(tmp_path / "m.edgetl")
    (tmp_path / "m.onnx").unlink()
    assert [shlex.split(command)[1] for command in found["commands"]] == ["prepare", "finetune", "deploy", "evaluate"]
    for command in found["commands"]:
        result = CliRunner().invoke(main, [*shlex.split(command)[1:], "--json"])
        assert result.exit_code == 0, result.output
    after = json.loads(result.stdout)
    for name in ("figures", "loss", "samples"):
        assert after[name] == found["evaluated"][name]


def test_a_run_is_not_resumed_with_another_network(tmp_path: Path) -> None:
    source = f"{write_source(tmp_path)}:build"
    data = write_pictures(tmp_path / "data", {"a": 8, "b": 8})
    options = {"epochs": 1, "preprocessing": {"size": 12}}
    adapt(source, data, out=tmp_path / "m.onnx", **options)
    before = (tmp_path / "m.edgetl" / "artifacts" / "manifest.json").read_bytes()
    with pytest.raises(RunError, match="cannot be resumed, because source, options or labels are not those"):
        adapt(source, data, out=tmp_path / "m.onnx", resume=True, model_args={"width": 5}, **options)
    assert (tmp_path / "m.edgetl" / "artifacts" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("labels", "task", "figure"),
    [
        (lambda x: x.sum(axis=1), "regression", "r2"),
        (lambda x: (x[:, :3] > 0).astype(int), "multilabel", "macro F1"),
        (lambda x: (x[:, 0] > 0).astype(int), "classification", "accuracy"),
    ],
)
def test_task_and_modality_come_from_the_data(tmp_path: Path, labels, task: str, figure: str) -> None:  # type: ignore[no-untyped-def]
    source = f"{write_source(tmp_path)}:numbers"
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((40, 5)), rng.standard_normal((10, 5))
    np.savez(tmp_path / "d.npz", x=x, y=labels(x), x_test=other, y_test=labels(other))
    arguments = ["adapt", source, str(tmp_path / "d.npz"), "--out", str(tmp_path / "m.onnx"), "--epochs", "2"]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["finetuned"]["task"] == task
    assert found["evaluated"]["samples"] == 10
    assert (found["evaluated"]["loss"] is None) == (task == "regression")
    assert any(f"--task {task}" in command for command in found["commands"]) == (task != "classification")
    assert any("--modality array --input-shape 5" in note for note in found["notes"])
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0, again.output
    assert any(line.split()[:1] == figure.split()[:1] for line in again.stdout.splitlines()) or task == "regression"


def test_a_source_that_does_not_exist_leaves_nothing(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", {"a": 8, "b": 8})
    with pytest.raises(EdgetlError):
        adapt("timm:no_such_network_at_all", data, out=tmp_path / "m.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
