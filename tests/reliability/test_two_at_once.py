"""Two processes over one thing: one works and the other waits or says who does, and what is written is whole."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HAS_TORCH
from processes import EDGETL, PATIENCE, classifier, command, held, python, sentence

from edgetl import finetune, verify, write_report
from edgetl.artifacts import load_artifacts
from edgetl.errors import RunError
from edgetl.runs.run import BEST, LAST, Run

TRAINED = 64 + 16
"""Pictures of `digits/train`, of which a fifth validates."""


def parameters(run: Path) -> dict[str, bytes]:
    found = {}
    for name in (LAST, BEST):
        checkpoint = Run(run).read_checkpoint(name)
        assert checkpoint is not None
        found |= {f"{name} {key}": value.tobytes() for key, value in checkpoint.parameters.items()}
    return found


def leftovers(directory: Path) -> list[Path]:
    return list(directory.rglob("*.partial"))


def test_of_two_runs_over_one_cache_the_second_waits_and_reuses(
    digits: Path, digits_artifacts: Path, tmp_path: Path
) -> None:
    data, cache = digits / "train", tmp_path / "cache"
    options = ("--cache", str(cache), "--epochs", "1")
    with held(
        tmp_path / "first",
        "FeatureProgress",
        artifacts=digits_artifacts,
        data=data,
        out=tmp_path / "run-1",
        cache=cache,
        epochs=1,
    ) as first:
        second = subprocess.Popen(
            [*EDGETL, "finetune", str(digits_artifacts), str(data), "--out", str(tmp_path / "run-2"), *options],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        assert second.stderr is not None
        told = next((line for line in second.stderr if "waiting" in line), "it did not wait")
        assert f"in use by process {first.process.pid}; waiting for it" in told
        assert str(cache) in told
        first.finish()
        assert second.wait(PATIENCE) == 0
        second.stderr.close()
    counts = [Run(tmp_path / name).read_metrics() for name in ("run-1", "run-2")]
    assert [(m["features_computed"], m["features_reused"]) for m in counts if m] == [(TRAINED, 0), (0, TRAINED)]
    assert parameters(tmp_path / "run-1") == parameters(tmp_path / "run-2")


def test_a_second_run_into_the_same_directory_is_refused_by_name_and_disturbs_nothing(
    digits: Path, digits_artifacts: Path, tmp_path: Path
) -> None:
    run, data, cache = tmp_path / "run", digits / "train", tmp_path / "cache"
    whole = finetune(digits_artifacts, data, out=tmp_path / "whole", cache=cache, epochs=3)
    with held(
        tmp_path / "first", "EpochEnd", artifacts=digits_artifacts, data=data, out=run, cache=cache, epochs=3
    ) as first:
        holder = f"the run {run} is in use by process {first.process.pid}: wait"
        assert holder in sentence(
            command("finetune", digits_artifacts, data, "--out", run, "--cache", cache, "--resume")
        )
        with pytest.raises(RunError, match=re.escape(holder)):
            finetune(digits_artifacts, data, out=run, cache=cache, epochs=1, force=True)
        first.finish()
    assert parameters(run) == parameters(Path(whole.run))
    assert len(Run(run).read_results()) == 4
    assert verify(run).kind == "run"
    assert leftovers(run) == []


@pytest.mark.parametrize("event", [pytest.param("FeatureProgress", marks=pytest.mark.long), "EpochEnd"])
def test_the_locks_of_a_process_that_was_killed_block_nobody(
    digits: Path, digits_artifacts: Path, tmp_path: Path, event: str
) -> None:
    run, data, cache = tmp_path / "run", digits / "train", tmp_path / "cache"
    with held(
        tmp_path / "first", event, artifacts=digits_artifacts, data=data, out=run, cache=cache, epochs=2
    ) as first:
        locks = [path for path in (run / ".lock", *cache.glob("*/lock")) if path.exists()]
        assert str(first.process.pid) in "".join(lock.read_text() for lock in locks), "it holds one"
        first.process.kill()
        first.process.wait()
    told: list[object] = []
    result = finetune(digits_artifacts, data, out=run, cache=cache, epochs=2, resume=True, on_event=told.append)
    assert result.epochs == 2
    assert not re.search("in use|waiting", str(told))


def test_two_deploys_into_one_file_leave_one_whole_model(digits_run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    both = [
        subprocess.Popen(
            [*EDGETL, "deploy", str(digits_run), "--out", str(model)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert verify(model, run=digits_run).kind == "model"


# the end of `prepare`, where two get into each other's way
_BUILT = """
import sys
from pathlib import Path
from edgetl.errors import EdgetlError
from edgetl.files.storage import directory_built_aside

for number in range(50):
    try:
        with directory_built_aside(Path(sys.argv[1]), force=True, marker="manifest.json") as directory:
            for name in ("a", "b", "c", "manifest.json"):
                (directory / name).write_text(f"{sys.argv[2]} {number}")
    except (EdgetlError, OSError) as error:
        assert sys.argv[1] in str(error)
"""


def test_two_that_replace_one_directory_leave_one_whole(tmp_path: Path) -> None:
    out = tmp_path / "artifacts"
    both = [subprocess.Popen([*python(_BUILT), str(out), name]) for name in ("one", "other")]
    assert [process.wait(PATIENCE) for process in both] == [0, 0]
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c", "manifest.json"]
    assert len({path.read_text() for path in out.iterdir()}) == 1


@pytest.mark.long
@pytest.mark.skipif(not HAS_TORCH, reason="prepare needs torch")
@pytest.mark.parametrize("option", [(), ("--force",)], ids=["new", "replaced"])
def test_two_prepares_into_one_directory_leave_one_whole_result(tmp_path: Path, option: tuple[str, ...]) -> None:
    model, out = classifier(tmp_path / "model.onnx"), tmp_path / "artifacts"
    arguments = [sys.executable, "-m", "edgetl", "prepare", str(model), "--labels", "a,b", "--out", str(out), *option]
    if option:
        assert subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    both = [
        subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8")
        for _ in range(2)
    ]
    done = [subprocess.CompletedProcess([], p.wait(PATIENCE), "", p.communicate()[1]) for p in both]
    # one may find the other's result in its way
    assert 0 in [each.returncode for each in done], done
    for each in done:
        if each.returncode:
            assert str(out) in sentence(each)
    assert load_artifacts(out).manifest.labels == ("a", "b")


def test_reports_while_a_run_is_resumed_disturb_neither(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    run, data, cache = tmp_path / "run", digits / "train", tmp_path / "cache"
    finetune(digits_artifacts, data, out=tmp_path / "whole", cache=cache, epochs=6)
    finetune(digits_artifacts, data, out=run, cache=cache, epochs=2)
    with held(
        tmp_path / "first",
        "EpochEnd",
        artifacts=digits_artifacts,
        data=data,
        out=run,
        cache=cache,
        epochs=6,
        resume=True,
    ) as first:
        done = command("report", run)
        assert done.returncode == 0, done.stderr
        assert "so far" in done.stdout, "it is a run that is going on"
        first.go.touch()
        while first.process.poll() is None:
            write_report(run)
        assert first.process.returncode == 0
    assert write_report(run).finished
    assert parameters(run) == parameters(tmp_path / "whole")
    assert leftovers(run) == []
