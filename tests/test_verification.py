import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgetl import deploy, verify
from edgetl.cli import main
from edgetl.errors import EdgetlError
from edgetl.run import BEST, LAST


def flip(file: Path, position: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[position % len(data)] ^= 1 << bit
    file.write_bytes(data)


def test_what_is_whole(digits_run: Path, digits_artifacts: Path, digits_model: Path) -> None:
    assert verify(digits_artifacts).checked == ("10 files have the SHA-256 that manifest.json lists",)
    found = verify(digits_run)
    assert (found.kind, found.unchecked) == ("run", ())
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


@pytest.mark.parametrize("name", [LAST, BEST, "validation.npz"])
def test_a_flipped_bit_in_a_run(digits_run: Path, tmp_path: Path, name: str) -> None:
    size = (digits_run / name).stat().st_size
    for number, position in enumerate(range(200, size - 200, max(1, size // 20))):
        copy = Path(shutil.copytree(digits_run, tmp_path / str(number)))
        flip(copy / name, position, number % 8)
        try:
            verify(copy)
        except EdgetlError:
            continue
        # dates and attributes in the archive's headers mean nothing to anybody
        whole, altered = np.load(digits_run / name), np.load(copy / name)
        assert whole.files == altered.files
        assert all(whole[key].tobytes() == altered[key].tobytes() for key in whole.files)


def test_an_altered_model(digits_model: Path, tmp_path: Path) -> None:
    model = onnx.load(digits_model)
    tensor = model.graph.initializer[0]
    assert tensor.raw_data
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(EdgetlError, match="has been altered"):
        verify(tmp_path / "model.onnx")


def test_another_origin(digits_run: Path, digits_model: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(digits_artifacts, tmp_path / "artifacts"))
    (other / "manifest.json").write_text((other / "manifest.json").read_text().replace('"0.1.0"', '"0.1.1"'))
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    (run / "args.yaml").write_text((run / "args.yaml").read_text().replace("seed: 0", "seed: 1"))
    for path, options, message in (
        (digits_run, {"artifacts": other}, "is not the prepared directory that"),
        (digits_model, {"artifacts": other}, "was not made from the prepared directory"),
        (digits_model, {"run": run}, "was not made from the run"),
    ):
        with pytest.raises(EdgetlError, match=message):
            verify(path, **options)


def test_what_cannot_be_compared_is_said(digits_run: Path, tmp_path: Path) -> None:
    deploy(digits_run, out=tmp_path / "model.ort")
    assert "the format ort" in verify(tmp_path / "model.ort").unchecked[0]
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    (run / "args.yaml").write_text((run / "args.yaml").read_text().replace('artifacts: "', 'artifacts: "/gone'))
    assert "give --artifacts DIR" in verify(run).unchecked[0]


def test_the_command(digits_model: Path, tmp_path: Path) -> None:
    good = CliRunner().invoke(main, ["verify", str(digits_model)])
    assert good.stdout.splitlines()[0] == f"{digits_model} (model) is what it says"
    for path in (tmp_path, tmp_path / "nothing"):
        bad = CliRunner().invoke(main, ["verify", str(path)])
        assert (bad.exit_code, bad.stderr[:7]) == (1, "Error: ")
