"""Commands that are stopped: SIGTERM and SIGHUP clean up as Ctrl-C does; what SIGKILL leaves the next one removes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import EDGETL, PATIENCE, command, wait_for

from edgetl import finetune, verify
from edgetl.files import storage
from edgetl.runs.run import LAST, Run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends signals")


def left(*directories: Path) -> list[str]:
    return sorted(path.name for directory in directories for path in directory.iterdir())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def stopped(number: int, after: float, *arguments: object) -> tuple[int, str]:
    """Run the command line, send it a signal after so many seconds, and return its status and what it said."""
    process = subprocess.Popen(
        [*EDGETL, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    return process.returncode if process.poll() is not None else process.wait(PATIENCE), process.communicate()[1]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 1)])
def test_training_is_stopped_with_a_good_checkpoint(
    digits: Path, digits_artifacts: Path, tmp_path: Path, temporary: Path, number: int, status: int
) -> None:
    run = tmp_path / "run"
    # where the tests run under nohup, children are born with SIGHUP ignored
    handler = "default_int_handler" if number == signal.SIGINT else "SIG_DFL"
    born = f"import signal; signal.signal({int(number)}, signal.{handler})"
    start = [*EDGETL[:-1], f"{born}\n{EDGETL[-1]}"]
    arguments = [*start, "finetune", digits_artifacts, digits / "train", "--out", run, "--epochs", "100000"]
    process = subprocess.Popen(
        [str(word) for word in arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    wait_for((run / LAST).is_file, process)
    time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert "nothing finished is lost. Continue with: edgetl finetune" in errors
    assert left(temporary) == []
    assert not list(run.rglob("*.partial"))
    last = Run(run).read_checkpoint(LAST)
    assert last is not None
    done = finetune(digits_artifacts, digits / "train", out=run, epochs=last.epoch + 1, resume=True)
    assert done.epochs == last.epoch + 1
    assert verify(run).unchecked == ()


LOST = """
class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # here Python calls the handler, whose exception a destructor cannot pass on

with reporting(False):
    one = Lost()
    del one
    time.sleep(60)
"""

IMPORTED = """
with reporting(False):
    import interrupted_module
    time.sleep(60)
"""


def test_a_signal_at_a_bad_time_is_not_lost(tmp_path: Path) -> None:
    module = (
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.2)\nopen('whole', 'w').close()\n"
    )
    (tmp_path / "interrupted_module.py").write_text(module, encoding="utf-8")
    start = (
        "import os, signal, sys, time\nsys.path.insert(0, os.getcwd())\nfrom edgetl.cli.reporting import reporting\n"
    )
    for code in (LOST, IMPORTED):
        ended = subprocess.run(
            [sys.executable, "-c", start + code], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (ended.returncode, ended.stderr) == (143, "Error: interrupted\n")
    assert (tmp_path / "whole").exists(), "a compiled module would have ended the process"


def test_a_signal_that_the_caller_has_ignored_stays_ignored(
    digits: Path, digits_artifacts: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["finetune", digits_artifacts, digits / "train", "--out", run, "--epochs", "30"]
    process = subprocess.Popen(
        ["nohup", *EDGETL, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for((run / LAST).is_file, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("times", [4, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_deploy_that_is_terminated_leaves_nothing(
    digits_run: Path, tmp_path: Path, temporary: Path, precision: str, times: int
) -> None:
    (tmp_path / "models").mkdir()
    model, rng = tmp_path / "models" / "m.onnx", random.Random(0)
    arguments = ("deploy", digits_run, "--out", model, "--precision", precision, "--max-drop", "100")
    started = time.monotonic()
    assert command(*arguments).returncode == 0
    seconds = time.monotonic() - started
    seen = set()
    for _ in range(times):
        model.unlink(missing_ok=True)
        # before that nothing of ours runs
        status, errors = stopped(signal.SIGTERM, rng.uniform(0.5, 0.95) * seconds, *arguments)
        seen.add(status)
        assert status in (0, 143, -signal.SIGTERM), errors
        assert "Traceback" not in errors
        assert left(model.parent) in ([], ["m.onnx"])
        assert model.exists() or status != 0
        assert left(temporary) == []
    assert 143 in seen


@pytest.mark.parametrize("times", [3, pytest.param(40, marks=pytest.mark.long)])
def test_what_a_killed_deploy_leaves_is_removed_by_the_next(
    digits_run: Path, tmp_path: Path, temporary: Path, times: int
) -> None:
    (tmp_path / "models").mkdir()
    model, rng = tmp_path / "models" / "m.onnx", random.Random(0)
    arguments = ("deploy", digits_run, "--out", model, "--precision", "int8", "--max-drop", "100")
    others = [tmp_path / "models" / ".abcdefgh.partial", temporary / "edgetl-mine", temporary / ".edgetl-x.partial"]
    for other in others:
        other.write_text("somebody else's")
    started = time.monotonic()
    assert command(*arguments).returncode == 0
    seconds = time.monotonic() - started
    for _ in range(times):
        stopped(signal.SIGKILL, rng.uniform(0.6, 0.95) * seconds, *arguments)
    assert command(*arguments).returncode == 0
    assert left(model.parent) == [".abcdefgh.partial", "m.onnx"]
    assert left(temporary) == [".edgetl-x.partial", "edgetl-mine"]


_WRITER = """
import sys, time
from pathlib import Path
from edgetl.files import storage
path = Path(sys.argv[1])
with storage.written_aside(path / "file") as file, storage.temporary_directory() as temporary:
    with storage.directory_built_aside(path / "directory", force=True, marker="m") as directory:
        for place in (file, directory / "m", temporary / "x"):
            place.write_text("new")
        (path / "ready").touch()
        if sys.argv[2] == "wait":
            time.sleep(600)
"""


def test_what_the_living_write_is_left_alone_and_what_the_dead_left_is_not(tmp_path: Path, temporary: Path) -> None:
    from processes import python

    place = tmp_path / "place"
    place.mkdir()
    process = subprocess.Popen([*python(_WRITER), str(place), "wait"])
    wait_for((place / "ready").exists, process)
    storage.write_text(place / "other", "x")
    subprocess.run([*python("from edgetl.files.storage import *\nwith temporary_directory(): pass")], check=True)
    assert [len(list(each.glob(".edgetl-????????.partial"))) for each in (place, temporary)] == [2, 1]
    process.kill()
    process.wait()
    subprocess.run([*python(_WRITER), str(place), "go"], check=True)
    assert left(place) == ["directory", "file", "other", "ready"]
    assert left(temporary) == []


def test_a_directory_that_was_being_replaced_when_the_power_went_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "art"
    target.mkdir()
    (target / "m").write_text("old")
    hidden = tmp_path / ".edgetl-old-abcdefgh.partial"
    hidden.mkdir()
    target.rename(hidden / "art")  # the first of the two renames
    storage.write_text(tmp_path / "anything", "x")
    assert (target / "m").read_text() == "old"
    assert left(tmp_path) == ["anything", "art"]


def test_many_writers_and_sweepers_at_once_lose_nothing(tmp_path: Path, temporary: Path) -> None:
    from processes import python

    code = """
import sys
from pathlib import Path
from edgetl.files import storage
for number in range(300):
    storage.write_text(Path(sys.argv[1]) / sys.argv[2], str(number))
    with storage.temporary_directory() as directory:
        (directory / "x").write_text("x")
"""
    (tmp_path / "place").mkdir()
    writers = [subprocess.Popen([*python(code), str(tmp_path / "place"), name]) for name in "abcd"]
    assert [writer.wait(PATIENCE) for writer in writers] == [0, 0, 0, 0]
    assert left(tmp_path / "place", temporary) == ["a", "b", "c", "d"]
