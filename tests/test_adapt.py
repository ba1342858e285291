"""One command from a prepared directory to an evaluated file, without torch."""

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgetl import adapt, deploy, evaluate, finetune, predict
from edgetl.adaptation import STATE, kept_beside, options_of
from edgetl.cli.main import main
from edgetl.data.dataset import task_of
from edgetl.errors import DataError, DeployError, EdgetlError, RunError
from edgetl.events import Event, Note
from edgetl.files.storage import locked
from edgetl.runs.run import ARGS, BEST, LOCK, Run

QUICK = {"epochs": 2, "lr": 1e-2}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def few(digits: Path, tmp_path: Path) -> Path:
    """Pictures in `train/` and `test/`, 10 and 5 of each digit."""
    for part, count in (("train", 10), ("test", 5)):
        for folder in sorted((digits / part).iterdir()):
            (tmp_path / "data" / part / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                shutil.copy(file, tmp_path / "data" / part / folder.name)
    return tmp_path / "data"


def test_it_is_what_the_steps_give_one_by_one(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    result = adapt(str(digits_artifacts), few, out=tmp_path / "m.onnx", **QUICK)
    # the test part neither trained nor validated
    finetune(digits_artifacts, few / "train", out=tmp_path / "run", **QUICK)
    deploy(tmp_path / "run", out=tmp_path / "other.onnx")
    expected = evaluate(tmp_path / "other.onnx", few / "test")
    assert result.evaluated is not None
    assert (result.evaluated.figures, result.evaluated.loss) == (expected.figures, expected.loss)
    assert result.evaluated.samples == 20
    assert (result.finetuned.train_samples, result.finetuned.val_samples) == (32, 8)
    assert result.prepared is None
    assert result.run == str(tmp_path / "m.edgetl" / "run")
    assert Path(result.report).is_file()
    assert sorted(entry.name for entry in kept_beside(tmp_path / "m.onnx").iterdir()) == [".lock", STATE, "run"]
    ours, theirs = (Run(Path(run)).read_checkpoint(BEST) for run in (result.run, tmp_path / "run"))
    assert ours is not None
    assert theirs is not None
    for name, value in ours.parameters.items():
        np.testing.assert_array_equal(value, theirs.parameters[name])


def test_the_loss_is_that_of_the_probabilities(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    result = adapt(str(digits_artifacts), few, out=tmp_path / "m.onnx", **QUICK)
    assert result.evaluated is not None
    of_class = {
        folder.name: predict(tmp_path / "m.onnx", [folder], top=10) for folder in sorted((few / "test").iterdir())
    }
    each = [-np.log(dict(item.top)[name]) for name, items in of_class.items() for item in items]
    assert result.evaluated.loss == pytest.approx(np.mean(each), rel=1e-4)
    assert result.validation["loss"] == pytest.approx(result.finetuned.val_loss, rel=1e-4)
    assert result.validation["accuracy"] == result.finetuned.val_accuracy


def test_without_a_test_part_the_validation_speaks(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    result = invoke("adapt", digits_artifacts, few / "train", "--out", tmp_path / "m.onnx", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "no test: DATA have no part test" in result.stdout
    assert "edgetl evaluate" not in result.stdout
    assert "validation" in result.stdout.splitlines()[1]
    other = adapt(str(digits_artifacts), few / "train", out=tmp_path / "m.onnx", test=few / "test", epochs=1)
    assert other.evaluated is not None
    assert other.evaluated.samples == 20


def test_the_commands_that_it_prints_give_the_same(
    few: Path, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # a table: there is no folder of the training part to name
    with open(tmp_path / "my data.csv", "w", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(["picture", "kind", "split"])
        for part in ("train", "test"):
            lines.writerows([file, file.parent.name, part] for file in sorted((few / part).rglob("*.png")))
    options = ("--input-column", "picture", "--label-column", "kind", "--epochs", 2, "--no-refit", "--seed", 3)
    result = invoke("adapt", digits_artifacts, "my data.csv", "--out", "m.onnx", *options, "--max-drop", 3, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.keys() >= {"prepared", "finetuned", "deployed", "evaluated", "validation", "commands", "report"}
    before = found["evaluated"]
    shutil.rmtree(tmp_path / "m.edgetl")
    (tmp_path / "m.onnx").unlink()
    assert [command.split()[1] for command in found["commands"]] == ["finetune", "deploy", "evaluate"]
    for command in found["commands"]:
        done = subprocess.run(f"{sys.executable} -m {command} --json", shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout)
    for name in ("figures", "loss", "samples"):
        assert after[name] == before[name]


def test_called_again_it_computes_what_is_new(few: Path, digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    first = adapt(str(digits_artifacts), few, out=tmp_path / "m.onnx", **QUICK)
    assert first.finetuned.features_computed == 40
    new = sorted((digits / "train" / "7").iterdir())[-1]
    shutil.copy(new, few / "train" / "7")
    second = adapt(str(digits_artifacts), few, out=tmp_path / "m.onnx", **QUICK)
    assert (second.finetuned.features_computed, second.finetuned.features_reused) == (1, 40)
    assert second.evaluated is not None


def test_what_is_not_its_own_stays(few: Path, digits_artifacts: Path, digits_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    shutil.copy(digits_model, model)
    content = model.read_bytes()
    with pytest.raises(EdgetlError, match="exists already"):
        adapt(str(digits_artifacts), few, out=model, **QUICK)
    assert model.read_bytes() == content
    (tmp_path / "n.edgetl").mkdir()
    (tmp_path / "n.edgetl" / "diary.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(EdgetlError, match="was not written by edgetl"):
            adapt(str(digits_artifacts), few, out=tmp_path / "n.onnx", force=force, **QUICK)
    assert [entry.name for entry in (tmp_path / "n.edgetl").iterdir()] == ["diary.txt"]
    adapt(str(digits_artifacts), few, out=model, force=True, **QUICK)
    assert model.read_bytes() != content
    # put there by somebody else, behind its back
    model.write_bytes(content)
    with pytest.raises(EdgetlError, match="exists already"):
        adapt(str(digits_artifacts), few, out=model, **QUICK)


def test_what_is_not_deployed_is_not_thrown_away(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def interrupt(event: Event) -> None:
        if type(event).__name__ == "EpochEnd" and event.epoch == 1:  # type: ignore[union-attr]
            raise Stop

    model, source = tmp_path / "m.onnx", str(digits_artifacts)
    whole = adapt(source, few, out=tmp_path / "whole.onnx", **QUICK)
    with pytest.raises(Stop):
        adapt(source, few, out=model, on_event=interrupt, **QUICK)
    with pytest.raises(RunError, match="add --resume to go on, or --force"):
        adapt(source, few, out=model, **QUICK)
    with pytest.raises(RunError, match="seed was 0 and is now 1"):
        adapt(source, few, out=model, resume=True, seed=1, **QUICK)
    result = adapt(source, few, out=model, resume=True, **QUICK)
    assert result.evaluated is not None
    assert whole.evaluated is not None
    assert (result.evaluated.figures, result.evaluated.loss) == (whole.evaluated.figures, whole.evaluated.loss)
    # trained, but not deployed: between the two the power went
    model.unlink()
    state = kept_beside(model) / STATE
    before = state.read_text()
    adapt(source, few, out=model, seed=2, **QUICK)
    state.write_text(before)
    with pytest.raises(RunError, match="is not finished"):
        adapt(source, few, out=model, **QUICK)
    assert adapt(source, few, out=model, resume=True, seed=2, **QUICK).evaluated is not None
    adapt(source, few, out=model, **QUICK)


def test_ctrl_c_says_how_to_go_on(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    command = ["adapt", str(digits_artifacts), str(digits / "train"), "--out", str(tmp_path / "m.onnx"), "--epochs"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgetl", *command, "100000"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    checkpoint = tmp_path / "m.edgetl" / "run" / BEST
    for _ in range(600):
        if checkpoint.is_file():
            break
        time.sleep(0.1)
    process.send_signal(2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    (sentence,) = [line for line in errors.splitlines() if line.startswith("Error: ")]
    advice = sentence.partition("Continue with: ")[2]
    assert advice == f"edgetl {' '.join(command)} 100000 --resume"
    # a run with a constant rate may end sooner than it was to
    result = invoke(*command, "1", "--resume")
    assert result.exit_code == 0, result.output


def test_mistakes_are_told_before_anything_is_computed(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    source, out = str(digits_artifacts), tmp_path / "m.onnx"

    def refused(**arguments: object) -> str:
        with pytest.raises(EdgetlError) as caught:
            adapt(**{"source": source, "data": few, "out": out, **arguments})  # type: ignore[arg-type]
        assert not kept_beside(Path(str(arguments.get("out", out)))).exists()
        return str(caught.value)

    assert "epochs must lie between" in refused(epochs=-1)
    assert "no precision 'int4'" in refused(precision="int4")
    assert "options of prepare (weights)" in refused(weights="w.pth")
    assert "does not exist" in refused(data=tmp_path / "nothing")
    assert "does not exist" in refused(test=tmp_path / "nothing")
    assert "is a folder" in refused(out=few)
    assert "be taken for a class: give --out a place outside" in refused(out=few / "m.onnx")
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        adapt(source, few, out=out, epoch=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'keep_test'"):
        adapt(source, few, out=out, keep_test=True)
    assert not out.exists()


def test_two_at_once(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    folder = kept_beside(tmp_path / "m.onnx")
    with locked(folder / LOCK, "it"):
        (folder / STATE).write_text("of the other")
        with pytest.raises(RunError, match="is in use by process"):
            adapt(str(digits_artifacts), few, out=tmp_path / "m.onnx", **QUICK)
        assert (folder / STATE).read_text() == "of the other"


def test_a_damaged_record(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    source, out = str(digits_artifacts), tmp_path / "m.onnx"
    adapt(source, few, out=out, **QUICK)
    (tmp_path / "m.edgetl" / STATE).write_text("{}")
    with pytest.raises(RunError, match=r"is damaged .*: start anew with --force"):
        adapt(source, few, out=out, **QUICK)
    adapt(source, few, out=out, force=True, **QUICK)


def test_a_file_that_loses_too_much_can_be_deployed_otherwise(
    few: Path, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **others: object) -> None:
        raise DeployError("it loses too much: give a larger --max-drop")

    source, out = str(digits_artifacts), tmp_path / "m.onnx"
    with monkeypatch.context() as patch:
        patch.setattr("edgetl.adaptation.deploy", refuse)
        with pytest.raises(DeployError):
            adapt(source, few, out=out, **QUICK)
    result = adapt(source, few, out=out, resume=True, max_drop=20, **QUICK)
    assert result.finetuned.features_computed == 0


def test_what_is_wrong_with_the_test_is_told_before_training(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(few / "test", tmp_path / "other"))
    (other / "7").rename(other / "seven")
    for arguments in ({"test": other}, {"data": tmp_path / "both"}):
        shutil.copytree(few / "train", tmp_path / "both" / "train", dirs_exist_ok=True)
        shutil.copytree(other, tmp_path / "both" / "test", dirs_exist_ok=True)
        with pytest.raises(DataError, match="'seven'"):
            adapt(**{"source": str(digits_artifacts), "data": few, "out": tmp_path / "m.onnx", **arguments})
        assert not (tmp_path / "m.edgetl").exists()


def test_a_test_part_without_labels_is_named_and_not_used(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    for folder in sorted((few / "test").iterdir()):
        for file in sorted(folder.iterdir()):
            file.rename(few / "test" / f"{folder.name}-{file.name}")
        folder.rmdir()
    events: list[Event] = []
    result = adapt(str(digits_artifacts), few, out=tmp_path / "m.onnx", on_event=events.append, **QUICK)
    assert result.evaluated is None
    assert any(isinstance(event, Note) and f"{few / 'test'} holds files, but no" in event.text for event in events)


def test_validation_and_test_parts(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    for folder in sorted((few / "train").iterdir()):
        (few / "val" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:3]:
            file.rename(few / "val" / folder.name / file.name)
    result = adapt(str(digits_artifacts), few, out=tmp_path / "m.onnx", **QUICK)
    assert (result.finetuned.train_samples, result.finetuned.val_samples) == (28, 12)
    assert result.evaluated is not None
    assert result.evaluated.samples == 20


def test_the_same_note_is_told_once(few: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    (few / "train" / "6" / "broken.png").write_bytes(b"not a picture")
    (few / "extra").mkdir()
    (few / "extra" / "x.png").write_bytes(b"x")
    events: list[Event] = []
    adapt(str(digits_artifacts), few, out=tmp_path / "m.onnx", on_event=events.append, **QUICK)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("not used: 'extra'" in text for text in notes)
    assert len(set(notes)) == len(notes)


def test_options_are_those_of_the_steps() -> None:
    """Each option of the steps' functions is one of the command's, and the other way round."""
    command = {param.name for param in main.commands["adapt"].params}
    preprocessing = {"size", "channels", "resize", "crop_pct", "interpolation", "mean", "std", "channel_order"}
    own = {"source", "data", "out", "test", "resume", "force", "as_json"}
    of_steps = set().union(*map(options_of, ("prepare", "finetune", "deploy", "evaluate")))
    assert command - own - preprocessing == of_steps - {"preprocessing", "callbacks"}  # for Python alone


@pytest.mark.parametrize(
    ("name", "content", "columns", "task"),
    [
        ("t.csv", "text,label\na,x\nb,y\n", (), "classification"),
        ("t.csv", "text,label\na,1\nb,2\n", (), "classification"),
        ("t.csv", "text,label\na,1.0\nb,2\n", (), "classification"),
        ("t.csv", "text,label\na,1.5\nb,2\n", (), "regression"),
        ("t.csv", "text,label\na,1.5\nb,big\n", (), "classification"),
        ("t.csv", "text,price,size\na,1,2\nb,3,4\n", ("price", "size"), "regression"),
        ("t.csv", "text,sea,sun\na,1,0\nb,0,0\n", ("sea", "sun"), "multilabel"),
        ("t.jsonl", '{"text": "a", "label": ["sea", "sun"]}\n{"text": "b", "label": []}\n', (), "multilabel"),
        ("t.jsonl", '{"text": "a", "label": [1, 2]}\n{"text": "b", "label": [3, 4]}\n', (), "regression"),
        ("t.jsonl", '{"text": "a", "label": "sea"}\n{"text": "b", "label": "sun"}\n', (), "classification"),
    ],
)
def test_the_task_of_tables(tmp_path: Path, name: str, content: str, columns: tuple[str, ...], task: str) -> None:
    (tmp_path / name).write_text(content)
    notes: list[Event] = []
    assert task_of(tmp_path / name, columns, notes.append) == task
    assert len(notes) == (task != "classification")
    folder = tmp_path / "folder" / "train"
    folder.mkdir(parents=True)
    (folder / f"metadata{Path(name).suffix}").write_text(content)
    assert task_of(folder.parent, columns) == task


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (np.array([0, 1, 2, 1]), "classification"),
        (np.array(["a", "b", "a", "b"]), "classification"),
        (np.array([0.0, 1.0, 2.0, 1.0]), "classification"),
        (np.array([0.5, 1.0, 2.0, 1.0]), "regression"),
        (np.array([[0, 1], [1, 1], [0, 0], [1, 0]]), "multilabel"),
        (np.array([[0.5, 1], [1, 1], [0, 0], [1, 0]]), "regression"),
    ],
)
def test_the_task_of_archives(tmp_path: Path, labels: np.ndarray, task: str) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3)), y=labels)
    assert task_of(tmp_path / "d.npz") == task


def test_folders_are_of_classes(few: Path) -> None:
    assert task_of(few) == task_of(few / "train") == "classification"


def test_an_empty_folder(digits_artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError):
        adapt(str(digits_artifacts), tmp_path / "data", out=tmp_path / "m.onnx")
    assert not (tmp_path / "m.edgetl" / "run" / ARGS).exists()
