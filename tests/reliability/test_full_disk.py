"""A disk that fills at any stage: one sentence, nothing corrupt, and with space made the same command finishes.

The disk is a file system in memory of a given size. `pytest tests/reliability` fills it at some sizes; `-m ""` at
every size in steps of a page, so that each file of a run is the one that does not fit, or only in part.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import engines

from edgetl import finetune, verify
from edgetl.cli.main import main
from edgetl.events import EpochEnd, Event, FeatureProgress, Stage
from edgetl.runs.run import BEST, LAST, Run

PAGE = 4096
PLENTY = 64 << 20

pytestmark = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root mounts a file system")


class Disk:
    """A file system of its own, whose size can be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "none", path], capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting is not allowed here")

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)

    @property
    def used(self) -> int:
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def clear(self) -> None:
        self.unmount()
        subprocess.run(["mount", "-t", "tmpfs", "none", self.path], check=True)

    def unmount(self) -> None:
        # lazily, because this process may still have mapped a cache
        subprocess.run(["umount", "-l", self.path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path / "disk")
    try:
        yield found
    finally:
        found.unmount()


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def full(result: Result) -> str:
    """Check that a command ended in one sentence about the full disk; return the file that it names."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "full" in line or "make space" in line, line
    assert "Traceback" not in result.stderr
    named = re.search(r"\((/[^)]*)\)", line)
    assert named, line
    return named[1].rpartition("/")[2]


def parameters(run: Path) -> dict[str, bytes]:
    found = {}
    for name in (LAST, BEST):
        checkpoint = Run(run).read_checkpoint(name)
        assert checkpoint is not None
        found |= {f"{name} {key}": value.tobytes() for key, value in checkpoint.parameters.items()}
    return found


def occupied(file: Path) -> int:
    """Bytes on the disk; of pictures of the curves none, because a report that cannot be written fails no run."""
    return 0 if file.suffix == ".png" else -(-file.stat().st_size // PAGE) * PAGE


def sizes(whole: int, count: int | None) -> list[int]:
    """Sizes in pages at which a job that needs `whole` bytes does not fit."""
    pages = range(1, whole // PAGE + 1)
    return [*pages] if count is None else sorted({int(page) for page in np.linspace(1, len(pages), count)})


@pytest.mark.parametrize("count", [5, pytest.param(None, marks=pytest.mark.long)])
@pytest.mark.parametrize("engine", engines())
def test_finetune_on_a_disk_that_fills(
    disk: Disk, digits: Path, digits_artifacts: Path, engine: str, count: int | None
) -> None:
    run, cache = disk.path / "run", disk.path / "cache"
    command = ["finetune", digits_artifacts, digits / "train", "--out", run, "--cache", cache, "--epochs", 2]
    command += ["--engine", engine, "--lr", 0.01]
    assert invoke(*command).exit_code == 0
    expected, most = parameters(run), sum(map(occupied, (path for path in disk.path.rglob("*") if path.is_file())))
    named = []
    for pages in sizes(most, count):
        disk.clear()
        disk.resize(pages * PAGE)
        result = invoke(*command)
        if result.exit_code == 0:
            continue
        named.append(full(result))
        assert not list(disk.path.rglob("*.partial")), "what could not be finished is gone"
        disk.resize(PLENTY)
        resumed = invoke(*command, "--resume")
        assert resumed.exit_code == 0, resumed.output
        assert parameters(run) == expected, f"at {pages} pages"
        verify(run)
    print(engine, len(named), "sizes; full at:", ", ".join(sorted(set(named))))
    assert len(named) >= min(4, len(sizes(most, count)) - 1)
    if count is None:
        assert {"samples.csv", "args.yaml", "results.csv", "best.npz", "last.npz"} < set(named)


def fill(disk: Disk) -> None:
    with open(disk.path / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(PAGE))


@pytest.mark.parametrize(
    ("moment", "named", "refit"),
    [
        (lambda event: isinstance(event, FeatureProgress) and event.done == 40, "features.bin", True),
        (lambda event: isinstance(event, Stage) and event.text == "training", "samples.csv", True),
        # best.npz, if the epoch is the best so far, or else last.npz
        (lambda event: isinstance(event, EpochEnd) and event.epoch == 1, "/weights/", True),
        (lambda event: isinstance(event, EpochEnd) and event.epoch == 2, "final.npz", True),
        (lambda event: isinstance(event, EpochEnd) and event.epoch == 2, "validation.npz", False),
    ],
    ids=["features", "beginning", "epochs", "all samples", "proof"],
)
def test_a_disk_that_others_fill(
    disk: Disk,
    digits: Path,
    digits_artifacts: Path,
    tmp_path: Path,
    moment: Callable[[Event], bool],
    named: str,
    refit: bool,
) -> None:
    def train(place: Path, **options: Any) -> None:
        settings = {"epochs": 2, "lr": 0.01, "val_fraction": 0.2, "refit": refit, **options}
        finetune(digits_artifacts, digits / "train", out=place / "run", cache=place / "cache", **settings)

    def watch(event: Event) -> None:
        if moment(event):
            fill(disk)

    train(tmp_path)
    disk.resize(512 * 1024)
    with pytest.raises(OSError, match="No space left") as caught:
        train(disk.path, on_event=watch)
    assert caught.value.errno == errno.ENOSPC
    assert named in str(caught.value.filename) or Path(caught.value.filename).parent.name == "cache"
    (disk.path / "filler").unlink()
    train(disk.path, resume=True)
    assert parameters(disk.path / "run") == parameters(tmp_path / "run")
    verify(disk.path / "run")


@pytest.mark.parametrize("count", [4, pytest.param(None, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["model.onnx", "model.ort"])
def test_deploy_on_a_disk_that_fills(disk: Disk, digits_run: Path, name: str, count: int | None) -> None:
    model = disk.path / name
    assert invoke("deploy", digits_run, "--out", model).exit_code == 0
    most = disk.used
    for pages in sizes(most - PAGE, count):
        disk.clear()
        model.write_bytes(b"old")
        disk.resize(pages * PAGE)
        assert full(invoke("deploy", digits_run, "--out", model)) == name
        assert model.read_bytes() == b"old"
        assert [file.name for file in disk.path.iterdir()] == [name]
        disk.resize(PLENTY)
        assert invoke("deploy", digits_run, "--out", model).exit_code == 0
        verify(model, run=digits_run)


@pytest.mark.parametrize("count", [1, pytest.param(8, marks=pytest.mark.long)])
def test_prepare_on_a_disk_that_fills(disk: Disk, count: int) -> None:
    pytest.importorskip("torch")
    command = ["prepare", "edgetl.demo.network:build", "--size", 24, "--labels", "6,7,8,9", "--out", disk.path / "out"]
    for size in np.linspace(40, 200, count + 2)[1:-1].astype(int):
        disk.resize(int(size) * 1024)
        assert full(invoke(*command)) == "out"
        assert list(disk.path.iterdir()) == []
    disk.resize(PLENTY)
    assert invoke(*command).exit_code == 0
    verify(disk.path / "out")
