import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from edgetl.errors import EdgetlError, RunError
from edgetl.files import storage


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    storage.write_text(file, "old")
    with pytest.raises(RuntimeError), storage.written_aside(file) as aside:
        aside.write_text("new")
        raise RuntimeError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "file", "text")
    (tmp_path / "plain").write_text("text")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), storage.directory_built_aside(target, force=False, marker="m") as directory:
        (directory / "m").write_text("1")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with storage.directory_built_aside(target, force=False, marker="m") as directory:
        (directory / "m").write_text("1")
    assert (target / "m").read_text() == "1"


def test_an_existing_directory_needs_force_and_the_marker(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis.txt").write_text("precious")
    with pytest.raises(EdgetlError, match="--force"), storage.directory_built_aside(target, force=False, marker="m"):
        pass
    with (
        pytest.raises(EdgetlError, match="not written by edgetl"),
        storage.directory_built_aside(target, force=True, marker="m"),
    ):
        pass
    assert (target / "thesis.txt").read_text() == "precious"
    (target / "m").write_text("0")
    with storage.directory_built_aside(target, force=True, marker="m") as directory:
        (directory / "m").write_text("1")
    assert [entry.name for entry in target.iterdir()] == ["m"]


def _hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with storage.locked(path, "it"):
        ready.set()
        time.sleep(60)


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "lock", ready))
    process.start()
    assert ready.wait(20)
    with (
        pytest.raises(RunError, match=f"it is in use by process {process.pid}"),
        storage.locked(tmp_path / "lock", "it"),
    ):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with storage.locked(tmp_path / "lock", "it"):
        pass


def test_what_dead_writers_left_is_swept_up_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / "a.partial", tmp_path / ".hidden", tmp_path / "weights" / "best.npz"]
    left = [tmp_path / ".args.yaml.x1.partial", tmp_path / "weights" / ".best.npz.x2.partial"]
    (tmp_path / "weights").mkdir()
    for file in (*kept, *left):
        file.write_text("x")
    storage.sweep(tmp_path)
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == sorted(kept)


def test_what_a_living_writer_writes_is_not_swept_up(tmp_path: Path) -> None:
    with storage.written_aside(tmp_path / "file") as aside:
        aside.write_text("whole")
        storage.sweep(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "whole"


def test_what_was_there_comes_back_if_the_new_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "m").write_text("old")
    rename, calls = Path.rename, []

    def refused(self: Path, to: Path) -> Path:
        calls.append(to)
        if len(calls) == 2:  # the first takes the old one away
            raise PermissionError(errno.EPERM, "not now")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PermissionError), storage.directory_built_aside(target, force=True, marker="m") as directory:
        (directory / "m").write_text("new")
    assert (target / "m").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_that_another_process_makes_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with (
        pytest.raises(EdgetlError, match="exists already"),
        storage.directory_built_aside(target, force=False, marker="m") as directory,
    ):
        (directory / "m").write_text("mine")
        target.mkdir()
        (target / "m").write_text("theirs")
    assert (target / "m").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_of_a_write_names_the_file_that_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as caught, storage.written_aside(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(tmp_path / "file")
    with pytest.raises(FileNotFoundError) as missing, storage.naming(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    assert missing.value.filename == str(tmp_path / "other")


def test_where_there_are_no_locks_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with (
        pytest.raises(RunError, match=r"it cannot be locked .*another file system"),
        storage.locked(tmp_path / "lock", "it"),
    ):
        pass
    storage.write_text(tmp_path / "file", "x")  # which needs none
