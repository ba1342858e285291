import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgetl import defaults, deploy, evaluate, finetune, predict
from edgetl.data import read_rgb
from edgetl.deployed import DeployedModel
from edgetl.errors import ArtifactsError, DataError, DeployError, EdgetlError, RunError
from edgetl.run import Run


def test_the_file_is_self_contained_and_says_what_it_is(digits_model: Path) -> None:
    model = onnx.load(digits_model)
    onnx.checker.check_model(model)
    assert (model.ir_version, model.opset_import[0].version) == (defaults.IR_VERSION, defaults.OPSET)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["probabilities", "logits"]
    metadata = {item.key: item.value for item in model.metadata_props}
    assert metadata["names"] == "{0: '6', 1: '7', 2: '8', 3: '9'}"
    assert json.loads(metadata["edgetl"])["labels"] == ["6", "7", "8", "9"]


def test_any_size_of_picture_gives_probabilities(digits_model: Path) -> None:
    deployed = DeployedModel(digits_model)
    for height, width in ((24, 24), (1, 1), (300, 17), (5, 400)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        probabilities, logits = deployed(pixels)
        assert probabilities.shape == logits.shape == (4,)
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)
        exponentials = np.exp(logits - logits.max())
        np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(), rtol=1e-4)


def test_its_logits_are_the_engines(digits_run: Path, digits_model: Path) -> None:
    validation = Run(digits_run).read_validation()
    deployed = DeployedModel(digits_model)
    found = np.stack([deployed(read_rgb(Path(path).read_bytes()))[1] for path in validation.paths])
    np.testing.assert_allclose(found, validation.logits, atol=1e-5)


def test_evaluate_counts_what_predict_says(digits_model: Path, digits: Path) -> None:
    measured = evaluate(digits_model, digits)
    assert measured.data == str(digits / "test")
    predictions = predict(digits_model, [digits / "test"], top=2)
    right = [item.label == Path(item.input).parent.name for item in predictions]
    assert measured.samples == len(right) == 634
    assert measured.correct == sum(right)
    assert measured.accuracy == pytest.approx(np.mean(right))
    for item in predictions:
        assert len(item.top) == 2
        assert item.top[0][1] >= item.top[1][1]


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_a_difference_leaves_no_file_and_the_old_one_alone(digits_run: Path, tmp_path: Path) -> None:
    run = Run(copied(digits_run, tmp_path))
    validation = run.read_validation()
    wrong = validation.logits.copy()
    wrong[3, 1] += 0.01
    run.write_validation(type(validation)(validation.paths, validation.digests, validation.labels, wrong))
    with pytest.raises(DeployError, match=r"differ from the run's by 0\.01"):
        deploy(run.path, out=tmp_path / "models" / "model.onnx")
    assert list((tmp_path / "models").iterdir()) == []
    (tmp_path / "models" / "model.onnx").write_text("old")
    with pytest.raises(DeployError):
        deploy(run.path, out=tmp_path / "models" / "model.onnx")
    assert (tmp_path / "models" / "model.onnx").read_text() == "old"


def test_a_changed_or_missing_validation_picture_is_named(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(digits / "train", tmp_path / "data"))
    finetune(digits_artifacts, data, out=tmp_path / "run", epochs=1)
    picture = Path(Run(tmp_path / "run").read_validation().paths[0])
    content = picture.read_bytes()
    picture.unlink()
    with pytest.raises(DeployError, match=picture.name):
        deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    picture.write_bytes(content)
    assert deploy(tmp_path / "run", out=tmp_path / "model.onnx").verified_samples == 16


def test_moved_artifacts(digits_run: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    run = Run(copied(digits_run, tmp_path))
    moved = Path(shutil.copytree(digits_artifacts, tmp_path / "moved"))
    text = (run.path / "args.yaml").read_text()
    (run.path / "args.yaml").write_text(text.replace(str(digits_artifacts.resolve()), str(tmp_path / "gone")))
    with pytest.raises(ArtifactsError, match="gone"):
        deploy(run.path, out=tmp_path / "model.onnx")
    deploy(run.path, out=tmp_path / "model.onnx", artifacts=moved)


def test_an_unfinished_run_and_other_paths(digits_run: Path, tmp_path: Path) -> None:
    run = copied(digits_run, tmp_path)
    (run / "validation.npz").unlink()
    with pytest.raises(RunError, match="--resume"):
        deploy(run, out=tmp_path / "model.onnx")
    with pytest.raises(RunError, match="not a run"):
        deploy(tmp_path / "nothing", out=tmp_path / "model.onnx")
    with pytest.raises(DeployError, match="is a folder"):
        deploy(digits_run, out=tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(DeployError, match=r"model\.onnx"):
        DeployedModel(tmp_path / "model.onnx")


def test_a_model_that_edgetl_did_not_deploy(digits_artifacts: Path) -> None:
    with pytest.raises(EdgetlError, match="none that 'edgetl deploy' wrote"):
        DeployedModel(digits_artifacts / "backbone.onnx")


def test_predict_with_bad_inputs(digits_model: Path, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(DataError, match="does not exist"):
        predict(digits_model, [tmp_path / "nothing.png"])
    with pytest.raises(DataError, match="is not a picture"):
        predict(digits_model, [tmp_path / "note.txt"])
    picture = next((digits / "test" / "6").iterdir())
    assert [item.input for item in predict(digits_model, [tmp_path / "note.txt", picture])] == [str(picture)]
