import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgetl import deploy, predict, verify
from edgetl.cli.main import main
from edgetl.errors import DeployError, EdgetlError
from edgetl.files.seal import seal_json
from edgetl.runs.run import BEST, LAST, METRICS, RESULTS, SAMPLES, VALIDATION, Run


def flip(file: Path, position: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[position % len(data)] ^= 1 << bit
    file.write_bytes(data)


def change(run: Path, **settings: object) -> None:
    Run(run).write_args(dataclasses.replace(Run(run).read_args(), **settings))


def test_what_is_whole(digits_run: Path, digits_artifacts: Path, digits_model: Path) -> None:
    assert verify(digits_artifacts).checked == ("10 files have the SHA-256 that manifest.json lists",)
    found = verify(digits_run)
    assert (found.kind, len(found.checked), found.unchecked) == ("run", 9, ())
    assert any(LAST in phrase for phrase in found.checked)
    assert verify(digits_model).unchecked
    found = verify(digits_model, artifacts=digits_artifacts, run=digits_run)
    assert (found.kind, len(found.checked), found.unchecked) == ("model", 3, ())


def test_a_flipped_bit_anywhere_in_a_prepared_directory(digits_artifacts: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, original in enumerate(sorted(file for file in digits_artifacts.rglob("*") if file.is_file())):
        copy = Path(shutil.copytree(digits_artifacts, tmp_path / str(number)))
        if original.name == "manifest.json":
            continue
        flip(copy / original.relative_to(digits_artifacts), int(rng.integers(1 << 30)), int(rng.integers(8)))
        with pytest.raises(EdgetlError, match="is not the file that was prepared"):
            verify(copy)


@pytest.mark.parametrize("name", [LAST, BEST, VALIDATION, METRICS, SAMPLES, RESULTS, "args.yaml"])
def test_a_flipped_bit_in_a_run(digits_run: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(digits_run, tmp_path / "run"))
    content = (copy / name).read_bytes()
    rng = np.random.default_rng(0)
    for position, bit in zip(rng.integers(0, len(content), 40), rng.integers(0, 8, 40), strict=True):
        flip(copy / name, int(position), int(bit))
        # spaces between the values of JSON mean nothing to anybody, and 1E-8 is 1e-8
        was, before = content[position : position + 1], content[position - 1 : position]
        harmless = name in (METRICS, "args.yaml") and (was.isspace() or (was == b"e" and before.isdigit()))
        with contextlib.suppress(EdgetlError) if harmless else pytest.raises(EdgetlError, match=Path(name).name):
            verify(copy)
        (copy / name).write_bytes(content)
    verify(copy)


@pytest.mark.parametrize("name", ["model.onnx", "model.ort"])
def test_a_flipped_bit_in_a_model(digits_run: Path, digits: Path, tmp_path: Path, name: str) -> None:
    deploy(digits_run, out=tmp_path / name)
    content = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    for position, bit in zip(rng.integers(0, len(content), 40), rng.integers(0, 8, 40), strict=True):
        flip(tmp_path / name, int(position), int(bit))
        for use in (lambda: verify(tmp_path / name), lambda: predict(tmp_path / name, [digits / "test"])):
            with pytest.raises(DeployError, match="altered or damaged"):
                use()
        (tmp_path / name).write_bytes(content)
    (tmp_path / name).write_bytes(content[:-1])
    with pytest.raises(DeployError, match="altered or damaged"):
        verify(tmp_path / name)
    (tmp_path / name).write_bytes(content)
    assert verify(tmp_path / name).checked


def test_an_altered_model(digits_model: Path, tmp_path: Path) -> None:
    model = onnx.load(digits_model)
    tensor = model.graph.initializer[0]
    assert tensor.raw_data
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(DeployError, match="has been altered"):
        verify(tmp_path / "model.onnx")


def test_another_origin(digits_run: Path, digits_model: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(digits_artifacts, tmp_path / "artifacts"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(seal_json({**manifest, "edgetl_version": "0.1.1"})))
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    change(run, seed=1)
    for path, options, message in (
        (digits_run, {"artifacts": other}, "is not the prepared directory that"),
        (digits_model, {"artifacts": other}, "was not made from the prepared directory"),
        (digits_model, {"run": run}, "was not made from the run"),
    ):
        with pytest.raises(EdgetlError, match=message):
            verify(path, **options)


def test_what_cannot_be_compared_is_said(digits_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    change(run, artifacts="/gone")
    assert "give --artifacts DIR" in verify(run).unchecked[0]


def test_the_command(digits_model: Path, tmp_path: Path) -> None:
    good = CliRunner().invoke(main, ["verify", str(digits_model)])
    assert good.stdout.splitlines()[0] == f"{digits_model} (model) is what it says"
    for path in (tmp_path, tmp_path / "nothing"):
        bad = CliRunner().invoke(main, ["verify", str(path)])
        assert (bad.exit_code, bad.stderr[:7]) == (1, "Error: ")
