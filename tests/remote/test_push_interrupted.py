"""push where the connection breaks, what arrives is altered, or another push comes between."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback import HOST, Gate, Reader, Server, hidden, version

from edgetl.artifacts import load_artifacts
from edgetl.errors import RemoteError
from edgetl.events import Event, Stage
from edgetl.remote import push, rollback

pytest_plugins = ["loopback_fixtures"]

Variant = Callable[..., Path]
StandIn = Callable[[str, str], Path]


# connections that break


@pytest.mark.parametrize("limit", [1_000, 130_000, 250_000])
def test_a_cut_connection_changes_nothing_and_the_next_push_goes_on(
    limit: int, variant: Variant, gate: Gate, sshd: Server, options: tuple[str, ...], tmp_path: Path
) -> None:
    target = tmp_path / "device" / "digits"
    old, new = variant("old"), variant("new", "backbone.onnx", "trainable.onnx", "preprocess.onnx", size=85_000)
    before = push(old, f"{HOST}:{target}", ssh_options=options)
    with Reader(target) as reader:
        gate.limit = limit
        with pytest.raises(RemoteError, match=r"cannot be reached|was lost"):
            push(new, f"{HOST}:{target}", ssh_options=sshd.options(gate.port))
        assert version(target) == before.version
        result = push(new, f"{HOST}:{target}", ssh_options=options)
    arrived = max(0, limit - 100_000) // 85_000  # files that had come in full, and were through the far pipes
    assert result.changed
    assert result.sent_files <= 4 - arrived
    assert result.previous == before.version
    assert version(target.resolve()) == result.version
    assert {before.version} <= reader.seen <= {before.version, result.version}
    assert hidden(target.parent) == [".digits.versions"]


def test_a_cut_file_is_never_seen_and_does_not_stand_in_the_way(gate: Gate, sshd: Server, tmp_path: Path) -> None:
    source, target = tmp_path / "model.bin", tmp_path / "device" / "model.bin"
    source.write_bytes(b"old")
    push(source, f"{HOST}:{target}", ssh_options=sshd.options())
    source.write_bytes(os.urandom(500_000))
    gate.limit = 250_000
    with pytest.raises(RemoteError, match="was lost"):
        push(source, f"{HOST}:{target}", ssh_options=sshd.options(gate.port))
    assert target.read_bytes() == b"old"
    gate.limit = None
    assert push(source, f"{HOST}:{target}", ssh_options=sshd.options(gate.port)).sent_files == 1
    assert target.read_bytes() == source.read_bytes()
    assert sorted(entry.name for entry in target.parent.iterdir()) == ["model.bin", "model.bin.previous"]


def test_a_killed_ssh(variant: Variant, sshd: Server, stand_in: StandIn, tmp_path: Path) -> None:
    real = shutil.which("ssh")
    stand_in("ssh", f'echo $$ >"{tmp_path}/pid"\nexec {real} "$@"')
    target, source = tmp_path / "device" / "digits", variant("a", "trainable.onnx", size=3_000_000)

    def kill(event: Event) -> None:
        if isinstance(event, Stage) and event.text.startswith("sending trainable"):
            time.sleep(0.5)  # for those before it to arrive
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    with pytest.raises(RemoteError, match="was lost"):
        push(source, f"{HOST}:{target}", ssh_options=sshd.options(), on_event=kill)
    assert not target.exists()
    result = push(source, f"{HOST}:{target}", ssh_options=sshd.options())
    assert result.sent_files < result.files
    assert version(target) == version(source)


def test_a_connection_that_falls_silent_ends_and_holds_up_nobody(
    variant: Variant, gate: Gate, sshd: Server, tmp_path: Path
) -> None:
    gate.limit, gate.stalls = 100_000, True
    source, target = variant("a", "trainable.onnx", size=3_000_000), f"{HOST}:{tmp_path}/device/digits"
    impatient = ("ServerAliveInterval=1", "ServerAliveCountMax=1", *sshd.options(gate.port))
    with pytest.raises(RemoteError, match="was lost"):
        push(source, target, ssh_options=impatient)
    # the other end still waits for the rest: the gate has not closed its connection
    assert list((tmp_path / "device" / ".digits.parts").glob("*.*"))
    started = time.monotonic()
    push(source, target, ssh_options=sshd.options())
    assert time.monotonic() - started < 5
    assert version(tmp_path / "device" / "digits") == version(source)


def test_interrupted_here(digits_artifacts: Path, options: tuple[str, ...], tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Stage) and event.text == "switching":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(digits_artifacts, f"{HOST}:{tmp_path}/device/digits", ssh_options=options, on_event=interrupt)
    push(digits_artifacts, f"{HOST}:{tmp_path}/device/digits", ssh_options=options)
    assert version(tmp_path / "device" / "digits") == version(digits_artifacts)


# what arrives is not what was sent


def test_altered_on_the_way(here: str, stand_in: StandIn, variant: Variant, tmp_path: Path) -> None:
    target = tmp_path / "device" / "digits"
    before = push(variant("a"), f"{here}:{target}")
    real = shutil.which("dd")
    # blocks of a file pass dd on their way to the disk: one letter of them becomes another
    altering = stand_in("dd", f'case "$*" in *fullblock*) {real} "$@" | tr E F;; *) exec {real} "$@";; esac')
    with pytest.raises(RemoteError, match="not what was sent"):
        push(variant("b", "backbone.onnx"), f"{here}:{target}")
    assert version(target) == before.version
    altering.unlink()
    push(variant("c", "backbone.onnx"), f"{here}:{target}")
    assert version(target) != before.version


def test_a_part_that_decayed_between_two_attempts_is_sent_again(
    here: str, digits_artifacts: Path, tmp_path: Path
) -> None:
    parts = tmp_path / "device" / ".digits.parts"
    parts.mkdir(parents=True)
    (parts / load_artifacts(digits_artifacts).manifest.files["backbone.onnx"]).write_bytes(b"")
    result = push(digits_artifacts, f"{here}:{tmp_path}/device/digits")
    assert result.sent_files == 11
    assert version(tmp_path / "device" / "digits") == result.version


def test_a_file_that_changes_while_it_is_sent(here: str, tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    for later in (b"b" * 100_000, b"b"):
        source.write_bytes(b"a" * 100_000)

        def change(event: Event, later: bytes = later) -> None:
            if isinstance(event, Stage) and event.text.startswith("sending"):
                source.write_bytes(later)

        with pytest.raises(RemoteError, match="changed while it was sent"):
            push(source, f"{here}:{tmp_path}/device/", on_event=change)
        assert not (tmp_path / "device" / "model.bin").exists()


# two at once


def test_two_pushes_at_once_leave_one_whole_version(variant: Variant, options: tuple[str, ...], tmp_path: Path) -> None:
    target = tmp_path / "device" / "digits"
    sources = [variant(name, "backbone.onnx") for name in "abcd"]
    first = push(sources[0], f"{HOST}:{target}", ssh_options=options)
    together = threading.Barrier(3)
    results: list[object] = []

    def wait(event: Event) -> None:
        if isinstance(event, Stage) and event.text == "switching":
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(timeout=60)

    def one(source: Path) -> None:
        try:
            results.append(push(source, f"{HOST}:{target}", ssh_options=options, on_event=wait).version)
        except RemoteError as error:
            together.abort()  # the others need not wait for it
            results.append(error)

    threads = [threading.Thread(target=one, args=(source,)) for source in sources[1:]]
    with Reader(target) as reader:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(isinstance(result, str) or "finished meanwhile" in str(result) for result in results), results
    done = {result for result in results if isinstance(result, str)}
    assert done
    assert version(target.resolve()) in done
    assert reader.seen <= {first.version, *done}
    # what came in full of one that was overtaken is kept for its next try
    assert set(hidden(target.parent)) <= {".digits.versions", ".digits.parts"}
    rollback(str(target))
    assert version(target) in {first.version, *done}


def test_two_pushes_of_the_same_both_succeed_and_keep_the_previous(here: str, variant: Variant, tmp_path: Path) -> None:
    target, old, new = tmp_path / "device" / "digits", variant("old"), variant("new", "backbone.onnx")
    push(old, f"{here}:{target}")

    def late(event: Event) -> None:
        if isinstance(event, Stage) and event.text.startswith("sending manifest"):
            push(new, f"{here}:{target}")

    result = push(new, f"{here}:{target}", on_event=late)
    assert (result.changed, result.previous) == (False, version(old))
    # as files, likewise
    for name, text in (("m", "old"), ("m", "new")):
        (tmp_path / name).write_text(text)
        if text == "old":
            push(tmp_path / "m", f"{here}:{tmp_path}/device/m")

    def late_file(event: Event) -> None:
        if isinstance(event, Stage) and event.text.startswith("sending"):
            push(tmp_path / "m", f"{here}:{tmp_path}/device/m")

    push(tmp_path / "m", f"{here}:{tmp_path}/device/m", on_event=late_file)
    assert (tmp_path / "device" / "m.previous").read_text() == "old"


def test_a_push_that_is_overtaken_by_another_says_so(here: str, variant: Variant, tmp_path: Path) -> None:
    target, mine, other = tmp_path / "device" / "digits", variant("mine"), variant("other", "backbone.onnx")

    def late(event: Event) -> None:
        if isinstance(event, Stage) and event.text.startswith("sending manifest"):
            push(other, f"{here}:{target}")

    with pytest.raises(RemoteError, match="finished meanwhile"):
        push(mine, f"{here}:{target}", on_event=late)
    assert version(target) == version(other)
    push(mine, f"{here}:{target}")
    assert version(target) == version(mine)


def test_a_push_whose_place_was_swept_and_taken_anew_is_overtaken(
    here: str, stand_in: StandIn, digits_artifacts: Path, tmp_path: Path
) -> None:
    # a second push sweeps what this one brought, and a third makes the same directory again
    device, moved = tmp_path / "device", tmp_path / "moved"
    real = shutil.which("mv")
    stand_in("mv", f'[ -e {moved} ] || {{ : >{moved}; rm -r .digits.parts; mkdir .digits.parts; }}; exec {real} "$@"')
    with pytest.raises(RemoteError, match="finished meanwhile"):
        push(digits_artifacts, f"{here}:{device}/digits")
    assert not (device / "digits").exists()
    push(digits_artifacts, f"{here}:{device}/digits")
    assert hidden(device) == [".digits.versions"]


def test_a_lock_that_is_held_is_told_and_one_from_before_a_restart_is_not_heeded(
    here: str, stand_in: StandIn, digits_artifacts: Path, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    boot = Path("/proc/sys/kernel/random/boot_id")
    held = device / f".digits.lock-{boot.read_text().strip() if boot.exists() else 0}"
    old = device / ".digits.lock-before"
    for lock in (held, old):
        lock.mkdir(parents=True)
    stand_in("sleep", "exit 0")
    with pytest.raises(RemoteError, match=rf"is switching .*remove \{held.name} beside it"):
        push(digits_artifacts, f"{here}:{device}/digits")
    assert held.is_dir()
    held.rmdir()
    push(digits_artifacts, f"{here}:{device}/digits")
    assert hidden(device) == [".digits.versions"]
