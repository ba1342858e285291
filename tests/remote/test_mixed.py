"""Places on the device that hold more than what was pushed: nothing that push has not brought is removed or hidden."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback import HOST, Server, hidden, version

from edgetl.errors import EdgetlError, RemoteError
from edgetl.remote import pull, push, rollback

pytest_plugins = ["loopback_fixtures"]

Variant = Callable[..., Path]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_pictures_that_were_copied_into_what_was_pushed_stay_in_sight(
    sshd: Server, options: tuple[str, ...], variant: Variant, tmp_path: Path
) -> None:
    del sshd
    device = tmp_path / "device"
    target = f"{HOST}:{device}/photos"
    first = push(variant("a"), target, ssh_options=options)
    pictures = device / "photos" / "photos" / "train" / "ripe"
    pictures.mkdir(parents=True)
    (pictures / "1.jpg").write_bytes(b"picture")
    for label in "bc":
        with pytest.raises(RemoteError, match=r"holds 'photos'.* 'edgetl push' did not bring.*move it") as caught:
            push(variant(label, "backbone.onnx"), target, ssh_options=options)
        assert "\n" not in str(caught.value)
        assert (pictures / "1.jpg").read_bytes() == b"picture"
        assert version(device / "photos") == first.version
    # as the message says
    (device / "photos" / "photos").rename(device / "pictures")
    second = push(variant("d", "backbone.onnx"), target, ssh_options=options)
    assert second.previous == first.version
    assert (device / "pictures" / "train" / "ripe" / "1.jpg").read_bytes() == b"picture"
    # what is the same already hides nothing
    (device / "photos" / "notes.txt").write_text("mine")
    assert not push(tmp_path / "source d", target, ssh_options=options).changed
    with pytest.raises(RemoteError, match=r"holds 'notes.txt'"):
        rollback(target, ssh_options=options)
    assert (device / "photos" / "notes.txt").read_text() == "mine"
    (device / "photos" / "notes.txt").unlink()
    rollback(target, ssh_options=options)
    assert version(device / "photos") == first.version


@pytest.mark.parametrize("stray", ["x", ".hidden", "..odd", "ort/more", "a b/'c'", "line\nbreak", "-rf", "*", "empty/"])
def test_whatever_its_name_is(stray: str, here: str, variant: Variant, tmp_path: Path) -> None:
    device = tmp_path / "device"
    first = push(variant("a"), f"{here}:{device}/art").version
    path = device / "art" / stray
    if stray.endswith("/"):
        path.mkdir()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    with pytest.raises(RemoteError, match="did not bring"):
        push(variant("b"), f"{here}:{device}/art")
    assert path.exists()
    assert version(device / "art") == first


def test_a_link_among_them_stays(here: str, variant: Variant, tmp_path: Path) -> None:
    device = tmp_path / "device"
    push(variant("a"), f"{here}:{device}/art")
    (tmp_path / "elsewhere").mkdir()
    for to in (tmp_path / "elsewhere", tmp_path / "gone"):
        (device / "art" / "link").symlink_to(to)
        with pytest.raises(RemoteError, match="holds 'link'"):
            push(variant(to.name), f"{here}:{device}/art")
        (device / "art" / "link").unlink()


def test_an_older_version_that_somebody_has_written_into_is_kept(here: str, variant: Variant, tmp_path: Path) -> None:
    device = tmp_path / "device"
    push(variant("a"), f"{here}:{device}/art")
    oldest = (device / "art").resolve()
    push(variant("b"), f"{here}:{device}/art")
    (oldest / "log.txt").write_text("of a program that resolved the link before")
    foreign = device / ".art.versions" / "mine"
    foreign.mkdir()
    for label in "cde":
        push(variant(label), f"{here}:{device}/art")
    assert (oldest / "log.txt").is_file()
    assert foreign.is_dir()
    found = [entry for entry in (device / ".art.versions").iterdir() if entry.is_dir()]
    assert len(found) == 4, "the present one, the one before, and these two"


def test_a_run_that_went_on_there_is_not_hidden(here: str, digits_run: Path, tmp_path: Path) -> None:
    device, run = tmp_path / "device", Path(shutil.copytree(digits_run, tmp_path / "run"))
    push(run, f"{here}:{device}/run")
    (device / "run" / ".lock").touch()  # of a command that looked at it
    (device / "run" / "results.csv").write_text("more epochs")
    (run / "curves.png").write_bytes(b"changed")
    with pytest.raises(RemoteError, match=r"holds 'results.csv', which has changed there"):
        push(run, f"{here}:{device}/run")
    assert (device / "run" / "results.csv").read_text() == "more epochs"
    shutil.copy(run / "results.csv", device / "run" / "results.csv")
    assert push(run, f"{here}:{device}/run").changed


def test_names_that_begin_alike_do_not_meet(here: str, variant: Variant, tmp_path: Path) -> None:
    device = tmp_path / "device"
    names = ["art", "art.parts", "art.versions", "art.lock-1"]
    for name in names:
        push(variant(name), f"{here}:{device}/{name}")
    mine = [device / ".art.parts.txt", device / ".art.parts.mine" / "x", device / ".art.versions.txt"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for label in "xyz":
        push(variant(label), f"{here}:{device}/art")
    assert all(path.read_text() == "mine" for path in mine)
    for name in names[1:]:
        assert version(device / name) == version(tmp_path / f"source {name}")
    assert ".art.parts" not in hidden(device)


def test_pull_leaves_what_it_does_not_know(here: str, variant: Variant, digits_run: Path, tmp_path: Path) -> None:
    push(variant("a"), f"{here}:{tmp_path}/device/art")
    push(digits_run, f"{here}:{tmp_path}/device/run")
    for name in ("art", "run"):
        out = tmp_path / "here" / name
        pull(f"{here}:{tmp_path}/device/{name}", out)
        (out / "pictures").mkdir()
        (out / "pictures" / "1.jpg").write_bytes(b"picture")
        # nothing to be replaced
        assert not pull(f"{here}:{tmp_path}/device/{name}", out).changed
        (out / ("backbone.onnx" if name == "art" else "results.csv")).write_bytes(b"damaged")
        with pytest.raises(EdgetlError, match=r"pictures.1\.jpg.*move it"):
            pull(f"{here}:{tmp_path}/device/{name}", out)
        assert (out / "pictures" / "1.jpg").read_bytes() == b"picture"
        shutil.rmtree(out / "pictures")
        if name == "run":
            (out / ".lock").touch()
        assert pull(f"{here}:{tmp_path}/device/{name}", out).changed
        assert contents(out) == contents(tmp_path / "device" / name)
