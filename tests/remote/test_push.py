"""push and rollback against a real sshd: what is sent, what is switched, what is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback import HOST, Gate, Reader, Server, digest, hidden, version

from edgetl.artifacts import MANIFEST
from edgetl.errors import ArtifactsError, RemoteError
from edgetl.events import Event, Note
from edgetl.remote import push, rollback

pytest_plugins = ["loopback_fixtures"]

Variant = Callable[..., Path]
StandIn = Callable[[str, str], Path]


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

    monkeypatch.setattr("edgetl.deployment.deployed.DeployedModel", Deployed)
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
