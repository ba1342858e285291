"""pull: what comes, what stays when it does not come whole, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl.artifacts import load_artifacts
from edgetl.errors import EdgetlError, RemoteError
from edgetl.remote import pull, push

pytest_plugins = ["loopback_fixtures"]

StandIn = Callable[[str, str], Path]


def test_a_prepared_directory_comes_and_then_only_changes(
    here: str, variant: Callable[..., Path], tmp_path: Path
) -> None:
    there, out = tmp_path / "device" / "digits", tmp_path / "out"
    first, second = variant("a"), variant("b", "trainable.onnx")
    push(first, f"{here}:{there}")
    came = pull(f"{here}:{there}", out)
    assert (came.kind, came.changed, came.received_files, came.received_bytes) == ("artifacts", True, 11, came.bytes)
    assert load_artifacts(out).sha256 == load_artifacts(first).sha256
    assert not pull(f"{here}:{there}", out).changed

    push(second, f"{here}:{there}")
    came = pull(f"{here}:{there}", out)
    assert (came.changed, came.received_files) == (True, 2)
    assert load_artifacts(out).sha256 == load_artifacts(second).sha256


def test_a_run_without_its_lock(here: str, digits_run: Path, tmp_path: Path) -> None:
    came = pull(f"{here}:{digits_run}", f"{tmp_path}/runs/")
    out = tmp_path / "runs" / digits_run.name
    assert (came.kind, came.out) == ("run", str(out))
    names = {path.relative_to(digits_run) for path in digits_run.rglob("*") if path.is_file()} - {Path(".lock")}
    assert {path.relative_to(out) for path in out.rglob("*") if path.is_file()} == names
    assert all((out / name).read_bytes() == (digits_run / name).read_bytes() for name in names)


def test_a_file(here: str, tmp_path: Path) -> None:
    there = tmp_path / "model.bin"
    there.write_bytes(b"\0edgetl: fail\n" * 50_000)
    came = pull(f"{here}:{there}", tmp_path / "out.bin")
    assert (came.kind, came.files, came.received_bytes) == ("file", 1, there.stat().st_size)
    assert (tmp_path / "out.bin").read_bytes() == there.read_bytes()
    assert not pull(f"{here}:{there}", tmp_path / "out.bin").changed
    (tmp_path / "folder").mkdir()
    assert pull(f"{here}:{there}", tmp_path / "folder").out == str(tmp_path / "folder" / "model.bin")


@pytest.mark.parametrize("keep", [0, 500, 60_000, 200_000])
def test_what_is_cut_changes_nothing(
    keep: int, stand_in: StandIn, variant: Callable[..., Path], digits_artifacts: Path, tmp_path: Path
) -> None:
    out, source = tmp_path / "out", variant("b", "backbone.onnx", "trainable.onnx", size=120_000)
    shutil.copytree(digits_artifacts, out)
    cut = stand_in("ssh", f'for last; do :; done\nsh -c "$last" | dd bs=1 count={keep} 2>/dev/null')
    with pytest.raises(RemoteError):
        pull(f"far:{source}", out)
    assert load_artifacts(out).sha256 == load_artifacts(digits_artifacts).sha256
    assert {entry.name for entry in tmp_path.iterdir()} == {"out", source.name, "stand-ins"}
    cut.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    assert pull(f"far:{source}", out).received_files == 3


def test_what_is_altered_on_the_way_is_refused(here: str, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in("cat", 'exec tr "\\000" "\\001" <"$1"')
    (tmp_path / "there").write_bytes(bytes(1000))
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(RemoteError, match="SHA-256 differs"):
        pull(f"{here}:{tmp_path}/there", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"old"


def test_a_directory_that_is_damaged_there_is_refused(here: str, variant: Callable[..., Path], tmp_path: Path) -> None:
    source = variant("a")
    (source / "backbone.onnx").write_bytes(b"damaged")
    with pytest.raises(RemoteError, match=r"is damaged there: .*backbone\.onnx"):
        pull(f"{here}:{source}", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..", "."])
def test_names_that_lead_out_of_the_directory_are_refused(name: str, stand_in: StandIn, tmp_path: Path) -> None:
    digest = "0" * 64
    lines = ["directory", f"file {digest} 0 args.yaml", f"file {digest} 4 {name}", "ready"]
    stand_in("ssh", "\n".join(f"echo 'edgetl: {line}'" for line in lines) + "\nprintf evil; cat >/dev/null")
    with pytest.raises(RemoteError, match="outside of the directory"):
        pull("far:x", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_listing_that_makes_no_sense(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in("ssh", "echo 'edgetl: file 12'; echo 'edgetl: ready'; cat >/dev/null")
    with pytest.raises(RemoteError, match="makes no sense"):
        pull("far:x", tmp_path / "out")


def test_what_is_in_the_way_stays(here: str, digits_artifacts: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(EdgetlError, match="not written by edgetl"):
        pull(f"{here}:{digits_artifacts}", mine)
    assert [entry.name for entry in mine.iterdir()] == ["thesis.txt"]


def test_what_cannot_be_pulled(here: str, tmp_path: Path) -> None:
    for source, why in (
        (f"{here}:{tmp_path}/gone", "does not exist"),
        (f"{here}:{tmp_path}", "neither a prepared directory nor a run"),
        (f"{here}:{tmp_path}/", "ends in /"),
        (str(tmp_path), "names no machine"),
    ):
        with pytest.raises(RemoteError, match=why):
            pull(source, tmp_path / "out")
    run = tmp_path / "run"
    run.mkdir()
    (run / "args.yaml").write_text("")
    (run / "weights").symlink_to(tmp_path)
    with pytest.raises(RemoteError, match="symbolic link to a directory, 'weights'"):
        pull(f"{here}:{run}", tmp_path / "out")
