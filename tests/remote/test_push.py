"""push and rollback against a real sshd: what is sent, what is switched, what is kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback import HOST, Gate, Reader, Server

from edgetl.artifacts import MANIFEST, load_artifacts
from edgetl.errors import ArtifactsError, RemoteError
from edgetl.events import Event, Note, Stage
from edgetl.remote import push, rollback

pytest_plugins = ["loopback_fixtures"]

Variant = Callable[..., Path]
StandIn = Callable[[str, str], Path]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def version(path: Path) -> str:
    return load_artifacts(path).sha256


def hidden(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir() if entry.name.startswith("."))


# directories


def test_a_prepared_directory_arrives_whole_and_only_changes_follow(
    digits_artifacts: Path, variant: Variant, gate: Gate, sshd: Server, tmp_path: Path
) -> None:
    options, target = sshd.options(gate.port), tmp_path / "device" / "digits"
    first = push(digits_artifacts, f"{HOST}:{target}", ssh_options=options)
    size = sum(file.stat().st_size for file in digits_artifacts.rglob("*") if file.is_file())
    assert (first.kind, first.changed, first.previous) == ("artifacts", True, None)
    assert (first.files, first.bytes, first.sent_bytes) == (11, size, size)
    assert first.version == version(target) == version(digits_artifacts)
    assert str(target.readlink()).startswith(f".digits.versions/{first.version}.")
    assert hidden(target.parent) == [".digits.versions"]
    assert gate.up > size

    gate.up = 0
    again = push(digits_artifacts, f"{HOST}:{target}", ssh_options=options)
    assert (again.changed, again.sent_files) == (False, 0)
    idle = gate.up
    assert idle < 20_000

    gate.up = 0
    other = variant("b", "trainable.onnx", size=50_000)
    second = push(other, f"{HOST}:{target}", ssh_options=options)
    assert (second.sent_files, second.previous) == (2, first.version)
    assert second.sent_bytes == 50_000 + (other / MANIFEST).stat().st_size
    assert (target / "backbone.onnx").stat().st_nlink == 2
    assert second.sent_bytes <= gate.up < second.sent_bytes + idle + 5_000
    assert version(target) == version(other)


def test_rolling_back_swaps_and_only_one_previous_version_is_kept(here: str, variant: Variant, tmp_path: Path) -> None:
    target = tmp_path / "device" / "digits"
    a, b, c = (push(variant(name), f"{here}:{target}").version for name in "abc")
    versions = [entry.name[:64] for entry in (target.parent / ".digits.versions").iterdir() if entry.is_dir()]
    assert sorted(versions) == sorted([b, c])
    assert a not in versions

    back = rollback(f"{here}:{target}")
    assert (back.version, back.previous, version(target)) == (b, c, b)
    forth = rollback(str(target))  # the device's own operator
    assert (forth.version, forth.previous, version(target)) == (c, b, c)
    rollback(str(target))
    result = push(variant("d"), f"{here}:{target}")
    assert (result.previous, version(target)) == (b, result.version)


def test_nothing_to_roll_back_to(here: str, digits_artifacts: Path, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="does not exist"):
        rollback(str(tmp_path / "digits"))
    push(digits_artifacts, f"{here}:{tmp_path}/digits")
    with pytest.raises(RemoteError, match="has no previous version"):
        rollback(f"{here}:{tmp_path}/digits")
    (tmp_path / "model.onnx").write_bytes(b"model")
    with pytest.raises(RemoteError, match="has no previous version"):
        rollback(str(tmp_path / "model.onnx"))
    shutil.copytree(digits_artifacts, tmp_path / "own")
    with pytest.raises(RemoteError, match="did not write it"):
        rollback(str(tmp_path / "own"))


def test_pushing_the_previous_version_sends_nothing(here: str, variant: Variant, tmp_path: Path) -> None:
    target = tmp_path / "device" / "digits"
    first, second = variant("a", "backbone.onnx"), variant("b", "backbone.onnx")
    for source in (first, second):
        push(source, f"{here}:{target}")
    result = push(first, f"{here}:{target}")
    assert (result.changed, result.sent_files, result.previous) == (True, 0, version(second))
    assert version(target) == version(first)
    rollback(str(target))
    assert version(target) == version(second)


def test_a_damaged_version_is_mended_and_what_was_before_it_kept(here: str, variant: Variant, tmp_path: Path) -> None:
    target = tmp_path / "device" / "digits"
    first, second = variant("a"), variant("b", "backbone.onnx")
    for source in (first, second):
        push(source, f"{here}:{target}")
    (target / "backbone.onnx").write_bytes(b"damaged")
    result = push(second, f"{here}:{target}")
    assert (result.changed, result.sent_files) == (True, 1)
    assert result.previous == version(first)
    assert version(target) == version(second)


def test_an_altered_directory_is_not_sent(here: str, variant: Variant, tmp_path: Path) -> None:
    source = variant("a")
    (source / "backbone.onnx").write_bytes(b"altered")
    with pytest.raises(ArtifactsError, match="SHA-256"):
        push(source, f"{here}:{tmp_path}/device/digits")
    assert not (tmp_path / "device").exists()


def test_a_run_arrives_without_its_lock(here: str, digits_run: Path, tmp_path: Path) -> None:
    result = push(digits_run, f"{here}:{tmp_path}/runs/")
    arrived = tmp_path / "runs" / digits_run.name
    assert result.kind == "run"
    assert (arrived / "weights" / "best.npz").read_bytes() == (digits_run / "weights" / "best.npz").read_bytes()
    assert (digits_run / ".lock").is_file()
    assert not (arrived / ".lock").exists()
    assert not push(digits_run, f"{here}:{arrived}").changed


def test_a_version_is_pushed_on_under_its_own_name(
    here: str, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(digits_artifacts, f"{here}:{tmp_path}/device/digits")
    monkeypatch.chdir(tmp_path / "device")
    push("digits", f"{here}:{tmp_path}/second/")
    monkeypatch.chdir(tmp_path / "device" / "digits" / "ort")
    push("..", f"{here}:{tmp_path}/third/x")
    assert version(tmp_path / "second" / "digits") == version(tmp_path / "third" / "x") == version(digits_artifacts)


def test_what_somebody_else_wrote_stays(here: str, digits_artifacts: Path, tmp_path: Path) -> None:
    mine = tmp_path / "device"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    for source in (digits_artifacts, digits_artifacts / MANIFEST):
        with pytest.raises(RemoteError, match="did not write it"):
            push(source, f"{here}:{mine}")
    (tmp_path / "m.previous").mkdir()
    with pytest.raises(RemoteError, match=r"m\.previous is there and .* did not write it"):
        push(digits_artifacts / MANIFEST, f"{here}:{tmp_path}/m")
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(RemoteError, match="did not write it"):
        push(digits_artifacts, f"{here}:{tmp_path}/link")
    assert (mine / "thesis.txt").read_text() == "mine"
    assert [entry.name for entry in mine.iterdir()] == ["thesis.txt"]


def test_what_cannot_be_pushed(here: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for source, why in (("folder", "neither a prepared directory nor a run"), ("gone", "does not exist")):
        with pytest.raises(RemoteError, match=why):
            push(tmp_path / source, f"{here}:x")
    with pytest.raises(RemoteError, match="names no machine"):
        push(tmp_path / "folder", str(tmp_path / "x"))


# files


def test_a_file_takes_its_name_in_one_step_and_the_previous_one_is_kept(here: str, tmp_path: Path) -> None:
    source, target = tmp_path / "model.bin", tmp_path / "device" / "model.bin"
    contents = [bytes([number]) * 3_000_000 for number in range(3)]
    seen = []
    source.write_bytes(contents[0])
    push(source, f"{here}:{target}")
    with Reader(target) as reader:
        for content in contents[1:]:
            source.write_bytes(content)
            result = push(source, f"{here}:{target}")
            seen.append((result.version, result.previous, result.sent_bytes))
        unchanged = push(source, f"{here}:{target}")
        back = rollback(f"{here}:{target}")
    hashes = [digest(content) for content in contents]
    assert seen == [(hashes[1], hashes[0], 3_000_000), (hashes[2], hashes[1], 3_000_000)]
    assert (unchanged.changed, unchanged.sent_files, unchanged.previous) == (False, 0, hashes[1])
    assert (back.version, back.previous) == (hashes[1], hashes[2])
    assert set(hashes) == reader.seen
    assert reader.sizes == {3_000_000}
    assert target.read_bytes() == contents[1]
    assert (target.parent / "model.bin.previous").read_bytes() == contents[2]
    rollback(str(target))
    assert target.read_bytes() == contents[2]
    assert sorted(entry.name for entry in target.parent.iterdir()) == ["model.bin", "model.bin.previous"]


def test_the_tokenizer_that_a_model_names_goes_and_comes_back_with_it(
    here: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Deployed:
        def __init__(self, path: Path) -> None:
            name = path.read_text().partition(" ")[0]
            self.provenance = {"tokenizer_file": name if name.endswith(".json") else None}

    monkeypatch.setattr("edgetl.deployed.DeployedModel", Deployed)
    source, device = tmp_path / "source", tmp_path / "device"
    source.mkdir()
    model, tokenizer = source / "m.onnx", source / "m.tokenizer.json"

    def write(model_text: str, tokenizer_text: str) -> int:
        model.write_text(model_text)
        tokenizer.write_text(tokenizer_text)
        return push(model, f"{here}:{device}/live.onnx").sent_files

    def there() -> tuple[str, str]:
        return (device / "live.onnx").read_text(), (device / "m.tokenizer.json").read_text()

    one, two = ("m.tokenizer.json 1", "tokens 1"), ("m.tokenizer.json 2", "tokens 2")
    assert (write(*one), there()) == (2, one)
    assert (write(*two), there()) == (2, two)
    rollback(str(device / "live.onnx"))
    assert there() == one
    rollback(str(device / "live.onnx"))
    assert there() == two
    # the next one holds its own: what lies beside must still go back to what belongs to the one before
    assert write("embedded", "not sent") == 1
    rollback(str(device / "live.onnx"))
    assert there() == two
    tokenizer.unlink()
    model.write_text("m.tokenizer.json 3")
    with pytest.raises(RemoteError, match=r"m\.tokenizer\.json does not exist"):
        push(model, f"{here}:{device}/live.onnx")


def test_a_deployed_model_is_examined_and_another_is_pushed_as_it_is(
    here: str, digits_model: Path, tmp_path: Path
) -> None:
    told: list[Event] = []
    push(digits_model, f"{here}:{tmp_path}/device/", on_event=told.append)
    assert not any(isinstance(event, Note) for event in told)
    assert (tmp_path / "device" / "model.onnx").read_bytes() == digits_model.read_bytes()
    (tmp_path / "other.onnx").write_bytes(b"none")
    push(tmp_path / "other.onnx", f"{here}:{tmp_path}/device/", on_event=told.append)
    assert any(isinstance(event, Note) and "unexamined" in event.text for event in told)


def test_an_empty_file_and_whole_blocks(here: str, tmp_path: Path) -> None:
    for size in (0, 1, 65_535, 65_536, 65_537, 131_072):
        (tmp_path / "file").write_bytes(os.urandom(size))
        push(tmp_path / "file", f"{here}:{tmp_path}/device/file")
        assert (tmp_path / "device" / "file").read_bytes() == (tmp_path / "file").read_bytes()


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


# machines that refuse


def test_a_full_disk(here: str, stand_in: StandIn, variant: Variant, tmp_path: Path) -> None:
    target = tmp_path / "device" / "digits"
    before = push(variant("a"), f"{here}:{target}")
    full = stand_in(
        "dd",
        f'case "$*" in *fullblock*) exec {shutil.which("dd")} "$@" >/dev/full;; esac\nexec {shutil.which("dd")} "$@"',
    )
    with pytest.raises(RemoteError, match=r"the disk of here is full .*No space left on device"):
        push(variant("b", "backbone.onnx", size=2_000_000), f"{here}:{target}")
    assert version(target) == before.version
    full.unlink()
    push(variant("c", "backbone.onnx"), f"{here}:{target}")


def test_where_nothing_may_be_written(here: str, digits_artifacts: Path, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"/proc on here cannot be written \(.+\)"):
        push(digits_artifacts, f"{here}:/proc/digits")
    (tmp_path / "file").write_text("")
    with pytest.raises(RemoteError, match=r"cannot be entered or made \(.*File exists"):
        push(digits_artifacts, f"{here}:{tmp_path}/file/digits")


def test_a_file_system_without_hard_links(here: str, stand_in: StandIn, variant: Variant, tmp_path: Path) -> None:
    stand_in("ln", f'[ "$1" = -s ] || exit 1\nexec {shutil.which("ln")} "$@"')
    target, model = tmp_path / "device" / "digits", tmp_path / "device" / "model"
    for name in "ab":
        push(variant(name, "backbone.onnx"), f"{here}:{target}")
        push(tmp_path / f"source {name}" / MANIFEST, f"{here}:{model}")
    assert all(file.stat().st_nlink == 1 for file in target.rglob("*") if file.is_file())
    for path in (target, model):
        rollback(str(path))
    assert version(target) == version(tmp_path / "source a")
    assert model.read_bytes() == (tmp_path / "source a" / MANIFEST).read_bytes()


def test_a_file_system_without_symbolic_links(
    here: str, stand_in: StandIn, digits_artifacts: Path, tmp_path: Path
) -> None:
    stand_in(
        "ln", f'[ "$1" != -s ] || {{ echo "ln: Operation not permitted" >&2; exit 1; }}\nexec {shutil.which("ln")} "$@"'
    )
    with pytest.raises(RemoteError, match=r"cannot hold versions \(ln: Operation not permitted\)"):
        push(digits_artifacts, f"{here}:{tmp_path}/device/digits")
    assert push(digits_artifacts / MANIFEST, f"{here}:{tmp_path}/device/").changed


@pytest.mark.parametrize("tool", ["dd", "sha256sum", "mv -T"])
def test_a_tool_that_is_missing(
    tool: str, here: str, stand_in: StandIn, digits_artifacts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if tool == "mv -T":
        stand_in("mv", 'case "$*" in *-T*) echo "mv: invalid option -- T" >&2; exit 1;; esac')
    else:
        bare = tmp_path / "bare"
        bare.mkdir()
        for name in ("sh", "dd", "sha256sum", "mkdir", "rmdir", "mv", "ln", "cp", "rm", "readlink", "sleep"):
            if name != tool:
                (bare / name).symlink_to(str(shutil.which(name)))
        if tool == "dd":  # which reads the script itself
            stand_in("ssh", f'cat >/dev/null & PATH={bare} exec sh -c "$(for last; do :; done; printf %s "$last")"')
        else:
            stand_in("ssh", f'for last; do :; done\nPATH={bare} exec sh -c "$last"')
    expected = "does not run a POSIX shell" if tool == "dd" else f"has no '{tool}'"
    with pytest.raises(RemoteError, match=expected):
        push(digits_artifacts, f"{here}:{tmp_path}/device/digits")


def test_an_unreachable_host(digits_artifacts: Path, sshd: Server, tmp_path: Path) -> None:
    nobody = ("Port=1", *sshd.options()[1:])
    with pytest.raises(RemoteError, match=r"cannot be reached \(.*Connection refused"):
        push(digits_artifacts, f"{HOST}:{tmp_path}/x", ssh_options=nobody)
    with pytest.raises(RemoteError, match=r"no-such-host\.invalid cannot be reached \(.*resolve"):
        push(digits_artifacts, "no-such-host.invalid:x", ssh_options=sshd.options())


def test_a_key_that_is_not_known(digits_artifacts: Path, sshd: Server, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    options = (f"IdentityFile={tmp_path / 'key'}", "IdentityAgent=none", *sshd.options())
    options = tuple(option for option in options if str(sshd.directory / "user") not in option)
    with pytest.raises(RemoteError, match=r"does not let you in \(.*Permission denied"):
        push(digits_artifacts, f"{HOST}:{tmp_path}/x", ssh_options=options)


def test_a_host_key_that_is_not_known(digits_artifacts: Path, sshd: Server, tmp_path: Path) -> None:
    options = ("StrictHostKeyChecking=yes", f"UserKnownHostsFile={tmp_path / 'none'}", *sshd.options())
    with pytest.raises(RemoteError, match="the host key of"):
        push(digits_artifacts, f"{HOST}:{tmp_path}/x", ssh_options=options)


def test_no_ssh(digits_artifacts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RemoteError, match="ssh is not installed"):
        push(digits_artifacts, f"{HOST}:{tmp_path}/x")


def test_no_shell_there(stand_in: StandIn, digits_artifacts: Path, tmp_path: Path) -> None:
    stand_in("ssh", "echo This account is currently not available.; exit 1")
    with pytest.raises(RemoteError, match=r"does not run a POSIX shell's script \(This account is currently"):
        push(digits_artifacts, f"{HOST}:{tmp_path}/x")


def test_what_login_scripts_print_is_passed_over(stand_in: StandIn, digits_artifacts: Path, tmp_path: Path) -> None:
    stand_in("ssh", 'for last; do :; done\necho Welcome; echo want 1; exec sh -c "$last"')
    assert push(digits_artifacts, f"{HOST}:{tmp_path}/x").sent_files == 11


def test_import_loads_nothing_heavy() -> None:
    code = "import edgetl.remote, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"numpy", "onnx", "onnxruntime", "PIL", "rich", "torch", "click"} & set(loaded)
