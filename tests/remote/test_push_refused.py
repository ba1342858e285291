"""push to machines that refuse, lack something, or cannot be reached."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback import HOST, Server, version

from edgetl.artifacts import MANIFEST
from edgetl.errors import RemoteError
from edgetl.remote import push, rollback

pytest_plugins = ["loopback_fixtures"]

Variant = Callable[..., Path]
StandIn = Callable[[str, str], Path]


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
