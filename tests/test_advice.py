"""What messages advise exists and works: commands, options, and paths as a shell takes them."""

import ast
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import edgetl
from edgetl.artifacts import MANIFEST
from edgetl.cli.main import main
from edgetl.runs.run import METRICS, RESULTS, VALIDATION


def sentences() -> list[tuple[str, str]]:
    """Every text in the code but docstrings and help: formatted ones piece by piece, with a space for each value."""
    found = []
    for file in sorted(Path(edgetl.__file__).parent.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        inner = {id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values}
        alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner | alone:
                text = node.value
            else:
                continue
            found.append((f"{file.name}:{node.lineno}", text))
    return found


def test_every_option_and_command_that_a_message_names_exists() -> None:
    options = {
        option
        for command in (main, *main.commands.values())
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}
    named = 0
    for where, text in sentences():
        if "pip" in text or text.startswith(("-", "tegrastats")):
            continue
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text):
            if f"{option}:" in text or f"({option})" in text:
                continue  # of a style sheet
            named += 1
            assert option in options, (where, text)
        for name in re.findall(r"(?:'|<code>)edgetl ([a-z]+)", text):
            named += 1
            assert name in main.commands, (where, text)
    assert named > 100


def invoke(*words: object) -> "click.testing.Result":
    return CliRunner().invoke(main, [str(word) for word in words])


def test_next_steps_can_be_pasted(
    digits: Path, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "it's a run $(id)"
    done = invoke("finetune", digits_artifacts, digits / "train", "--out", run, "--epochs", 1)
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if line.startswith("next: "))
    words = shlex.split(line.removeprefix("next: "))
    assert words == ["edgetl", "deploy", str(run), "--out", "model.onnx"]
    done = invoke(*words[1:])
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if line.startswith("next: "))
    words = shlex.split(line.removeprefix("next: "))
    picture = next((digits / "test").rglob("*.png"))
    assert invoke(*words[1:-1], picture).exit_code == 0


@pytest.mark.parametrize("name", [RESULTS, METRICS, VALIDATION])
def test_a_damaged_file_that_follows_from_others_is_mended_by_resuming(
    digits: Path, digits_artifacts: Path, digits_run: Path, tmp_path: Path, name: str
) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    (run / name).write_bytes(b"damaged")
    message = invoke("verify", run).output
    assert "--resume" in message, message
    done = invoke(
        *("finetune", digits_artifacts, digits / "train", "--out", run, "--epochs", 5, "--lr", 1e-2, "--resume")
    )
    assert done.exit_code == 0, done.output
    assert invoke("verify", run).exit_code == 0


def test_what_is_in_the_way_is_replaced_as_the_message_says_or_not_at_all(
    digits: Path, digits_artifacts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finetune = ("finetune", digits_artifacts, digits / "train", "--out", out, "--epochs", 0)
    assert invoke(*finetune).exit_code == 0
    for option in ("--resume", "--force"):
        refused = invoke(*finetune)
        assert refused.exit_code == 1
        assert option in refused.output
        assert invoke(*finetune, option).exit_code == 0
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    (out / "report.html").write_text("mine, too")
    for options in ((), ("--force",), ("--resume",)):
        refused = invoke(*finetune, *options)
        assert refused.exit_code == 1, options
        assert "was not written by edgetl" in refused.output
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "thesis.txt"]


def test_pull_names_no_option_that_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetl.remote import pull

    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / MANIFEST).write_text("{}")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(edgetl.EdgetlError, match="choose another OUT") as caught:
        pull(f"here:{tmp_path}/art", tmp_path / "mine")
    assert "--" not in str(caught.value)
