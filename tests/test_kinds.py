"""Every command given every other thing: one sentence that says what it is and which command takes it."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import HAS_TORCH
from onnx import TensorProto, helper

from edgetl.cli import main
from edgetl.kinds import DATA, MODEL, PREPARED, mistaken

IS = {
    "art": "art is a prepared directory, not {}: train it first: edgetl finetune art DATA --out runs/art",
    "run": "run is a run, not {}: deploy it first: edgetl deploy run --out model-2.onnx",
    "model.onnx": "model.onnx is a deployed model, not {}: use it with: edgetl predict model.onnx INPUT",
    "plain.onnx": "plain.onnx is an ONNX model that edgetl has not deployed, or that was altered or damaged, not {}: "
    "deploy it again, or prepare it: edgetl prepare plain.onnx --labels-from DATA --out artifacts",
    "data": "data is a folder of data, not {}: train on it: edgetl finetune ARTIFACTS data --out RUN",
    "table.csv": "table.csv is a table, not {}: train on it: edgetl finetune ARTIFACTS table.csv --out RUN",
    "rows.npz": "rows.npz is an archive of arrays, not {}: train on it: edgetl finetune ARTIFACTS rows.npz --out RUN",
    "weights.pth": "weights.pth is a file of weights, not {}: give it to its network: edgetl prepare SOURCE --weights",
    "note.txt": "note.txt is a text file, not {}: let a deployed model tell what it is: edgetl predict MODEL note.txt",
    "one.png": "one.png is a picture, not {}: let a deployed model tell what it is: edgetl predict MODEL one.png",
    "all runs": "all runs is a folder of runs, not {}: name one of them, such as 'all runs/a'",
    "empty": "empty is an empty folder, not {}: ",
    "modle.onnx": "modle.onnx does not exist; did you mean 'model.onnx'?",
    "nothing": "nothing does not exist: ",
}

TAKES = {
    "finetune {} data --out new": (PREPARED, {"art"}),
    "plan {}": (PREPARED, {"art"}),
    "finetune art {} --out new": (DATA, {"data"}),
    "evaluate model.onnx {}": (DATA, {"data"}),
    "prepare net.py:build --labels-from {} --out new": (DATA, {"data", "table.csv", "rows.npz"}),
    "deploy {} --out new.onnx": ("a run", {"run"}),
    "report {}": ("a run", {"run"}),
    "predict {} one.png": (MODEL, {"model.onnx"}),
    "evaluate {} data": (MODEL, {"model.onnx"}),
    "benchmark {}": ("an ONNX model", {"model.onnx", "plain.onnx"}),
    "inspect {}": ("a prepared directory, a run or a deployed model", {"art", "run", "model.onnx"}),
    "verify {}": ("a prepared directory, a run or a deployed model", {"art", "run", "model.onnx"}),
    "runs {}": ("a folder of runs", {"run", "all runs"}),
    "prepare {} --classes 2 --out new": ("a network to prepare", {"plain.onnx"}),
}
# a folder of class folders, and what lies in them, says no more than this of itself
OTHER_WORDS = {
    ("runs {}", "data"): "no run lies in data or below it: 'edgetl finetune … --out data/NAME' makes one",
    ("runs {}", "empty"): "no run lies in empty or below it",
    **{(command, "plain.onnx"): IS["plain.onnx"].format("a deployed model") for command in ("inspect {}", "verify {}")},
    ("evaluate model.onnx {}", "table.csv"): "no column",
    ("finetune art {} --out new", "table.csv"): "no column",
    ("evaluate model.onnx {}", "rows.npz"): "holds arrays, but the network takes samples of the modality image",
    ("finetune art {} --out new", "rows.npz"): "holds arrays, but the network takes samples of the modality image",
    ("prepare {} --classes 2 --out new", "data"): "data is a folder of data, not a network to prepare",
    ("prepare {} --classes 2 --out new", "run"): "run is a run, not a network to prepare: give timm:NAME",
    ("prepare {} --classes 2 --out new", "model.onnx"): "is a deployed model, not a network to prepare: give timm:NAME",
    **{
        (command, "run"): "run is a run, not a prepared directory: give "
        for command, (kind, _) in TAKES.items()
        if kind == PREPARED
    },
    **{
        (command, "model.onnx"): f"not {PREPARED}: make one with 'edgetl prepare"
        for command, (kind, _) in TAKES.items()
        if kind == PREPARED
    },
    **{
        (command, thing): f"{thing} is {what}, not data: give a folder"
        for command, (kind, _) in TAKES.items()
        if kind == DATA
        for thing, what in (("run", "a run"), ("art", PREPARED), ("model.onnx", MODEL))
    },
}


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, digits_artifacts: Path, digits_run: Path, digits_model: Path
) -> Path:
    here = tmp_path_factory.mktemp("place")
    shutil.copytree(digits_artifacts, here / "art")
    shutil.copytree(digits_run, here / "run")
    shutil.copytree(digits_run, here / "all runs" / "a")
    shutil.copytree(digits / "train", here / "data")
    shutil.copy(digits_model, here / "model.onnx")
    shutil.copy(next((digits / "train").rglob("*.png")), here / "one.png")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "plain", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), here / "plain.onnx")
    (here / "table.csv").write_text("a,b,label\n1,2,x\n3,4,y\n")
    np.savez(here / "rows.npz", x=np.zeros((4, 2), np.float32), y=np.array([0, 1, 0, 1]))
    (here / "weights.pth").write_bytes(b"PK")
    (here / "note.txt").write_text("hello")
    (here / "net.py").write_text("def build(): ...\n")
    (here / "empty").mkdir()
    return here


@pytest.mark.parametrize("command", TAKES)
def test_each_command_with_each_other_thing(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.startswith("prepare") and not HAS_TORCH:
        pytest.skip("prepare needs torch")
    monkeypatch.chdir(place)
    wanted, right = TAKES[command]
    before = sorted(place.rglob("*"))
    for thing, sentence in IS.items():
        if thing in right:
            continue
        if thing == "empty" and wanted in (DATA, "a folder of runs"):
            sentence = "empty"
        words = [part.replace("{}", thing) for part in command.split()]
        result = CliRunner().invoke(main, words)
        error = result.stderr.strip().splitlines()[-1]
        assert result.exit_code == 1, (words, result.output)
        assert "Traceback" not in result.output
        assert error.startswith("Error: ")
        expected = OTHER_WORDS.get((command, thing), sentence.format(wanted))
        assert expected in error, f"edgetl {' '.join(words)}: {error}"
    assert sorted(place.rglob("*")) == before


def test_the_advice_overwrites_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    command = mistaken("run", MODEL).partition("first: edgetl ")[2].split()
    assert not Path(command[-1]).exists()
    assert CliRunner().invoke(main, command).exit_code == 0
    Path(command[-1]).unlink()


def test_a_run_names_the_prepared_directory_that_is_right(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    art = shlex.split(mistaken("run", PREPARED).partition(": give ")[2].partition(", from which it was trained")[0])
    assert CliRunner().invoke(main, ["plan", *art]).exit_code == 0
    lines = (place / "run" / "args.yaml").read_text().splitlines()
    moved = [
        f"artifacts: {json.dumps(str(place / 'gone'))}" if line.startswith("artifacts: ") else line for line in lines
    ]
    (place / "run" / "args.yaml").write_text("\n".join(moved) + "\n")
    assert "make one with 'edgetl prepare" in mistaken("run", PREPARED)
