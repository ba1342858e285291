import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgetl.cli.main import main
from edgetl.files.seal import seal_json

DOCS = Path(__file__).parents[2] / "docs"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def failed(result: Result) -> str:
    """Check that a command ended as an error of the user's should, and return its sentence."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.stderr
    return sentence


def test_the_main_job(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    run, model = tmp_path / "run", tmp_path / "model.onnx"
    result = invoke("finetune", digits_artifacts, digits / "train", "--out", run, "--epochs", 3, "--lr", 0.01)
    assert result.exit_code == 0, result.output
    assert "validation accuracy" in result.stdout
    assert f"next: edgetl deploy {run}" in result.stdout
    assert "epoch 3/3" in result.stderr
    result = invoke("deploy", run, "--out", model)
    assert result.exit_code == 0, result.output
    assert "verified on 16 samples" in result.stdout
    result = invoke("evaluate", model, digits / "test")
    assert result.exit_code == 0, result.output
    assert "of 634 samples" in result.stdout
    picture = next((digits / "test" / "7").iterdir())
    result = invoke("predict", model, picture, "--top", 2)
    assert result.stdout.startswith(f"{picture}: ")
    assert result.stdout.count("%") == 2
    for path, expected in ((digits_artifacts, "kind: artifacts"), (run, "kind: run"), (model, "kind: model")):
        result = invoke("inspect", path)
        assert result.exit_code == 0
        assert expected in result.stdout


def test_json_is_one_object_on_stdout(
    digits: Path, digits_artifacts: Path, digits_run: Path, digits_model: Path, tmp_path: Path
) -> None:
    picture = next((digits / "test" / "7").iterdir())
    for arguments, keys in (
        (("finetune", digits_artifacts, digits / "train", "--out", tmp_path / "run", "--epochs", 1),
         {"run", "val_accuracy", "seconds", "feature_ms_per_image", "peak_rss_mb", "engine", "placement"}),
        (("deploy", digits_run, "--out", tmp_path / "m.onnx"),
         {"model", "accuracy", "largest_difference", "peak_rss_mb"}),
        (("evaluate", digits_model, digits), {"accuracy", "ms_per_image", "seconds", "peak_rss_mb", "placement"}),
        (("predict", digits_model, picture), {"predictions"}),
        (("report", tmp_path / "run"), {"report", "plots", "metric", "figures", "figures_before", "size_kb"}),
        (("runs", tmp_path), {"directory", "runs"}),
        (("inspect", digits_run), {"kind", "args", "history"}),
        (("inspect", digits_artifacts), {"kind", "files", "labels", "features"}),
        (("inspect", digits_model), {"kind", "labels", "preprocessing", "source"}),
    ):  # fmt: skip
        result = invoke(*arguments, "--json")
        assert result.exit_code == 0, result.output
        assert keys <= json.loads(result.stdout).keys()
        assert result.stdout.count("\n") == 1


def test_json_has_the_notes(digits_artifacts: Path, digits: Path, digits_model: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(digits / "train", tmp_path / "data"))
    (data / "6" / "broken.png").write_bytes(b"not a picture")
    result = invoke("finetune", digits_artifacts, data, "--out", tmp_path / "run", "--epochs", 1, "--json")
    notes = json.loads(result.stdout)["notes"]
    assert notes[0].startswith(f"left out {data / '6' / 'broken.png'}: ")
    (data / "8" / "broken.png").write_bytes(b"not a picture")
    result = invoke("predict", digits_model, data / "8" / "broken.png", "--json")
    found = json.loads(result.stdout)
    assert found["error"].startswith(f"{data / '8' / 'broken.png'} ")
    assert len(found["notes"]) == 1
    assert "notes" not in json.loads(invoke("predict", digits_model, next((data / "7").iterdir()), "--json").stdout)


def test_report_and_runs(digits_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "ein Lauf äß 日本"))
    (run / "report.html").unlink()
    result = invoke("report", run)
    assert result.exit_code == 0, result.output
    assert f"{run / 'report.html'} is ready" in result.stdout
    assert (run / "report.html").is_file()
    shutil.copytree(digits_run, tmp_path / "b")
    (tmp_path / "b" / "metrics.json").unlink()
    result = invoke("runs", tmp_path, "--sort", "name")
    assert result.exit_code == 0, result.output
    head, first, second = result.stdout.splitlines()
    assert first.startswith("b ")
    assert "5 of 5" in first
    assert second.startswith(run.name)
    # 日 and 本 are two columns wide
    assert head.index("model") == first.index("edgetl.demo") == second.index("edgetl.demo") + 2
    found = json.loads(invoke("runs", tmp_path, "--json").stdout)
    assert {item["name"] for item in found["runs"]} == {"b", run.name}
    assert invoke("runs", tmp_path, "--sort", "beauty").exit_code == 2


def test_errors_are_one_sentence_and_status_1(
    digits: Path, digits_artifacts: Path, digits_model: Path, digits_run: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in failed(invoke("finetune", digits_artifacts, empty, *out))
    assert "edgetl prepare" in failed(invoke("finetune", empty, digits, *out))
    assert "--resume or --force" in failed(invoke("finetune", digits_artifacts, digits, "--out", digits_run))
    assert "not a run" in failed(invoke("deploy", empty, *out))
    assert "does not exist" in failed(invoke("evaluate", tmp_path / "no.onnx", digits))
    assert "does not exist" in failed(invoke("predict", digits_model, tmp_path / "no.png"))
    assert "a run or a deployed model" in failed(invoke("inspect", empty))
    assert "not a run" in failed(invoke("report", empty))
    assert "no run lies in" in failed(invoke("runs", empty))
    assert not (tmp_path / "out").exists()


def test_errors_as_json(tmp_path: Path) -> None:
    result = invoke("inspect", tmp_path / "nothing", "--json")
    assert result.exit_code == 1
    assert "does not exist" in json.loads(result.stdout)["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("finetune",),
        ("finetune", "a", "b"),
        ("finetune", "a", "b", "--out", "c", "--epochs", "none"),
        ("finetune", "a", "b", "--out", "c", "--resume", "--force"),
        ("finetune", "a", "b", "--out", "c", "--engine", "magic"),
        ("prepare", "timm:x", "--out", "c"),
        ("prepare", "timm:x", "--out", "c", "--labels", "a,b", "--classes", "2"),
        ("prepare", "timm:x", "--out", "c", "--labels", "a,b", "--model-arg", "nonsense"),
        ("prepare", "timm:x", "--out", "c", "--labels", "a,b", "--mean", "dark"),
        ("nothing",),
    ],
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).exit_code == 2


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="needs to mount a small file system")
def test_a_full_disk_is_one_sentence_and_space_lets_it_go_on(
    digits: Path, digits_artifacts: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        arguments = ("finetune", digits_artifacts, digits / "train", "--out", small / "run", "--epochs", 2)
        filler = small / "filler"
        filler.write_bytes(bytes(48 * 1024))
        sentence = failed(invoke(*arguments))
        assert "the disk is full" in sentence
        assert "--resume" in sentence
        assert not list(small.rglob("*.partial"))
        filler.unlink()
        assert invoke(*arguments, "--resume").exit_code == 0
    finally:
        subprocess.run(["umount", small], check=True)


def test_commands_run_as_a_module(digits_artifacts: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "edgetl", "inspect", digits_artifacts], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""


def test_names_cannot_command_the_terminal(digits_artifacts: Path, digits: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(digits / "train", tmp_path / "data"))
    (data / "6" / "\x1b[2J\nError: all is well.png").write_bytes(b"no picture")
    result = invoke("finetune", digits_artifacts, data, "--out", tmp_path / "run", "--epochs", 1)
    assert result.exit_code == 0
    assert "left out" in result.stderr
    assert "\x1b" not in result.stderr
    assert not [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "\x1b" not in failed(invoke("predict", tmp_path / "\x1b[2J.onnx", data))


def test_a_newer_manifest_and_an_altered_file(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(digits_artifacts, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(seal_json({**manifest, "schema_version": 99})))
    assert "update edgetl" in failed(invoke("finetune", copy, digits, "--out", tmp_path / "out"))
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / "backbone.onnx").write_bytes(b"altered")
    assert "backbone.onnx" in failed(invoke("finetune", copy, digits, "--out", tmp_path / "out"))


def test_the_reference_is_what_help_says() -> None:
    from edgetl.cli.reference import reference

    assert (DOCS / "cli.md").read_text(encoding="utf-8") == reference(), "run: python -m edgetl.cli.reference"
