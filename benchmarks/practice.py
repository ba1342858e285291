"""The defaults on real data: accuracy, log loss and calibration of deployed files beside other linear heads.

    python benchmarks/practice.py --datasets DIR --pretrained DIR --encoder DIR [--only recycling …] [--draws 3]

For each data set and network: `prepare`, then, of 5, 20 and all samples of each class, `finetune` and `deploy` with
no options but the paths, and the probabilities that the deployed file gives on the test part. On the same features,
standardised: scikit-learn's LogisticRegressionCV (its default penalties, five stratified folds, fewer where a class
has fewer samples), with the penalty chosen by log loss and, as its default is, by accuracy; and a linear layer as
PyTorch's transfer-learning tutorial trains one (SGD, rate 0.001, momentum 0.9, batch 4, 25 epochs, every 7 of them
with a tenth of the rate). `--train POLICY` compares with the head alone instead.

A cell is accuracy, log loss and expected calibration error (15 bins), means over draws. `floor` is the calibration
error that a calibrated model with edgetl's confidences would have by chance on so few test samples.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import edgetl
from edgetl.artifacts import load_artifacts
from edgetl.data.dataset import open_training, wanted_by
from edgetl.training.features import extract_features

HERE = Path(__file__).parent
MOBILENET = {
    "source": "timm:mobilenetv2_100",
    "weights": "mobilenetv2_100_imagenet.safetensors",
    "model_args": {"num_classes": 1001, "pad_type": "same", "bn_eps": 1e-3},
    "preprocessing": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"},
}
EFFICIENTNET = {
    "source": "timm:tf_efficientnet_lite0",
    "weights": "efficientnet-lite0/tf_efficientnet_lite0.safetensors",
}
SPEECH = {
    "source": "speech-embedding/embedding_model.onnx",
    "modality": "audio",
    "append_head": True,
    "audio": {
        **{"seconds": 0.782, "scale": 32768.0, "n_fft": 512, "win_length": 400, "center": False, "mels": 32},
        **{"f_min": 60.0, "f_max": 3800.0, "mel_scale": "slaney", "log": "decibel", "log_offset": 1e-10},
        **{"top_db": 80.0, "mean": -20.0, "std": 10.0, "time_first": True, "channels_last": True},
    },
}
ENCODER = {"source": "hf:"}
ROCKET = {"source": f"{HERE / 'practice_nets.py'}:build", "modality": "array"}
PAIRS: dict[str, dict[str, dict[str, Any]]] = {
    **{name: {"mobilenetv2": MOBILENET, "efficientnet-lite0": EFFICIENTNET} for name in ("ants-bees", "recycling")},
    "cifar10": {"mobilenetv2": MOBILENET, "efficientnet-lite0": EFFICIENTNET},
    **{name: {"minilm": ENCODER} for name in ("banking77", "clinc150")},
    **{name: {"speech-embedding": SPEECH} for name in ("keywords", "spoken-digits")},
    "wand-spells": {"rocket": {**ROCKET, "shape": "9x119"}},
    "wand-strokes": {"rocket": {**ROCKET, "shape": "3x100"}},
    "watch-motions": {"rocket": {**ROCKET, "shape": "6x100"}},
}
METHODS = ["edgetl", "logistic regression", "by accuracy", "tutorial"]
BINS = 15


@dataclass(frozen=True)
class Row:
    """Figures of one method on one data set and size, one for each draw."""

    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Measure probabilities `[N, K]`."""
        right = probabilities.argmax(1) == labels
        self.accuracy.append(float(right.mean()))
        self.loss.append(float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean()))
        sure = probabilities.max(1)
        self.error.append(calibration_error(sure, right))
        rng = np.random.default_rng(0)
        self.floor.append(float(np.mean([calibration_error(sure, rng.random(len(sure)) < sure) for _ in range(100)])))

    def mean(self) -> tuple[float, float, float, float]:
        """Of all draws."""
        return tuple(float(np.mean(values)) for values in (self.accuracy, self.loss, self.error, self.floor))  # type: ignore[return-value]


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017), bins of equal width."""
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return sum(
        float((bins == k).mean() * abs(right[bins == k].mean() - sure[bins == k].mean())) for k in np.unique(bins)
    )


def drawn(data: Path, size: int | None, draw: int, out: Path) -> Path | None:
    """So many samples of each class, as a folder of links or a table; None if there are no more than `size` of any."""
    rng = np.random.default_rng([size or 0, draw])
    if data.is_dir():
        classes = {folder.name: sorted(folder.iterdir()) for folder in sorted(data.iterdir()) if folder.is_dir()}
    else:
        with open(data, newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        classes = {}
        for line in lines:
            classes.setdefault(line["label"], []).append(line)  # type: ignore[arg-type]
    if size is None:
        return data if draw == 0 else None
    if max(map(len, classes.values())) <= size:
        return None
    chosen = {name: [items[i] for i in rng.permutation(len(items))[:size]] for name, items in sorted(classes.items())}
    if not data.is_dir():
        out = out.with_suffix(".csv")
        with open(out, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["text", "label"])
            writer.writeheader()
            writer.writerows(line for lines in chosen.values() for line in lines)  # type: ignore[misc]
        return out
    for name, files in chosen.items():
        (out / name).mkdir(parents=True)
        for file in files:
            (out / name / file.name).symlink_to(file.resolve())
    return out


def features_of(artifacts: Path, data: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """What enters the head, `[N, D]`, and labels `[N]`."""
    prepared = load_artifacts(artifacts)
    dataset, _ = open_training(data, None, wanted_by(prepared.manifest, prepared.manifest.labels, (), ()))
    found = extract_features(prepared, dataset.samples, cache=cache)
    x = np.array(found.tensors[0][found.rows], np.float64).reshape(len(found.rows), -1)
    return x, np.array([sample.label for sample in found.samples])


def logistic_regression(x: np.ndarray, y: np.ndarray, test: np.ndarray, scoring: str | None) -> np.ndarray:
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(max(2, min(5, np.bincount(y).min())), shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(cv=folds, scoring=scoring, max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model.fit(x, y).predict_proba(test))


def tutorial(x: np.ndarray, y: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    import torch

    torch.manual_seed(0)
    inputs, labels = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)
    layer = torch.nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.001, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.1)
    for _ in range(25):
        for batch in torch.randperm(len(y)).split(4):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        return np.asarray(layer(torch.from_numpy(test.astype(np.float32))).softmax(1).double().numpy())


def probabilities(model: Path, test: Path, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What the deployed file gives, `[N, K]`, and what is right, `[N]`."""
    found = edgetl.predict(model, [test], top=len(labels))
    if test.is_dir():
        truth = [Path(one.input).parent.name for one in found]
    else:
        with open(test, newline="", encoding="utf-8") as stream:
            truth = [line["label"] for line in csv.DictReader(stream)]
    assert len(truth) == len(found), "nothing was left out"
    given = [[dict(one.top)[label] for label in labels] for one in found]
    return np.array(given), np.array([labels.index(name) for name in truth])


def measure(name: str, network: str, given: argparse.Namespace, work: Path) -> Iterator[tuple[str, dict[str, Row]]]:
    """Yield, for each size, the figures of each method."""
    options = dict(PAIRS[name][network])
    source, data = options.pop("source"), given.datasets / name
    if source == "hf:":
        source += str(given.encoder)
    elif source.endswith(".onnx"):
        source = str(given.pretrained / source)
    if "weights" in options:
        options["weights"] = given.pretrained / options["weights"]
    os.environ["PRACTICE_SHAPE"] = shape = options.pop("shape", "")
    if shape:
        options["input_shape"] = tuple(map(int, shape.split("x")))
    train = data / "train" if (data / "train").is_dir() else data / "train.csv"
    test = data / "test" if (data / "test").is_dir() else data / "test.csv"
    cache = work / "cache"
    policies = ["head", *([given.train] if given.train else [])]
    for policy in policies:
        edgetl.prepare(source, out=work / policy, labels_from=train, train=[policy], **options)
    labels = load_artifacts(work / "head").manifest.labels
    test_x, _ = features_of(work / "head", test, cache) if not given.train else (np.empty(0), None)
    for size in given.sizes:
        rows: dict[str, Row] = {}
        for draw in range(given.draws):
            samples = drawn(train, None if size == "all" else int(size), draw, work / f"{size}-{draw}")
            if samples is None:
                continue
            for policy in policies:
                run, model = work / "run", work / "model.onnx"
                edgetl.finetune(work / policy, samples, out=run, cache=cache, force=True)
                edgetl.deploy(run, out=model)
                found, truth = probabilities(model, test, labels)
                rows.setdefault(policy if given.train else "edgetl", Row()).add(found, truth)
            if given.train:
                continue
            x, y = features_of(work / "head", samples, cache)
            for method, found in (
                ("logistic regression", logistic_regression(x, y, test_x, "neg_log_loss")),
                ("by accuracy", logistic_regression(x, y, test_x, None)),
                ("tutorial", tutorial(x, y, test_x, len(labels))),
            ):
                rows.setdefault(method, Row()).add(found, truth)
        if rows:
            yield size, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="a sentence encoder in Transformers' layout, for the texts")
    parser.add_argument("--only", nargs="*", default=list(PAIRS), choices=list(PAIRS), metavar="DATA")
    parser.add_argument("--networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--sizes", nargs="*", default=["5", "20", "all"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--train", metavar="POLICY")
    parser.add_argument("--json", type=Path, help="a file to append each row's draws to")
    given = parser.parse_args()
    methods = ["head", given.train] if given.train else METHODS
    print(f"| data, network, samples of each class | {' | '.join(methods)} | floor |")
    print(f"|---|{'---:|' * (len(methods) + 1)}")
    for name in given.only:
        for network in given.networks or PAIRS[name]:
            if network not in PAIRS[name] or (PAIRS[name][network] is ENCODER and given.encoder is None):
                continue
            with tempfile.TemporaryDirectory() as folder:
                for size, rows in measure(name, network, given, Path(folder)):
                    means = {method: row.mean() for method, row in rows.items()}
                    cells = [
                        f"{accuracy:.1%} {loss:.3f} {error:.3f}" for accuracy, loss, error, _ in map(means.get, methods)
                    ]  # type: ignore[misc]
                    floor = f"{means[methods[0]][3]:.3f}"
                    print(f"| {name}, {network}, {size} | {' | '.join(cells)} | {floor} |", flush=True)
                    if given.json:
                        with open(given.json, "a", encoding="utf-8") as stream:
                            for method, row in rows.items():
                                print(json.dumps([name, network, size, method, vars(row)]), file=stream)


if __name__ == "__main__":
    main()
