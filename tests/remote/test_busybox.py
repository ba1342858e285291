"""Where there is nothing but busybox: no program of the system's is on the PATH there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback import Reader

from edgetl.artifacts import load_artifacts
from edgetl.remote import pull, push, rollback

pytest_plugins = ["loopback_fixtures"]


@pytest.fixture
def box(stand_in: Callable[[str, str], Path], tmp_path: Path) -> str:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox: apt-get install busybox")
    applets = tmp_path / "applets"
    applets.mkdir()
    for name in subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split():
        (applets / name).symlink_to(busybox)
    stand_in("ssh", f'for last; do :; done\nPATH={applets}\nexport PATH\nexec {applets}/sh -c "$last"')
    return "box"


def test_directories(box: str, variant: Callable[..., Path], tmp_path: Path) -> None:
    target = tmp_path / "device" / "it's digits"
    sources = [variant(name, "backbone.onnx", size=200_000) for name in "abc"]
    versions = [load_artifacts(source).sha256 for source in sources]
    push(sources[0], f"{box}:{target}")
    with Reader(target) as reader:
        results = [push(source, f"{box}:{target}") for source in sources]
        back = rollback(f"{box}:{target}")
    assert [result.changed for result in results] == [False, True, True]
    assert [result.sent_files for result in results] == [0, 2, 2]
    assert (back.version, back.previous) == (versions[1], versions[2])
    assert versions[1] in reader.seen <= set(versions)
    pull(f"{box}:{target}", tmp_path / "out")
    assert load_artifacts(tmp_path / "out").sha256 == versions[1]


def test_files(box: str, tmp_path: Path) -> None:
    target = tmp_path / "device" / "model.bin"
    for content in (b"one", b"two", b"three"):
        (tmp_path / "model.bin").write_bytes(content)
        push(tmp_path / "model.bin", f"{box}:{target}")
    assert not push(tmp_path / "model.bin", f"{box}:{target}").changed
    rollback(f"{box}:{target}")
    assert (target.read_bytes(), Path(f"{target}.previous").read_bytes()) == (b"two", b"three")
    rollback(f"{box}:{target}")
    assert (target.read_bytes(), Path(f"{target}.previous").read_bytes()) == (b"three", b"two")
    assert sorted(entry.name for entry in target.parent.iterdir()) == ["model.bin", "model.bin.previous"]


def test_the_same_content_under_two_names_rolls_back(box: str, tmp_path: Path) -> None:
    model, other = tmp_path / "model.bin", tmp_path / "beside.json"
    other.write_text("tokens")
    for content in ("one", "two", "three"):
        model.write_text(content)
        push(model, f"{box}:{tmp_path}/device/", beside=[other])
    rollback(f"{box}:{tmp_path}/device/model.bin")
    found = {entry.name: entry.read_text() for entry in (tmp_path / "device").iterdir()}
    assert found == {
        ".model.bin.beside": "beside.json\n",
        "model.bin": "two",
        "model.bin.previous": "three",
        "beside.json": "tokens",
        "beside.json.previous": "tokens",
    }
