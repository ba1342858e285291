"""Compare what the same commands gave on aarch64 and on x86-64; see `run`, which lays out the directory."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

SIDES = ("x86_64", "aarch64")  # as platform.machine() says
# float32: ten to twenty times what was measured, and far less than any other arithmetic would differ by
LOSSES, PARAMETERS, LOGITS, PROBABILITIES = 1e-5, 2e-6, 5e-5, 1e-5


@dataclass(frozen=True)
class Row:
    """The largest absolute difference between `count` values on either side, and what is allowed."""

    what: str
    count: int
    largest: float
    allowed: float


def compare(what: str, pair: Iterable[ArrayLike], allowed: float) -> Row:
    """Raises SystemExit if there is nothing to compare, the shapes differ or a value is not finite."""
    one, other = (np.asarray(values, dtype=np.float64) for values in pair)
    if one.shape != other.shape or not one.size:
        raise SystemExit(f"{what}: the shapes are {one.shape} and {other.shape}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise SystemExit(f"{what}: there are values that are not finite")
    return Row(what, one.size, float(np.abs(one - other).max()), allowed)


def check_machines(results: Path) -> None:
    """Raises SystemExit if a side ran on another machine, engine or onnxruntime than it should have."""
    doctors = [read(results / side / "doctor.json") for side in SIDES]
    for side, doctor in zip(SIDES, doctors, strict=True):
        machines = {doctor["machine"], read(results / side / "logits.json")["machine"]}
        if machines != {side}:
            raise SystemExit(f"what should have run on {side} ran on {' and '.join(sorted(machines))}")
        engine = read(results / side / "finetune.json")["engine"]
        if engine != "portable":
            raise SystemExit(f"{side} trained with {engine}, not with the portable engine")
    if doctors[0]["distributions"] != doctors[1]["distributions"]:
        raise SystemExit(f"the sides have {doctors[0]['distributions']} and {doctors[1]['distributions']}")
    for side, doctor in zip(SIDES, doctors, strict=True):
        versions = " ".join(f"{name} {version}" for name, version in doctor["distributions"].items())
        print(f"{side:8} {versions}, Python {doctor['python']}, {doctor['platform']}")


def rows(x86_64: Path, aarch64: Path) -> Iterator[Row]:
    """Compare everything; `x86_64/*-aarch64-model.json` is the model deployed on aarch64, used on x86-64."""
    sides = (x86_64, aarch64)
    # Pillow rotates in floating point, so a pixel may be rounded either way; both sides train on x86_64's
    yield compare("pixels drawn, of 255", (drawings(side / "pictures") for side in sides), 1)
    for column, allowed in (("train_loss", LOSSES), ("val_loss", LOSSES), ("val_accuracy", 0)):
        yield compare(f"{column}, each epoch", (epochs(side / "run", column) for side in sides), allowed)
    for number in ("best_epoch", "val_accuracy"):
        yield compare(f"finetune: {number}", (read(side / "finetune.json")[number] for side in sides), 0)
    for epoch in ("best", "last"):
        weights = (floats(side / "run" / "weights" / f"{epoch}.npz") for side in sides)
        yield compare(f"parameters, {epoch} epoch", weights, PARAMETERS)
    yield compare("engine's validation logits", (floats(side / "run" / "validation.npz") for side in sides), LOGITS)
    yield compare("evaluate: correct pictures", (read(side / "evaluate.json")["correct"] for side in sides), 0)
    yield compare("deployed model's logits", (logits(side / "logits.json") for side in sides), LOGITS)
    yield compare("predict: probabilities", (probabilities(side / "predict.json") for side in sides), PROBABILITIES)
    used = (logits(x86_64 / "logits-aarch64-model.json"), logits(aarch64 / "logits.json"))
    yield compare("model from aarch64: logits", used, LOGITS)
    said = (probabilities(x86_64 / "predict-aarch64-model.json"), probabilities(aarch64 / "predict.json"))
    yield compare("model from aarch64: probabilities", said, PROBABILITIES)


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def drawings(folder: Path) -> NDArray[np.uint8]:
    """Every picture `[N, H, W]`, in the order of their paths."""
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.rglob("*.png"))])


def epochs(run: Path, column: str) -> list[float]:
    with open(run / "results.csv", newline="") as file:
        # epoch 0, the start, has no training loss
        return [float(line[column]) for line in csv.DictReader(file) if line[column]]


def floats(file: Path) -> NDArray[np.float64]:
    """All floating-point arrays of a .npz file, one after the other."""
    with np.load(file) as archive:
        arrays = [archive[name] for name in sorted(archive.files)]
    return np.concatenate([array.ravel() for array in arrays if array.dtype.kind == "f"])


def logits(file: Path) -> list[list[float]]:
    return [values for _, values in sorted(read(file)["logits"].items())]


def probabilities(file: Path) -> list[list[float]]:
    """For each picture the probability of each class, in the order of paths and labels."""
    predictions = sorted(read(file)["predictions"], key=lambda prediction: prediction["input"])
    return [[probability for _, probability in sorted(prediction["top"])] for prediction in predictions]


def timings(results: Path) -> Iterator[str]:
    seconds = {}
    for side in SIDES:
        lines = (results / side / "milliseconds").read_text().splitlines()
        seconds[side] = {name: int(value) / 1e3 for name, value in map(str.split, lines)}
    x86_64, aarch64 = (seconds[side] for side in SIDES)
    for name in aarch64:
        yield f"{name:34}{x86_64[name]:8.1f}{aarch64[name]:10.1f}"
    yield f"{'together':34}{sum(x86_64.values()):8.1f}{sum(aarch64.values()):10.1f}"


def main(results: Path) -> None:
    check_machines(results)
    print(f"{'compared':34}{'values':>8}{'largest':>10}{'allowed':>10}")
    differ = []
    for row in rows(*(results / side for side in SIDES)):
        equal = row.largest <= row.allowed
        print(f"{row.what:34}{row.count:8}{row.largest:10.1e}{row.allowed:10.0e}{'' if equal else '  DIFFERS'}")
        if not equal:
            differ.append(row.what)
    print(f"{'seconds':34}{'x86_64':>8}{'aarch64':>10}", *timings(results), sep="\n")
    if differ:
        raise SystemExit(f"aarch64 and x86-64 differ in: {', '.join(differ)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
