import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from edgetl import defaults, deploy, evaluate, finetune, predict
from edgetl.data.dataset import read_rgb
from edgetl.deployment.deployed import DeployedModel
from edgetl.errors import ArtifactsError, DataError, DeployError, EdgetlError, RunError
from edgetl.runs.run import Run


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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_run_on_rounded_features_is_deployed(digits: Path, digits_artifacts: Path, tmp_path: Path, seed: int) -> None:
    """A float16 cache rounds what trains; the deployed file computes features exactly, so a little differs."""
    options: dict[str, Any] = {"cache_precision": "float16", "seed": seed, "epochs": 2}
    run = finetune(digits_artifacts, digits / "train", out=tmp_path / "run", **options).run
    found = deploy(run, out=tmp_path / "model.onnx")
    assert 1e-5 < found.largest_difference < 0.05
    assert found.compared.worse == found.compared.better == 0


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
    run.write_args(dataclasses.replace(run.read_args(), artifacts=str(tmp_path / "gone")))
    with pytest.raises(ArtifactsError, match="gone"):
        deploy(run.path, out=tmp_path / "model.onnx")
    deploy(run.path, out=tmp_path / "model.onnx", artifacts=moved)


def test_an_unfinished_run_and_other_paths(digits_run: Path, tmp_path: Path) -> None:
    run = copied(digits_run, tmp_path)
    (run / "validation.npz").unlink()
    with pytest.raises(RunError, match="--resume"):
        deploy(run, out=tmp_path / "model.onnx")
    with pytest.raises(RunError, match="does not exist: make one with"):
        deploy(tmp_path / "nothing", out=tmp_path / "model.onnx")
    with pytest.raises(DeployError, match="is a folder"):
        deploy(digits_run, out=tmp_path)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_less_precision_is_measured_and_recorded(digits_run: Path, tmp_path: Path, precision: str) -> None:
    whole = deploy(digits_run, out=tmp_path / "whole.onnx")
    result = deploy(digits_run, out=tmp_path / "model.onnx", precision=precision, max_drop=10)
    assert result.size_mb < 0.7 * whole.size_mb
    assert result.largest_difference > 0
    assert result.figures_before == whole.figures
    assert result.drop == pytest.approx(100 * (whole.accuracy - result.accuracy))
    deployed = DeployedModel(tmp_path / "model.onnx")
    assert deployed.provenance["precision"] == precision
    assert deployed(np.zeros((9, 9, 3), np.uint8))[0].sum() == pytest.approx(1, abs=1e-5)


def test_the_classifier_stays_float_unless_asked(digits_run: Path, tmp_path: Path) -> None:
    deploy(digits_run, out=tmp_path / "a.onnx", precision="int8", max_drop=10)
    deploy(digits_run, out=tmp_path / "b.onnx", precision="int8", quantize_head=True, max_drop=10)
    names = [{tensor.name for tensor in onnx.load(tmp_path / file).graph.initializer} for file in ("a.onnx", "b.onnx")]
    assert "10.weight" in names[0]
    assert "10.weight" not in names[1]


def test_a_drop_that_is_too_large_leaves_no_file(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scrambled(model: onnx.ModelProto) -> onnx.ModelProto:
        for tensor in model.graph.initializer:
            if tensor.name == "10.weight":
                tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
        return model

    # a file that is wrong enough, in place of a conversion that is bad enough
    monkeypatch.setattr("edgetl.quantization.quantize.to_float16", scrambled)
    with pytest.raises(DeployError, match=r"in float16, validation accuracy falls from .* by .* points where 1 are"):
        deploy(digits_run, out=tmp_path / "model.onnx", precision="float16")
    assert list(tmp_path.iterdir()) == []
    assert deploy(digits_run, out=tmp_path / "model.onnx", precision="float16", max_drop=100).drop > 1


def test_a_drop_that_cannot_be_measured_is_refused(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetl.deployment.deploy.figures", lambda *_: {"accuracy": None})
    with pytest.raises(DeployError, match="cannot be measured, because the validation data give no accuracy"):
        deploy(digits_run, out=tmp_path / "model.onnx", precision="float16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", [None, 3])
def test_a_file_for_tensors_takes_batches_and_tells_how_to_make_them(
    digits_run: Path, digits: Path, tmp_path: Path, batch: int | None
) -> None:
    import base64

    import onnxruntime

    file, whole = tmp_path / "tensor.onnx", tmp_path / "model.onnx"
    deploy(digits_run, out=file, input="tensor", batch=batch)
    deploy(digits_run, out=whole)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [batch or "batch", 1, 24, 24]
    # as another program would use it, with nothing of edgetl's but the file
    metadata = session.get_modelmeta().custom_metadata_map
    preprocess = onnxruntime.InferenceSession(
        base64.b64decode(metadata["preprocess.onnx"]), providers=["CPUExecutionProvider"]
    )
    pictures = [read_rgb(path.read_bytes()) for path in sorted((digits / "test" / "7").iterdir())[:3]]
    tensors = np.concatenate([preprocess.run(None, {"image": picture})[0] for picture in pictures])
    probabilities, _ = session.run(None, {session.get_inputs()[0].name: tensors})
    expected = np.stack([DeployedModel(whole)(picture)[0] for picture in pictures])
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    found, same = (predict(path, [digits / "test" / "7"])[5] for path in (file, whole))
    assert (found.label, found.probability) == (same.label, pytest.approx(same.probability))


def test_the_format_of_onnxruntime_mobile(digits_run: Path, digits: Path, tmp_path: Path) -> None:
    result = deploy(digits_run, out=tmp_path / "model.ort")
    assert result.format == "ort"
    assert (tmp_path / "model.ort").read_bytes()[4:8] == b"ORTM"
    deploy(digits_run, out=tmp_path / "model.onnx")
    assert DeployedModel(tmp_path / "model.ort").provenance == DeployedModel(tmp_path / "model.onnx").provenance
    figures = [evaluate(tmp_path / name, digits).figures for name in ("model.ort", "model.onnx")]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 2}, "--input raw takes one sample"),
        ({"quantize_head": True}, "is for --precision int8"),
        ({"precision": "int4"}, "there is no precision 'int4'"),
        ({"input": "file"}, "there is no input 'file'"),
        ({"format": "tflite"}, "there is no format 'tflite'"),
        ({"max_drop": -1}, "max_drop must lie between"),
    ],
)
def test_forms_that_are_refused(digits_run: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(EdgetlError, match=message):
        deploy(digits_run, out=tmp_path / "model.onnx", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_metadata_tell_artifacts_run_and_data(digits_run: Path, digits_artifacts: Path, digits_model: Path) -> None:
    from edgetl.artifacts import load_artifacts
    from edgetl.deployment.compose import run_hash, samples_hash

    provenance = DeployedModel(digits_model).provenance
    assert provenance["artifacts_sha256"] == load_artifacts(digits_artifacts).sha256
    assert provenance["run_sha256"] == run_hash(Run(digits_run))
    assert provenance["samples_sha256"] == samples_hash(Run(digits_run))
    assert provenance["preprocessing"]["resize"] == "squash"
    assert provenance["input"].startswith("uint8 RGB picture")


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(DeployError, match=r"model\.onnx"):
        DeployedModel(tmp_path / "model.onnx")


def test_a_model_that_edgetl_did_not_deploy(digits_artifacts: Path) -> None:
    with pytest.raises(EdgetlError, match="edgetl has not deployed, or that was altered or damaged"):
        DeployedModel(digits_artifacts / "backbone.onnx")


def test_predict_with_bad_inputs(digits_model: Path, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(DataError, match="does not exist"):
        predict(digits_model, [tmp_path / "nothing.png"])
    with pytest.raises(DataError, match="is not a picture"):
        predict(digits_model, [tmp_path / "note.txt"])
    picture = next((digits / "test" / "6").iterdir())
    assert [item.input for item in predict(digits_model, [tmp_path / "note.txt", picture])] == [str(picture)]


def test_a_deployed_file_decodes_as_in_training(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in sorted((digits / "train").iterdir()):
        (data / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:5]:
            # an eighth of it is 80.375 pixels long
            large = Image.open(file).convert("RGB").resize((643, 643), Image.Resampling.BICUBIC)
            large.save(data / folder.name / f"{file.stem}.jpg", quality=90)
    for number, options in enumerate(({}, {"decode": "full"})):
        run, model = tmp_path / f"run{number}", tmp_path / f"{number}.onnx"
        finetune(digits_artifacts, data, out=run, epochs=1, cache=tmp_path / "cache", **options)
        decode = options.get("decode", "scaled")
        assert Run(run).read_args().decode == decode
        # its samples are decoded at the size that they were trained at, or the logits would differ
        assert deploy(run, out=model).largest_difference < 1e-4
        deployed = DeployedModel(model)
        assert deployed.provenance["decode"] == decode
        assert deployed.provenance["at_least"] == (48 if decode == "scaled" else None)
        content = next(data.rglob("*.jpg")).read_bytes()
        sides = {"scaled": 80, "full": 643}
        assert deployed.decode(content)["image"].shape == (sides[decode],) * 2 + (3,)
        for given in sides:
            assert DeployedModel(model, decode=given).decode(content)["image"].shape[0] == sides[given]
        assert evaluate(model, data, decode="full").samples == 20
    with pytest.raises(EdgetlError, match="no decode 'half'"):
        evaluate(model, data, decode="half")
