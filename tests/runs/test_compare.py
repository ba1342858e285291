import math
from dataclasses import replace
from pathlib import Path

import pytest

from edgetl import compare_runs
from edgetl.cli.console import table
from edgetl.cli.outline import runs_table
from edgetl.errors import RunError
from edgetl.events import Event, Note
from edgetl.runs.compare import SORTS, best_result
from edgetl.runs.run import ARGS, METRICS, RESULTS, EpochResult, Run, RunArgs

ARGUMENTS = RunArgs(
    edgetl_version="0.1.0",
    artifacts="/gone/artifacts",
    artifacts_sha256="0" * 64,
    data="/data",
    val=None,
    val_fraction=0.2,
    labels=("a", "b"),
    epochs=3,
    batch_size=32,
    lr=1e-3,
    seed=0,
    engine="portable",
)


def make_run(
    path: Path, *accuracies: float | None, planned: int = 3, seconds: float | None = 1.0, lr: float = 1e-3
) -> Run:
    """Write a run of as many epochs as accuracies; without `seconds` it has not ended."""
    run = Run(path)
    run.write_args(replace(ARGUMENTS, epochs=planned, lr=lr))
    lines = ["epoch,train_loss,val_loss,val_accuracy,seconds"]
    for epoch, accuracy in enumerate(accuracies, start=1):
        lines.append(f"{epoch},1,{'' if accuracy is None else 1 - accuracy},{'' if accuracy is None else accuracy},2")
    (path / RESULTS).write_text("\n".join(lines) + "\n")
    if seconds is not None:
        run.write_metrics({"epochs": len(accuracies), "seconds": seconds})
    return run


def test_a_real_run(digits_run: Path, digits_artifacts: Path) -> None:
    (found,) = compare_runs(digits_run.parent)
    assert found.name == "run"
    assert found.finished
    assert (found.epochs, found.planned_epochs, found.train_samples, found.val_samples) == (5, 5, 64, 16)
    assert found.model == "edgetl.demo.network:build"
    assert found.policy == ("head",)
    assert found.lr == 1e-2
    metrics = Run(digits_run).read_metrics()
    assert metrics is not None
    assert found.best_epoch == metrics["best_epoch"]
    assert found.val_figures == {name: pytest.approx(value) for name, value in metrics["val_figures"].items()}
    assert found.seconds == metrics["seconds"]
    assert compare_runs(digits_run)[0].name == digits_run.name


def test_the_best_comes_first_and_what_lacks_the_figure_last(tmp_path: Path) -> None:
    make_run(tmp_path / "middle", 0.5, 0.7, 0.6, seconds=9)
    make_run(tmp_path / "group" / "best", 0.9, seconds=5)
    make_run(tmp_path / "unvalidated", None, None, seconds=1)
    make_run(tmp_path / "broken off", 0.8, seconds=None)
    found = {sort: [run.name for run in compare_runs(tmp_path, sort=sort)] for sort in SORTS}
    assert found["metric"] == ["group/best", "broken off", "middle", "unvalidated"]
    assert found["loss"] == ["group/best", "broken off", "middle", "unvalidated"]
    assert found["seconds"] == ["unvalidated", "broken off", "group/best", "middle"]
    assert found["epochs"][0] == "middle"
    assert found["name"] == sorted(found["name"])
    by_name = {run.name: run for run in compare_runs(tmp_path)}
    assert (by_name["middle"].best_epoch, by_name["middle"].val_figures) == (2, {"accuracy": 0.7})
    assert not by_name["broken off"].finished
    assert (by_name["broken off"].epochs, by_name["broken off"].seconds) == (1, 2)
    assert by_name["middle"].model == "/gone/artifacts"
    assert by_name["middle"].train_samples is None


def test_a_run_that_goes_on_is_not_finished(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 0.5)
    run.write_metrics({"epochs": 1, "seconds": 1})
    assert compare_runs(tmp_path)[0].finished
    with open(run.path / RESULTS, "a") as file:
        file.write("2,1,1,0.6,2\n")
    assert not compare_runs(tmp_path)[0].finished


def test_what_is_no_run_of_ours_is_left_out_and_told(tmp_path: Path) -> None:
    make_run(tmp_path / "ours", 0.5)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / ARGS).write_text("task: detect\nmode: train\n")
    damaged = make_run(tmp_path / "damaged", 0.5)
    (damaged.path / METRICS).write_text("{")
    (tmp_path / ".hidden").mkdir()
    make_run(tmp_path / ".hidden" / "run", 0.5)
    events: list[Event] = []
    found = compare_runs(tmp_path, on_event=events.append)
    assert [run.name for run in found] == ["ours"]
    assert [Path(event.text.split(":")[0]).name for event in events if isinstance(event, Note)] == ["damaged", "theirs"]


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run lies in"):
        compare_runs(tmp_path)
    with pytest.raises(RunError, match="does not exist: give a folder"):
        compare_runs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="choose one of metric"):
        compare_runs(tmp_path, sort="beauty")


def test_other_artifacts_at_the_same_place_are_not_its_origin(digits_run: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.write_args(replace(Run(digits_run).read_args(), artifacts_sha256="0" * 64))
    (found,) = compare_runs(tmp_path)
    assert found.model == Run(digits_run).read_args().artifacts
    assert found.policy == ()
    assert (found.epochs, found.best_epoch, found.finished) == (0, None, False)


def test_the_best_epoch() -> None:
    def end(epoch: int, loss: float | None, accuracy: float | None) -> EpochResult:
        return EpochResult(epoch, 1.0, loss, {"accuracy": accuracy}, 1.0)

    assert best_result((), "accuracy") is None
    assert best_result((end(0, 0.1, 0.9), end(1, 0.1, 0.8)), "accuracy") == end(0, 0.1, 0.9)
    results = (end(0, 0.1, 0.1), end(1, 0.5, 0.7), end(2, 0.4, 0.7), end(3, 0.4, 0.7), end(4, 0.1, 0.6))
    assert best_result(results, "accuracy") == results[2]
    assert best_result(results, "accuracy", {"best_epoch": 3}) == results[3]  # as close as to be equal in six digits
    assert best_result(results, "accuracy", {"best_epoch": 99}) == results[2]
    assert best_result((end(1, None, None), end(2, None, None)), "accuracy") == end(2, None, None)
    assert best_result((end(1, math.nan, 0.5), end(2, 9.0, 0.5)), "accuracy") == end(2, 9.0, 0.5)
    assert best_result(results, "loss") == results[0]


def test_runs_of_several_tasks_are_compared_by_their_own_metrics(tmp_path: Path) -> None:
    for name, task, metric, column, values in (
        ("near", "regression", "mae", "val_mae", (0.5, 0.25)),
        ("far", "regression", "mae", "val_mae", (0.5, 0.75)),
        ("by loss", "classification", "loss", "val_accuracy", (0.8, 0.9)),
    ):
        run = make_run(tmp_path / name)
        run.write_args(replace(ARGUMENTS, task=task, metric=metric))
        rows = "".join(f"{epoch},1,{epoch},{value},2\n" for epoch, value in enumerate(values))
        (run.path / RESULTS).write_text(f"epoch,train_loss,val_loss,{column},seconds\n{rows}")
    found = compare_runs(tmp_path)
    assert [(run.name, run.best_epoch) for run in found] == [("by loss", 0), ("near", 1), ("far", 0)]
    lines = "\n".join(table(*runs_table(found)))
    assert "accuracy 80.0%" in lines
    assert "mean absolute error 0.25" in lines
