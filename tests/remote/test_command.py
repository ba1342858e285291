"""run_remote, and the commands of the command line."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from loopback import HOST, Server, wait_for

from edgetl.artifacts import load_artifacts
from edgetl.cli.main import main
from edgetl.errors import RemoteError
from edgetl.remote import run_remote

pytest_plugins = ["loopback_fixtures"]

StandIn = Callable[[str, str], Path]


def test_arguments_output_and_status_pass_through(
    options: tuple[str, ...], stand_in: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    program = stand_in("my edgetl", 'printf "<%s>" "$@"; echo oh >&2; cat; exit 7')
    words = ["finetune", "a b", "$(id)", "it's", "", "--json", "a\nb"]
    assert run_remote(HOST, words, program=str(program), ssh_options=options) == 7
    captured = capfd.readouterr()
    assert captured.out == "".join(f"<{word}>" for word in words)
    assert captured.err == "oh\n"


def test_a_program_that_is_not_there_and_a_host_that_is_not(options: tuple[str, ...]) -> None:
    with pytest.raises(RemoteError, match="has no program 'no/such'"):
        run_remote(HOST, ["doctor"], program="no/such", ssh_options=options)
    with pytest.raises(RemoteError, match=r"failed or was lost.*--resume"):
        run_remote(HOST, ["finetune"], ssh_options=("Port=1", *options))
    with pytest.raises(RemoteError, match="cannot be a host"):
        run_remote("-oProxyCommand=x", ["finetune"])
    with pytest.raises(RemoteError, match="zero byte"):
        run_remote(HOST, ["a\0b"])


def test_it_ends_when_the_call_is_interrupted(options: tuple[str, ...], stand_in: StandIn, tmp_path: Path) -> None:
    note = tmp_path / "ended"
    program = stand_in(
        "program", f'trap "echo $$ >{note}; exit" INT\necho $$ >{tmp_path}/pid\nwhile :; do sleep 0.1; done'
    )
    code = calling(program, options)
    caller = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    wait_for(lambda: (tmp_path / "pid").exists())
    os.killpg(caller.pid, signal.SIGINT)
    _, errors = caller.communicate(timeout=10)
    assert b"KeyboardInterrupt" in errors
    wait_for(note.exists)


def test_it_ends_when_the_connection_is_cut(sshd: Server, stand_in: StandIn, tmp_path: Path) -> None:
    real = shutil.which("ssh")
    stand_in("ssh", f'echo $$ >"{tmp_path}/ssh"\nexec {real} "$@"')
    # one that does not listen to SIGINT
    program = stand_in("program", f"trap '' INT\necho $$ >{tmp_path}/pid\nexec sleep 60")
    code = calling(program, sshd.options())
    caller = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    os.kill(int((tmp_path / "ssh").read_text()), signal.SIGKILL)
    _, errors = caller.communicate(timeout=10)
    assert b"RemoteError" in errors
    wait_for(lambda: not alive(pid), seconds=15)


def test_a_terminal_is_passed_on(options: tuple[str, ...], stand_in: StandIn, tmp_path: Path) -> None:
    program = stand_in(
        "program",
        f'[ -t 1 ] && echo "a terminal"\ntrap "echo interrupted >{tmp_path}/note; exit 3" INT\n'
        f"echo $$ >{tmp_path}/pid\nwhile :; do sleep 0.1; done",
    )
    code = calling(program, options)
    ours, theirs = pty.openpty()
    caller = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    wait_for(lambda: (tmp_path / "pid").exists())
    os.write(ours, b"\x03")
    assert caller.wait(timeout=10) == 3
    assert (tmp_path / "note").exists()
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(ours, 1000):
            shown += piece
    os.close(ours)
    assert b"a terminal" in shown


def calling(program: Path, options: tuple[str, ...]) -> str:
    call = f"run_remote({HOST!r}, [], program={str(program)!r}, ssh_options={options!r})"
    return f"import sys; from edgetl.remote import run_remote; sys.exit({call})"


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# the command line


@pytest.fixture
def arguments(sshd: Server, tmp_path: Path) -> list[str]:
    """Options that let in, with a key at a path that ssh would read otherwise if it were not quoted."""
    key = tmp_path / 'my "key" %h \\ $x'
    shutil.copyfile(sshd.directory / "user", key)
    key.chmod(0o600)
    rest = [option for option in sshd.options() if not option.startswith(("Port=", "IdentityFile="))]
    return ["--port", str(sshd.port), "--identity", str(key), *(part for option in rest for part in ("-o", option))]


def invoke(*words: str | Path) -> tuple[int, str, str]:
    # through the group, as in life: a command that runs alone first keeps another --help from then on
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def test_the_commands(
    arguments: list[str], digits_artifacts: Path, variant: Callable[..., Path], tmp_path: Path
) -> None:
    target = f"{HOST}:{tmp_path}/device/digits"
    first, second = load_artifacts(digits_artifacts).sha256, load_artifacts(variant("b")).sha256
    status, out, _ = invoke("push", digits_artifacts, target, *arguments)
    assert status == 0
    assert f"{target} is version {first[:12]}: sent 11 of 11 files, 0.2 of 0.2 MB" in out
    status, out, _ = invoke("push", tmp_path / "source b", target, *arguments, "--json")
    assert (status, json.loads(out)["version"], json.loads(out)["previous"]) == (0, second, first)
    status, out, _ = invoke("push", tmp_path / "source b", target, *arguments)
    assert f"{target} is version {second[:12]} already" in out
    assert shlex.split(out.splitlines()[-1])[-2 - len(arguments) :] == ["rollback", *arguments, target]
    status, out, _ = invoke("rollback", target, *arguments)
    assert (status, out) == (0, f"{target} is version {first[:12]} again, no longer {second[:12]}\n")
    status, out, _ = invoke("rollback", tmp_path / "device" / "digits", "--json")
    assert (status, json.loads(out)["version"]) == (0, second)
    status, out, _ = invoke("pull", target, tmp_path / "out", *arguments)
    assert (status, load_artifacts(tmp_path / "out").sha256) == (0, second)
    assert f"{tmp_path}/out is the same: received 11 of 11 files" in out


def test_errors_are_one_sentence_with_status_1(tmp_path: Path) -> None:
    status, out, errors = invoke("rollback", tmp_path / "gone", "--json")
    assert (status, json.loads(out)) == (1, {"error": f"{tmp_path}/gone does not exist: check the path"})
    assert errors == f"Error: {tmp_path}/gone does not exist: check the path\n"
    assert invoke("push", tmp_path, "-oProxyCommand=x:y")[0] == 2
    status, _, errors = invoke("push", tmp_path, "--", "-oProxyCommand=x:y")
    assert (status, "cannot be a host" in errors) == (1, True)


def test_what_stands_behind_the_host_is_the_command_s(
    here: str, stand_in: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in("edgetl", 'printf "<%s>" "$@"; exit 3')
    words = ["ARTIFACTS", "--port", "1", "-h", "--help", "--", "--json", "-o", "x", "a b"]
    status, _, _ = invoke("remote", "finetune", here, *words)
    assert (status, capfd.readouterr().out) == (3, "".join(f"<{word}>" for word in ["finetune", *words]))
    program = stand_in("other", 'printf "<%s>" "$@"')
    assert invoke("remote", "--program", program, "doctor", here)[0] == 0
    assert capfd.readouterr().out == "<doctor>"
    assert invoke("remote", "format", here)[0] == 2


def test_deploy_to_another_machine(arguments: list[str], digits_run: Path, digits_model: Path, tmp_path: Path) -> None:
    from edgetl.deployment.deployed import DeployedModel

    target = tmp_path / "device" / "model.onnx"
    status, out, _ = invoke("deploy", digits_run, "--to", f"{HOST}:{target}", *arguments)
    assert status == 0
    assert "rollback" not in out  # there is nothing before it
    assert DeployedModel(target).provenance == DeployedModel(digits_model).provenance
    status, out, _ = invoke("deploy", digits_run, "--to", f"{HOST}:{target}", "--precision", "float16", *arguments)
    assert status == 0
    assert shlex.split(out.splitlines()[-1])[-2 - len(arguments) :] == ["rollback", *arguments, f"{HOST}:{target}"]
    status, _, errors = invoke("deploy", digits_run)
    assert (status, "Give --out FILE, --to HOST:PATH, or both." in errors) == (2, True)
    status, _, errors = invoke("deploy", digits_run, "--to", "-oProxyCommand=x:y")
    assert (status, "cannot be a host" in errors) == (1, True)
