"""Arrays and recordings, several labels and numbers, from prepare to predict."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from recordings import tone, wav

from edgetl import deploy, evaluate, finetune, predict, prepare
from edgetl.artifacts import load_artifacts
from edgetl.deployment.deployed import DeployedModel
from edgetl.errors import DataError, DeployError, EdgetlError, RunError
from edgetl.events import Event, Note
from edgetl.runs.run import BEST, Run

SOURCE = """
import torch
from torch import nn

def windows():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv1d(8, 16, 5, padding=2), nn.ReLU(),
                         nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(32, 5))

def table():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))

def sounds():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3))
"""
SHAPE = (3, 24)
PLAIN: dict[str, Any] = {"init": "zero", "schedule": "constant", "warmup": 0.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("source") / "nets.py"
    file.write_text(SOURCE)
    return file


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of windows that differ in the channel that moves, as `x` and `y`; and the same as `x_test`."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = 0.1 * rng.standard_normal((90, *SHAPE))
    x[np.arange(90), y] += np.sin(np.arange(24))
    file = tmp_path_factory.mktemp("windows") / "windows.npz"
    np.savez(file, x=x, y=y, labels=["a", "b", "c"], x_test=x[:30] + 0.01, y_test=y[:30])
    return file


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory, source: Path, windows: Path) -> Path:
    out = tmp_path_factory.mktemp("arrays") / "art"
    prepare(f"{source}:windows", out=out, labels_from=windows, modality="array", input_shape=SHAPE)
    return out


def test_arrays_end_to_end(arrays: Path, windows: Path, tmp_path: Path) -> None:
    manifest = load_artifacts(arrays).manifest
    assert (manifest.labels, manifest.modality, manifest.preprocessing) == (("a", "b", "c"), "array", None)
    assert manifest.inputs[0].shape == SHAPE
    result = finetune(arrays, windows, out=tmp_path / "run", epochs=30, lr=3e-2)
    assert (result.train_samples, result.val_samples, result.metric) == (90, 30, "accuracy")
    assert result.val_accuracy == result.val_metric > 0.9  # type: ignore[operator]
    deployed = deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    assert deployed.verified_samples == 30
    measured = evaluate(tmp_path / "model.onnx", windows)
    assert measured.figures["accuracy"] == measured.accuracy == result.val_accuracy
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    x = np.load(windows)["x_test"].astype(np.float32)
    alone = [session.run(["probabilities"], {"array": row})[0].argmax() for row in x]
    found = predict(tmp_path / "model.onnx", [windows])
    assert [item.input for item in found[-2:]] == ["windows.npz x_test[28]", "windows.npz x_test[29]"]
    assert [item.label for item in found[90:]] == ["abc"[index] for index in alone]


@pytest.mark.parametrize("engine", ["ort-training", "portable"])
def test_numbers_are_learned_whatever_their_size(source: Path, tmp_path: Path, engine: str) -> None:
    prepare(f"{source}:table", out=tmp_path / "art", labels=["far", "near"], modality="array", input_shape=[4],
            task="regression")  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4))
    with open(tmp_path / "t.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["p", "q", "far", "r", "s", "near"])
        writer.writerows([a, b, 5e6 + 1e4 * (a - b), c, d, 1e-3 * (c + d)] for a, b, c, d in x.tolist())
    result = finetune(tmp_path / "art", tmp_path / "t.csv", out=tmp_path / "run", epochs=60, lr=1e-2, engine=engine)
    assert result.metric == "r2"
    assert result.val_metric is not None
    assert result.val_metric > 0.9
    assert result.val_accuracy is None
    args = Run(tmp_path / "run").read_args()
    assert args.input_columns == ("p", "q", "r", "s")
    assert args.target_mean[0] == pytest.approx(5e6, rel=1e-3)
    assert (
        (tmp_path / "run" / "results.csv")
        .read_text()
        .startswith("epoch,train_loss,val_loss,val_r2,val_mae,val_rmse,seconds\n")
    )
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    measured = evaluate(tmp_path / "model.onnx", tmp_path / "t.csv")
    assert measured.figures["r2"] == pytest.approx(result.val_metric, abs=0.1)
    assert measured.per_label["near"]["mae"] < 1e-3  # type: ignore[operator]
    # another order of columns, and no labels
    with open(tmp_path / "new.csv", "w", newline="") as file:
        csv.writer(file).writerows([("s", "r", "q", "p"), x[7, ::-1].tolist()])
    (found,) = predict(tmp_path / "model.onnx", [tmp_path / "new.csv"])
    assert found.values.keys() == {"far", "near"}
    assert found.values["far"] == pytest.approx(5e6 + 1e4 * (x[7, 0] - x[7, 1]), abs=5e3)
    values, logits = DeployedModel(tmp_path / "model.onnx")(x[7].astype(np.float32))
    np.testing.assert_allclose(values, logits * np.array(args.target_std) + np.array(args.target_mean), rtol=1e-6)


def test_regression_is_that_of_torch(source: Path, tmp_path: Path) -> None:
    """Standardised targets, mean squared error and AdamW in torch end in the same predictions."""
    import torch

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((40, 4)).astype(np.float32), 100 + 7 * rng.standard_normal(40)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    for loss, function in (("mean_squared_error", torch.nn.functional.mse_loss), ("l1", torch.nn.functional.l1_loss)):
        art, run = tmp_path / loss, tmp_path / f"run-{loss}"
        prepare(f"{source}:table", out=art, classes=1, modality="array", input_shape=[4], task="regression", loss=loss)
        finetune(art, tmp_path / "d.npz", out=run, epochs=3, batch_size=15, lr=1e-2, val_fraction=0, **PLAIN)
        from edgetl.data.dataset import Wanted, open_training
        from edgetl.training.features import extract_features

        samples = open_training(tmp_path / "d.npz", None, Wanted("array", "regression", shape=(4,)))[0].samples
        features = torch.from_numpy(extract_features(load_artifacts(art), samples).batch(np.arange(40))[0])
        targets = torch.from_numpy(((y - y.mean()) / y.std()).astype(np.float32))[:, None]
        head = torch.nn.Linear(32, 1)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
        for epoch in (1, 2, 3):
            order = np.random.default_rng([0, epoch]).permutation(40)
            for batch in (order[:15], order[15:30], order[30:]):
                optimizer.zero_grad()
                function(head(features[batch]), targets[batch]).backward()
                optimizer.step()
        best = Run(run).read_checkpoint(BEST)
        assert best is not None
        for name, found in best.parameters.items():
            expected = head.weight if name.endswith("weight") else head.bias
            np.testing.assert_allclose(found, expected.detach().numpy(), atol=2e-5)


@pytest.mark.parametrize("engine", ["ort-training", "portable"])
def test_several_labels(source: Path, tmp_path: Path, engine: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (120, 3))
    x = 0.1 * rng.standard_normal((120, *SHAPE)) + y[:, :, None] * np.sin(np.arange(24))
    np.savez(tmp_path / "d.npz", x=x, y=y, labels=["a", "b", "c"])
    prepare(f"{source}:windows", out=tmp_path / "art", labels_from=tmp_path / "d.npz", modality="array",
            input_shape=SHAPE, task="multilabel")  # fmt: skip
    result = finetune(tmp_path / "art", tmp_path / "d.npz", out=tmp_path / "run", epochs=40, lr=5e-2, engine=engine)
    assert result.metric == "macro_f1"
    assert result.val_metric is not None
    assert result.val_metric > 0.8
    assert result.val_figures["macro_f1"] == result.val_metric
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    probabilities, logits = DeployedModel(tmp_path / "model.onnx")(x[0].astype(np.float32))
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    found = predict(tmp_path / "model.onnx", [tmp_path / "d.npz"])
    right = [
        set(item.labels) == {name for name, has in zip("abc", row, strict=True) if has}
        for item, row in zip(found, y, strict=True)
    ]
    measured = evaluate(tmp_path / "model.onnx", tmp_path / "d.npz")
    assert measured.figures["exact_match"] == pytest.approx(np.mean(right))
    assert measured.per_label["b"]["support"] == y[:, 1].sum()


def test_a_resumed_regression_is_the_whole_one(source: Path, tmp_path: Path) -> None:
    prepare(f"{source}:table", out=tmp_path / "art", classes=1, modality="array", input_shape=[4], task="regression")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.standard_normal((50, 4)), y=rng.standard_normal(50))
    finetune(tmp_path / "art", tmp_path / "d.npz", out=tmp_path / "whole", epochs=4)
    for epochs in (2, 4):
        finetune(tmp_path / "art", tmp_path / "d.npz", out=tmp_path / "parts", epochs=epochs, resume=True)
    states = [Run(tmp_path / name).read_checkpoint("weights/last.npz") for name in ("whole", "parts")]
    assert states[0] is not None
    assert states[1] is not None
    assert states[0].engine_state == states[1].engine_state
    np.savez(tmp_path / "d.npz", x=rng.standard_normal((50, 4)), y=rng.standard_normal(50))
    with pytest.raises(RunError, match="have changed"):
        finetune(tmp_path / "art", tmp_path / "d.npz", out=tmp_path / "parts", epochs=5, resume=True)
    with pytest.raises(DeployError, match=r"d\.npz x\[\d+\] has been changed"):
        deploy(tmp_path / "parts", out=tmp_path / "model.onnx")


def test_duplicates_across_the_split_are_reported(arrays: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((12, *SHAPE))
    y = np.arange(12) % 3
    np.savez(tmp_path / "d.npz", x=x, y=y, x_val=np.concatenate([x[:2], x[:3] + 1]), y_val=y[:5])
    events: list[Event] = []
    result = finetune(arrays, tmp_path / "d.npz", out=tmp_path / "run", epochs=1, on_event=events.append)
    assert result.duplicates == json.loads((tmp_path / "run" / "metrics.json").read_text())["duplicates"] == 2
    (note,) = [e.text for e in events if isinstance(e, Note) and "same content" in e.text]
    assert note.startswith("2 of 5 validation samples")
    assert "d.npz x_val[0] is d.npz x[0]" in note


def test_rows_that_are_not_finite_are_left_out(arrays: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((12, *SHAPE))
    x[4, 1, 1], x[7, 0, 0] = np.nan, 1e300
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(12) % 3)
    result = finetune(arrays, tmp_path / "d.npz", out=tmp_path / "run", epochs=1)
    why = "holds numbers that are not finite, or too large for 32 bits (3.4e38)"
    assert result.rejected == (("d.npz x[4]", why), ("d.npz x[7]", why))
    with pytest.raises(DataError, match=r"samples of \[3, 24\]"):
        np.savez(tmp_path / "e.npz", x=x[:, :2], y=np.arange(12) % 3)
        finetune(arrays, tmp_path / "e.npz", out=tmp_path / "run2")


def write_sounds(root: Path, *, rate: int = 8000) -> Path:
    rng = np.random.default_rng(0)
    for name, hertz in (("high", 2200.0), ("low", 300.0)):
        (root / name).mkdir(parents=True)
        for number in range(8):
            count = int(rate * (0.3 + 0.1 * number))
            values = tone(count, hertz * (1 + 0.02 * number), rate) + 0.02 * rng.standard_normal(count)
            (root / name / f"{number}.wav").write_bytes(wav(np.clip(values, -1, 1), 2, rate))
    return root


def test_recordings_end_to_end(source: Path, tmp_path: Path) -> None:
    data = write_sounds(tmp_path / "sounds")
    (data / "low" / "broken.wav").write_bytes(b"RIFF....WAVE")
    fields = {"sample_rate": 8000, "seconds": 0.5, "n_fft": 256, "hop_length": 128, "mels": 24}
    prepare(f"{source}:sounds", out=tmp_path / "art", labels_from=data, modality="audio", audio=fields)
    result = finetune(tmp_path / "art", data, out=tmp_path / "run", epochs=20, lr=1e-2)
    assert result.rejected == ((str(data / "low" / "broken.wav"), "is truncated (it holds no samples)"),)
    assert result.val_accuracy == 1
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert [value.name for value in model.graph.input] == ["audio"]
    assert {opset.domain for opset in model.opset_import} == {""}
    other_rate = write_sounds(tmp_path / "other", rate=22050)
    assert evaluate(tmp_path / "model.onnx", other_rate).accuracy == 1
    table = tmp_path / "sounds.jsonl"
    table.write_text("".join(json.dumps({"audio": f"sounds/{name}/0.wav"}) + "\n" for name in ("low", "high")))
    assert [item.label for item in predict(tmp_path / "model.onnx", [table])] == ["low", "high"]


def write_long_sounds(root: Path) -> Path:
    """A second of each class's tone in every recording of three to five, at another place each; noise elsewhere."""
    rng = np.random.default_rng(0)
    for name, hertz in (("high", 2200.0), ("low", 300.0)):
        (root / name).mkdir(parents=True)
        for number in range(5):
            values = 0.02 * rng.standard_normal(8000 * (3 + number % 3))
            start = 4000 * (number % 4)
            values[start : start + 8000] += tone(8000, hertz * (1 + 0.02 * number), 8000)
            (root / name / f"{number}.wav").write_bytes(wav(np.clip(values, -1, 1), 2, 8000))
    return root


def test_windows_of_long_recordings(source: Path, tmp_path: Path) -> None:
    data = write_long_sounds(tmp_path / "long")
    fields = {"sample_rate": 8000, "seconds": 1.0, "n_fft": 256, "hop_length": 128, "mels": 24}
    prepare(f"{source}:sounds", out=tmp_path / "art", labels_from=data, modality="audio", audio=fields)
    events: list[Event] = []
    whole = finetune(tmp_path / "art", data, out=tmp_path / "whole", epochs=1, on_event=events.append)
    assert (whole.train_samples, whole.val_samples) == (8, 2)
    assert any("10 of 10 recordings last longer than the 1 s" in e.text for e in events if isinstance(e, Note))

    options: dict[str, Any] = {"hop": 0.5, "epochs": 4, "lr": 1e-2, "class_weights": "balanced"}
    result = finetune(tmp_path / "art", data, out=tmp_path / "run", **options)
    # of 3, 4 and 5 seconds: 5, 7 and 9 windows, each of its own features
    assert result.train_samples + result.val_samples == result.features_computed == 2 * (5 + 7 + 9 + 5 + 7)
    assert result.duplicates == 0
    used = list(Run(tmp_path / "run").read_samples())
    parts = {part: {sample.name.split(",")[0] for sample in used if sample.part == part} for part in ("train", "val")}
    assert (len(parts["train"]), len(parts["val"])) == (8, 2)
    assert not parts["train"] & parts["val"]
    assert all(sample.name.endswith(" s") for sample in used)
    assert (tmp_path / "run" / "report.html").read_text().count("validation windows")

    finetune(tmp_path / "art", data, out=tmp_path / "resumed", **{**options, "epochs": 2}, **PLAIN)
    again = finetune(tmp_path / "art", data, out=tmp_path / "resumed", resume=True, **options, **PLAIN)
    assert (again.features_computed, again.features_reused) == (0, 66)
    finetune(tmp_path / "art", data, out=tmp_path / "straight", **options, **PLAIN)
    first, second = (Run(tmp_path / name).read_checkpoint(BEST) for name in ("resumed", "straight"))
    assert first is not None
    assert second is not None
    for name, values in first.parameters.items():
        np.testing.assert_array_equal(values, second.parameters[name])
    with pytest.raises(RunError, match=r"hop was 0\.5 and is now 1"):
        finetune(tmp_path / "art", data, out=tmp_path / "resumed", resume=True, **{**options, "hop": 1.0}, **PLAIN)

    deployed = deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    assert deployed.verified_samples == result.val_samples
    # what a run that is not finished lacks is computed anew, for the same windows
    for name in ("metrics.json", "validation.npz"):
        (tmp_path / "run" / name).unlink()
    unfinished = deploy(tmp_path / "run", out=tmp_path / "again.onnx")
    assert (unfinished.verified_samples, unfinished.figures) == (result.val_samples, deployed.figures)
    assert evaluate(tmp_path / "model.onnx", data, hop=0.5).samples == 66
    smaller = deploy(tmp_path / "run", out=tmp_path / "int8.onnx", precision="int8", max_drop=100)
    assert smaller.verified_samples == result.val_samples
    path = data / "low" / "3.wav"
    found = predict(tmp_path / "model.onnx", [path], hop=0.5)
    assert [(item.start, item.end) for item in found] == [(0.5 * i, 0.5 * i + 1) for i in range(5)]
    assert {item.input for item in found} == {str(path)}
    (middle,) = predict(tmp_path / "model.onnx", [path])
    assert (middle.start, middle.end, middle.silent) == (None, None, False)
    assert middle.top == found[2].top  # of three seconds, from the first to the second
    model = DeployedModel(tmp_path / "model.onnx")
    slid = list(model.slide(model.decode.whole(path.read_bytes())["audio"], hop=0.5))
    assert [answer.max() for _, _, answer, _ in slid] == [item.probability for item in found]
    assert [(start, end) for start, end, _, _ in slid] == [(item.start, item.end) for item in found]
    with pytest.raises(DataError, match=r"--window of at most 1"):
        predict(tmp_path / "model.onnx", [path], window=1.5)


def test_silence_is_told(source: Path, tmp_path: Path) -> None:
    data = write_long_sounds(tmp_path / "long")
    fields = {"sample_rate": 8000, "seconds": 1.0, "n_fft": 256, "hop_length": 128, "mels": 24}
    prepare(f"{source}:sounds", out=tmp_path / "art", labels_from=data, modality="audio", audio=fields)
    finetune(tmp_path / "art", data, out=tmp_path / "run", epochs=1)
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    quiet = np.concatenate([tone(8000, 300.0, 8000), np.zeros(16000), tone(8000, 300.0, 8000)])
    (tmp_path / "quiet.wav").write_bytes(wav(quiet, 2, 8000))
    (whole,) = predict(tmp_path / "model.onnx", [tmp_path / "quiet.wav"])
    assert whole.silent
    found = predict(tmp_path / "model.onnx", [tmp_path / "quiet.wav"], window=1.0)
    assert [item.silent for item in found] == [False, True, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "array"}, "--input-shape"),
        ({"modality": "array", "input_shape": [3, 0]}, "--input-shape"),
        ({"modality": "image", "input_shape": [3, 4]}, "--input-shape"),
        ({"modality": "smell"}, "no modality"),
        ({"modality": "audio", "audio": {"rate": 1}}, "no field rate"),
        ({"modality": "array", "input_shape": [4, 24]}, "does not take samples of 4×24"),
    ],
)
def test_inputs_that_make_no_sense(source: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgetlError, match=message):
        prepare(f"{source}:windows", out=tmp_path / "art", classes=2, **options)
    assert not (tmp_path / "art").exists()


def test_a_label_that_no_training_sample_has_is_told(source: Path, tmp_path: Path) -> None:
    y = np.tile([[1, 0, 0], [0, 1, 0]], (6, 1))
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).standard_normal((12, *SHAPE)), y=y, labels=["a", "b", "c"])
    prepare(f"{source}:windows", out=tmp_path / "art", labels_from=tmp_path / "d.npz", modality="array",
            input_shape=SHAPE, task="multilabel")  # fmt: skip
    events: list[Event] = []
    finetune(tmp_path / "art", tmp_path / "d.npz", out=tmp_path / "run", epochs=1, on_event=events.append)
    assert any(isinstance(e, Note) and "has the label 'c'" in e.text for e in events)
