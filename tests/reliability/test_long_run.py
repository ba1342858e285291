"""A run of many steps and epochs takes no more memory and no more open files at its end than near its beginning."""

import json
import os
import signal
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import engines
from processes import PATIENCE, python

from edgetl.runs.run import Run

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")

# prints [epoch, resident bytes, open files] at the end of each epoch
_MEASURED = """
import contextlib, json, os, sys
import edgetl

def open_files():
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the directory itself
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    # newer versions of onnxruntime have a database and sockets of their own, which come and go
    return sum(link.startswith("/") and ".onnxruntime" not in link for link in links)

def measure(event):
    if isinstance(event, edgetl.events.EpochEnd):
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        print(json.dumps([event.epoch, pages * os.sysconf("SC_PAGE_SIZE"), open_files()]), flush=True)

edgetl.finetune(**json.loads(sys.argv[1]), on_event=measure)
"""

FIGURES = ("epoch", "train_loss", "val_loss", "val_accuracy", "val_macro_f1", "seconds")

MOST_GROWTH = 3e6
"""Bytes of resident memory from the early epochs to the last ones.

Measured several times each: 0.2 to 0.8 MB with onnxruntime-training 1.19, 1.1 to 1.4 MB with onnxruntime 1.32 (the
history's records, which are kept and written, and what threads of the runtime's own come to hold). A leak of 300 bytes
in each of 10,000 steps, or of 15 kB in each of 200 epochs, goes beyond the bound.
"""


@dataclass(frozen=True)
class Measured:
    epoch: int
    resident: int
    open_files: int


@contextmanager
def measured_run(artifacts: Path, data: Path, run: Path, **options: object) -> Iterator[subprocess.Popen[str]]:
    given = {"artifacts": str(artifacts), "data": str(data), "out": str(run), "cache": str(run.parent / "cache")}
    command = [*python(_MEASURED), json.dumps({**given, "threads": 1, **options})]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(process: "subprocess.Popen[str]") -> Iterator[Measured]:
    assert process.stdout is not None
    for line in process.stdout:
        yield Measured(*json.loads(line))


def check_results(run: Path, epochs: int) -> None:
    """A line for each epoch, in order, each with all figures."""
    results = Run(run).read_results()
    assert [result.epoch for result in results] == list(range(epochs + 1))
    header, *_ = (run / "results.csv").read_text(encoding="utf-8").splitlines()
    assert tuple(header.split(",")) == FIGURES
    for result in results:
        assert (result.train_loss is None) == (result.epoch == 0)
        assert None not in (result.val_loss, result.seconds, *result.val_figures.values())


@pytest.mark.parametrize("engine", engines())
def test_open_files_do_not_grow_and_every_epoch_has_its_line(
    digits: Path, digits_artifacts: Path, tmp_path: Path, engine: str
) -> None:
    run = tmp_path / "run"
    with measured_run(digits_artifacts, digits / "train", run, engine=engine, epochs=20) as process:
        found = list(lines(process))
        assert process.wait(PATIENCE) == 0
    assert [each.epoch for each in found] == list(range(21))
    assert found[-1].open_files == found[1].open_files
    check_results(run, 20)


@pytest.mark.parametrize("engine", engines())
def test_a_killed_run_keeps_the_lines_of_its_finished_epochs(
    digits: Path, digits_artifacts: Path, tmp_path: Path, engine: str
) -> None:
    run = tmp_path / "run"
    with measured_run(digits_artifacts, digits / "train", run, engine=engine, epochs=1000) as process:
        finished = next(each.epoch for each in lines(process) if each.epoch == 5)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = Run(run).read_results()[-1].epoch
    assert finished <= kept < 1000
    check_results(run, kept)


@pytest.mark.long
@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize(
    ("epochs", "batch_size"),
    [
        pytest.param(157, 1, id="10,000 steps"),  # of 64 pictures
        pytest.param(200, 16, id="200 epochs"),
    ],
)
def test_memory_does_not_grow(
    digits: Path, digits_artifacts: Path, tmp_path: Path, engine: str, epochs: int, batch_size: int
) -> None:
    run = tmp_path / "run"
    options = {"engine": engine, "epochs": epochs, "batch_size": batch_size}
    with measured_run(digits_artifacts, digits / "train", run, **options) as process:
        found = list(lines(process))
        assert process.wait(PATIENCE) == 0
    assert found[-1].epoch == epochs
    # the first epochs fill the engine's own buffers
    early = statistics.median(each.resident for each in found[10:20])
    late = statistics.median(each.resident for each in found[-10:])
    print(f"{engine}, {epochs} epochs: {early / 1e6:.2f} MB, then {late / 1e6:.2f} MB")
    assert late - early <= MOST_GROWTH
    assert {each.open_files for each in found[1:]} == {found[1].open_files}
    check_results(run, epochs)
