import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import engines, write_pictures

from edgetl import deploy, finetune
from edgetl.errors import ArtifactsError, DataError, EdgetlError, RunError
from edgetl.events import EpochEnd, EpochProgress, Event, Note
from edgetl.runs.run import BEST, FINAL, LAST, Checkpoint, Run


def last(run: Path) -> Checkpoint:
    checkpoint = Run(run).read_checkpoint(LAST)
    assert checkpoint is not None
    return checkpoint


def assert_same(first: Path, second: Path) -> None:
    a, b = last(first), last(second)
    assert a.engine_state == b.engine_state
    assert [(e.train_loss, e.val_loss, e.val_accuracy) for e in a.history] == [
        (e.train_loss, e.val_loss, e.val_accuracy) for e in b.history
    ]
    for name, value in a.parameters.items():
        np.testing.assert_array_equal(value, b.parameters[name])


@pytest.fixture
def train(digits: Path, digits_artifacts: Path, tmp_path: Path) -> Callable[..., Any]:
    def call(name: str = "run", **options: Any) -> Any:
        options = {"epochs": 4, "lr": 1e-2, "init": "zero", **options}
        return finetune(digits_artifacts, digits / "train", out=tmp_path / name, **options)

    return call


def test_it_learns_and_writes_what_happened(train: Callable[..., Any], tmp_path: Path) -> None:
    events: list[Event] = []
    result = train(epochs=40, on_event=events.append)
    assert result.val_accuracy > 0.6  # one in four by chance
    assert (result.train_samples, result.val_samples) == (64, 16)
    ends = [event for event in events if isinstance(event, EpochEnd)]
    assert [end.epoch for end in ends] == list(range(41))
    assert ends[0].train_loss is None
    assert ends[-1].val_loss < ends[0].val_loss / 1.5
    with open(tmp_path / "run" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["train_loss"] == ""
    found = [float(row["train_loss"]) for row in rows[1:]]
    assert found == [pytest.approx(end.train_loss, rel=1e-4) for end in ends[1:]]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["val_accuracy"] == result.val_accuracy == max(end.val_accuracy or 0 for end in ends)
    best = Run(tmp_path / "run").read_checkpoint(BEST)
    assert best is not None
    assert best.epoch == result.best_epoch


def test_the_best_epoch_is_chosen_by_the_metric(train: Callable[..., Any], tmp_path: Path) -> None:
    best = {}
    for metric, extreme in (("accuracy", max), ("macro_f1", max), ("loss", min)):
        result = train(metric, epochs=12, lr=0.5, metric=metric)
        with open(tmp_path / metric / "results.csv", newline="") as file:
            values = [float(row[f"val_{metric}"]) for row in csv.DictReader(file)]
        assert values[result.best_epoch] == extreme(values)
        assert result.val_metric == pytest.approx(values[result.best_epoch], rel=1e-5)
        assert result.val_accuracy == result.val_figures["accuracy"]
        checkpoint = Run(tmp_path / metric).read_checkpoint(BEST)
        assert checkpoint is not None
        assert checkpoint.epoch == result.best_epoch
        best[metric] = result.best_epoch
    assert best["loss"] != best["accuracy"], "steps so long that they disagree"


def test_a_metric_of_another_task_is_refused_before_anything_is_computed(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    events: list[Event] = []
    with pytest.raises(RunError, match="--metric r2 is not measured of classification: choose one of accuracy"):
        train(metric="r2", on_event=events.append)
    assert events == []
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_of_files_need_not_be_utf8(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(digits / "train", tmp_path / os.fsdecode(b"d\xffta")))
    for file in list(data.rglob("*.png")):
        file.rename(file.with_name(os.fsdecode(b"\xfe") + file.name))
    (data / "6" / os.fsdecode(b"\xffbroken.png")).write_bytes(b"no picture")
    settings: dict[str, Any] = {"out": tmp_path / "run", "init": "zero"}
    finetune(digits_artifacts, data, epochs=1, **settings)
    result = finetune(digits_artifacts, data, epochs=2, resume=True, **settings)
    assert (result.epochs, len(result.rejected)) == (2, 1)
    assert Run(tmp_path / "run").read_args().data == str(data)
    names = [sample.name for sample in Run(tmp_path / "run").read_samples()]
    assert sorted(names) == sorted(str(file) for file in data.rglob("*.png") if file.stat().st_size > 10)
    assert deploy(tmp_path / "run", out=tmp_path / "m.onnx").verified_samples == result.val_samples


def test_the_first_loss_is_that_of_an_even_guess(train: Callable[..., Any], tmp_path: Path) -> None:
    train(epochs=1, lr=1e-9, batch_size=64)
    assert last(tmp_path / "run").history[1].train_loss == pytest.approx(np.log(4), rel=1e-5)


def test_the_same_seed_gives_the_same_bits(train: Callable[..., Any], tmp_path: Path) -> None:
    train("one")
    train("two", threads=1)
    assert_same(tmp_path / "one", tmp_path / "two")
    train("other", seed=1)
    assert last(tmp_path / "other").history[1].train_loss != last(tmp_path / "one").history[1].train_loss


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_run_resumes_exactly(train: Callable[..., Any], tmp_path: Path, stop: int) -> None:
    train("whole")

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("broken", on_event=interrupt)
    assert last(tmp_path / "broken").epoch == stop
    train("broken", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "broken")
    # and again, with nothing left to do
    assert train("broken", resume=True).epochs == 4


def test_a_finished_run_can_be_made_longer(train: Callable[..., Any], tmp_path: Path) -> None:
    train("long", epochs=6)
    train("short", epochs=2)
    train("short", epochs=6, resume=True)
    assert_same(tmp_path / "long", tmp_path / "short")
    assert train("short", epochs=3, resume=True).epochs == 6


def test_a_killed_run_resumes_exactly(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edgetl",
        "finetune",
        str(digits_artifacts),
        str(digits / "train"),
        "--epochs",
        "60",
    ]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    broken = [*command, "--out", str(tmp_path / "broken"), "--resume"]
    kills = 0
    for wait in (0.3, 0.5, 0.6, 0.7, 0.8):
        process = subprocess.Popen(broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        kills += process.poll() is None
        process.kill()
        process.wait()
    subprocess.run(broken, check=True, capture_output=True)
    assert kills
    assert_same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_says_how_to_resume(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgetl", "finetune", str(digits_artifacts), str(digits / "train")]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "my run"), "--epochs", "100000"], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "my run" / LAST).is_file():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" not in stderr
    assert f"--out '{tmp_path / 'my run'}' --epochs 100000 --resume" in stderr


def test_resume_refuses_other_settings_and_other_data(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(digits / "train", tmp_path / "data"))
    finetune(digits_artifacts, data, out=tmp_path / "run", epochs=1, lr=0.001)
    with pytest.raises(RunError, match=r"lr was 0.001 and is now 0.1"):
        finetune(digits_artifacts, data, out=tmp_path / "run", epochs=2, lr=0.1, resume=True)
    next((data / "6").iterdir()).unlink()
    with pytest.raises(RunError, match="have changed"):
        finetune(digits_artifacts, data, out=tmp_path / "run", epochs=2, resume=True)


def test_an_existing_run_is_kept_without_force(train: Callable[..., Any], tmp_path: Path) -> None:
    train()
    before = last(tmp_path / "run")
    with pytest.raises(EdgetlError, match="--resume or --force"):
        train(seed=3)
    assert last(tmp_path / "run").engine_state == before.engine_state
    train(seed=3, force=True)
    assert last(tmp_path / "run").engine_state != before.engine_state


def test_force_with_bad_data_costs_nothing(train: Callable[..., Any], digits_artifacts: Path, tmp_path: Path) -> None:
    train()
    with pytest.raises(DataError):
        finetune(digits_artifacts, tmp_path / "nowhere", out=tmp_path / "run", force=True)
    assert last(tmp_path / "run").epoch == 4


def test_validation_data_of_its_own(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    result = finetune(digits_artifacts, digits, out=tmp_path / "a", epochs=1)
    assert (result.train_samples, result.val_samples) == (80, 634)
    result = finetune(digits_artifacts, digits / "train", out=tmp_path / "b", epochs=1, val=digits / "test")
    assert (result.train_samples, result.val_samples) == (80, 634)
    result = finetune(digits_artifacts, digits / "train", out=tmp_path / "c", epochs=1, val_fraction=0)
    assert (result.train_samples, result.val_samples, result.val_accuracy) == (80, 0, None)


def test_a_bad_picture_is_left_out_and_counted(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(digits / "train", tmp_path / "data"))
    (data / "7" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    notes: list[Event] = []
    result = finetune(digits_artifacts, data, out=tmp_path / "run", epochs=1, on_event=notes.append)
    assert result.rejected == ((str(data / "7" / "broken.png"), "is not a picture"),)
    assert any(isinstance(n, Note) and "broken.png" in n.text for n in notes)


def test_a_class_without_a_usable_picture_is_an_error(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(digits / "train", tmp_path / "data"))
    for file in (data / "7").iterdir():
        file.write_text("no picture")
    with pytest.raises(DataError, match="no usable sample is left for '7'"):
        finetune(digits_artifacts, data, out=tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


def test_other_classes_are_an_error_and_write_nothing(digits_artifacts: Path, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", {"6": 1, "7": 1, "8": 1, "nine": 1})
    with pytest.raises(DataError, match=r"no folder for '9'.*'nine'"):
        finetune(digits_artifacts, data, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_artifacts(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactsError, match="edgetl prepare"):
        finetune(tmp_path, digits, out=tmp_path / "run")


def test_two_into_one_directory(train: Callable[..., Any], tmp_path: Path) -> None:
    train()
    with Run(tmp_path / "run").lock(), pytest.raises(RunError, match="in use by process"):
        train(resume=True)


def test_an_unknown_engine(train: Callable[..., Any]) -> None:
    with pytest.raises(EdgetlError, match="choose one of"):
        train(engine="tensorflow")


def history(run: Path) -> tuple[EpochEnd, ...]:
    return last(run).history


@pytest.mark.parametrize("init", ["prototype", "ridge", "auto"])
def test_a_head_in_closed_form_is_usable_before_the_first_step(
    train: Callable[..., Any], tmp_path: Path, init: str
) -> None:
    events: list[Event] = []
    result = train(epochs=0, init=init, on_event=events.append)
    (start,) = (event for event in events if isinstance(event, EpochEnd))
    assert (start.epoch, start.train_loss) == (0, None)
    assert result.val_accuracy == start.val_accuracy
    assert result.val_accuracy > 0.5  # one in four by chance
    assert (result.epochs, result.best_epoch) == (0, 0)
    train("zero", epochs=0)
    assert history(tmp_path / "zero")[0].val_loss == pytest.approx(np.log(4), rel=1e-5)


def test_training_begins_where_the_closed_form_ends(train: Callable[..., Any], tmp_path: Path) -> None:
    train(init="ridge", epochs=1, lr=1e-9)
    start, end = history(tmp_path / "run")
    assert end.val_loss == pytest.approx(start.val_loss, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "cosine", "warmup": 0.2},
        {"lr": "search"},
        {"init": "ridge", "lr": "search", "patience": 3},
        {"label_smoothing": 0.1, "class_weights": "balanced"},
        {"optimizer": "sgd", "clip_norm": 0.5, "micro_batch": 7},
        {"augment": "strong", "views": 2, "cache_precision": "float16"},
    ],
)
def test_every_option_resumes_exactly(train: Callable[..., Any], tmp_path: Path, options: dict[str, Any]) -> None:
    train("whole", **options)

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("broken", on_event=stop, **options)
    train("broken", resume=True, **options)
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_a_schedule_cannot_be_resumed_for_other_epochs(train: Callable[..., Any]) -> None:
    train(schedule="linear")
    with pytest.raises(RunError, match="follows a schedule of 4"):
        train(schedule="linear", epochs=6, resume=True)


def test_it_stops_when_nothing_gets_better(train: Callable[..., Any], tmp_path: Path) -> None:
    events: list[Event] = []
    result = train(epochs=30, lr=1e-9, patience=2, on_event=events.append)
    # nothing moves, so that only the loss's last digits can get better
    assert result.epochs < 30
    assert result.epochs == result.best_epoch + 2
    assert any(isinstance(event, Note) and "no better epoch in 2" in event.text for event in events)


def test_a_rate_is_found(train: Callable[..., Any], tmp_path: Path) -> None:
    train("found", lr="search", epochs=5)
    rate = Run(tmp_path / "found").read_args().lr
    train("low", lr=1e-5, epochs=5)
    assert 1e-3 <= rate <= 1e-1
    assert history(tmp_path / "found")[-1].train_loss < history(tmp_path / "low")[-1].train_loss


@pytest.mark.parametrize("init", ["zero", "ridge"])
@pytest.mark.parametrize("engine", engines())
def test_what_is_deployed_was_trained_on_all_samples_for_as_many_epochs_as_were_best(
    train: Callable[..., Any], tmp_path: Path, init: str, engine: str
) -> None:
    result = train("split", init=init, engine=engine, augment="light", views=1)
    assert result.refit
    assert (result.train_samples, result.val_samples) == (64, 16)
    train("all", init=init, engine=engine, augment="light", views=1, val_fraction=0, epochs=result.best_epoch)
    expected = last(tmp_path / "all").parameters
    found = Run(tmp_path / "split").deployed_parameters()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])
    # what was measured is of weights that the validation samples did not train
    kept = Run(tmp_path / "split").read_validation()
    assert kept.held_out is not None
    accuracy = float((kept.held_out.argmax(1) == kept.labels).mean())
    assert accuracy == result.val_accuracy == result.val_figures["accuracy"]
    deployed = deploy(tmp_path / "split", out=tmp_path / "m.onnx")
    assert not deployed.held_out
    assert deployed.largest_difference < 1e-4


def test_training_on_all_samples_goes_on_where_it_was_stopped(train: Callable[..., Any], tmp_path: Path) -> None:
    whole = train("whole", epochs=6, patience=None)
    assert whole.best_epoch > 1
    steps = -(-80 // Run(tmp_path / "whole").read_args().batch_size)

    def stop(event: Event) -> None:
        # the last step of an epoch before the last, when all samples train
        if isinstance(event, EpochProgress) and event.steps == steps and event.epoch == 2 and event.step == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("stopped", epochs=6, on_event=stop)
    final = Run(tmp_path / "stopped").read_checkpoint(FINAL)
    assert final is not None
    assert final.epoch == 1
    assert Run(tmp_path / "stopped").deployed_weights() == BEST
    train("stopped", epochs=6, resume=True)
    for name, value in Run(tmp_path / "whole").deployed_parameters().items():
        np.testing.assert_array_equal(value, Run(tmp_path / "stopped").deployed_parameters()[name])


def test_given_validation_data_never_train(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    given = finetune(digits_artifacts, digits / "train", out=tmp_path / "a", epochs=1, val=digits / "test")
    refused = finetune(digits_artifacts, digits / "train", out=tmp_path / "b", epochs=1, refit=False)
    asked = finetune(digits_artifacts, digits, out=tmp_path / "c", epochs=1, refit=True)
    none = finetune(digits_artifacts, digits / "train", out=tmp_path / "d", epochs=1, val_fraction=0, refit=True)
    assert (given.refit, refused.refit, asked.refit, none.refit) == (False, False, True, False)
    assert [(tmp_path / name / FINAL).is_file() for name in "abcd"] == [False, False, True, False]


@pytest.mark.parametrize("micro_batch", [1, 4, 7, 64])
def test_the_loss_under_class_weights_is_one_mean_over_all_samples(
    digits: Path, digits_artifacts: Path, tmp_path: Path, micro_batch: int
) -> None:
    """`Σ c[y]·ℓ / Σ c[y]`, whatever is computed at once."""
    data = Path(shutil.copytree(digits / "train", tmp_path / "data"))
    for label, kept in (("7", 5), ("9", 10)):
        for file in sorted((data / label).iterdir())[kept:]:
            file.unlink()
    result = finetune(
        digits_artifacts,
        data,
        out=tmp_path / "run",
        class_weights="balanced",
        val_fraction=0.4,
        epochs=2,
        micro_batch=micro_batch,
    )
    kept = Run(tmp_path / "run").read_validation()
    labels = [sample.label for sample in Run(tmp_path / "run").read_samples() if sample.part == "train"]
    counts = np.array([labels.count(name) for name in Run(tmp_path / "run").read_args().labels])
    weights = (len(labels) / len(counts) / counts)[kept.labels]
    logits = kept.unseen.astype(np.float64)
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(logits)), kept.labels]
    assert result.val_loss == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-5)


def test_balanced_weights_help_the_rare(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(digits / "train", tmp_path / "data")
    for folder in sorted((tmp_path / "data").iterdir())[1:]:
        for file in sorted(folder.iterdir())[3:]:
            file.unlink()
    recalls = []
    for weights in (None, "balanced"):
        out = tmp_path / str(weights)
        finetune(
            digits_artifacts,
            tmp_path / "data",
            val=digits / "test",
            out=out,
            init="zero",
            lr=1e-2,
            epochs=20,
            class_weights=weights,
        )
        found = Run(out).read_validation()
        rare = found.labels > 0
        recalls.append((found.logits.argmax(1) == found.labels)[rare].mean())
    assert recalls[1] > recalls[0]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"optimizer": "adam"}, "no optimizer 'adam'; did you mean 'adamw'?"),
        ({"optimizer": None}, "no optimizer None"),
        ({"schedule": "step"}, "no schedule 'step'"),
        ({"init": "random"}, "no init 'random'"),
        ({"augment": "mild"}, "no augment 'mild': choose one of light, strong"),
        ({"class_weights": "equal"}, "no class_weights 'equal'"),
        ({"cache_precision": "int8"}, "no cache_precision 'int8'"),
        ({"lr": 0.0}, "lr must lie between"),
        ({"lr": float("nan")}, "lr must lie between"),
        ({"momentum": 1.0}, "momentum must lie between"),
        ({"warmup": 1.5}, "warmup must lie between 0 and 1, not be 1.5"),
        ({"label_smoothing": -0.1}, "label_smoothing must"),
        ({"clip_norm": 0.0}, "clip_norm must"),
        ({"micro_batch": 0}, "micro_batch must"),
        ({"batch_size": 0}, "batch_size must"),
    ],
)
def test_what_the_command_line_refuses_the_function_refuses_too(
    train: Callable[..., Any], tmp_path: Path, option: dict[str, Any], said: str
) -> None:
    with pytest.raises(EdgetlError) as caught:
        train(**option)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [{"optimizer": "sgd"}, {"init": "ridge"}, {"micro_batch": 4}, {"weight_decay": 0.5}])
def test_a_run_is_not_continued_with_other_settings(train: Callable[..., Any], change: dict[str, Any]) -> None:
    train()
    with pytest.raises(RunError, match="cannot be resumed"):
        train(resume=True, epochs=6, **change)


def test_nothing_is_computed_in_larger_parts_than_were_asked_for(
    digits: Path, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgetl.training import loop

    sizes: dict[str, set[int]] = {"head": set(), "evaluate": set()}
    real_inputs, real_open = loop.head_inputs, loop.open_engine

    def head_inputs(*arguments: Any) -> Any:
        enter = real_inputs(*arguments)

        def noted(features: Any) -> Any:
            sizes["head"].add(len(features[0]))
            return enter(features)

        return noted

    def open_engine(*arguments: Any, **options: Any) -> Any:
        engine = real_open(*arguments, **options)
        real = engine.evaluate

        def evaluate(features: Any, *others: Any) -> Any:
            sizes["evaluate"].add(len(features[0]))
            return real(features, *others)

        engine.evaluate = evaluate
        return engine

    monkeypatch.setattr(loop, "head_inputs", head_inputs)
    monkeypatch.setattr(loop, "open_engine", open_engine)
    finetune(digits_artifacts, digits / "train", out=tmp_path / "run", epochs=1, batch_size=16, micro_batch=3)
    assert {name: max(found) for name, found in sizes.items()} == {"head": 3, "evaluate": 3}
