"""Prepared directories, runs, caches and deployed models, damaged by accident or made by an enemy.

What is damaged by accident is refused, or the damage meant nothing: what was read is what had been written. An enemy
can give every hash its right value; then anything may come out but a traceback, a hang, or a file elsewhere.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import engines
from damage import damaged, withstand

from edgetl import deploy, describe, finetune, plan, predict, verify, write_report
from edgetl.artifacts import MANIFEST, TensorSpec, load_artifacts
from edgetl.deployment.deployed import METADATA_EDGETL, DeployedModel
from edgetl.errors import ArtifactsError, DeployError, EdgetlError, RunError
from edgetl.files.seal import seal_json, seal_model
from edgetl.runs.run import BEST, LAST, METRICS, RESULTS, SAMPLES, VALIDATION, Run
from edgetl.training.features import FeatureCache

SEED = 20261127


def times(few: int, many: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("times", [few, pytest.param(many, marks=pytest.mark.long)])


# by accident


@times(100, 2000)
def test_a_manifest(digits_artifacts: Path, tmp_path: Path, times: int) -> None:
    directory = Path(shutil.copytree(digits_artifacts, tmp_path / "artifacts"))
    content, expected = (directory / MANIFEST).read_bytes(), load_artifacts(digits_artifacts).manifest

    def case(rng: random.Random) -> None:
        (directory / MANIFEST).write_bytes(damaged(content, rng))
        assert load_artifacts(directory).manifest == expected

    withstand(case, times=times, seed=SEED, refusal=ArtifactsError, both=False)


def plain(value: Any) -> Any:
    """Something that compares by content."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return (value.dtype.str, value.tolist()) if isinstance(value, np.ndarray) else value


READERS: dict[str, Callable[[Run], Any]] = {
    LAST: lambda run: run.read_checkpoint(LAST),
    BEST: lambda run: run.read_checkpoint(BEST, engine_state=False),
    VALIDATION: lambda run: run.read_validation(),
    METRICS: lambda run: run.read_metrics(),
    "args.yaml": lambda run: run.read_args(),
}


@pytest.mark.parametrize("name", READERS)
@times(60, 800)
def test_a_file_of_a_run(digits_run: Path, tmp_path: Path, name: str, times: int) -> None:
    run = Run(Path(shutil.copytree(digits_run, tmp_path / "run")))
    content, expected = (run.path / name).read_bytes(), plain(READERS[name](run))

    def case(rng: random.Random) -> None:
        (run.path / name).write_bytes(damaged(content, rng))
        assert plain(READERS[name](run)) == expected

    withstand(case, times=times, seed=SEED, refusal=RunError, both=False)


@pytest.mark.parametrize("name", [RESULTS, SAMPLES])
@times(25, 600)
def test_a_table_of_a_run(digits_run: Path, tmp_path: Path, name: str, times: int) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    content = (run / name).read_bytes()

    def case(rng: random.Random) -> None:
        (run / name).write_bytes(damaged(content, rng))
        # whoever only looks at the table may see other figures; whoever asks is told
        write_report(run)
        if (run / name).read_bytes() != content:
            with pytest.raises(RunError):
                verify(run)

    withstand(case, times=times, seed=SEED, refusal=EdgetlError, both=False)


@pytest.mark.parametrize("name", ["model.onnx", "model.ort"])
@times(60, 800)
def test_a_deployed_model(digits_run: Path, tmp_path: Path, name: str, times: int) -> None:
    model = tmp_path / name
    deploy(digits_run, out=model)
    content = model.read_bytes()

    def case(rng: random.Random) -> None:
        model.write_bytes(damaged(content, rng))
        DeployedModel(model)
        assert model.read_bytes() == content

    withstand(case, times=times, seed=SEED, refusal=DeployError, both=False)


@pytest.mark.parametrize("name", ["features.bin", "index.bin"])
@times(100, 1500)
def test_a_feature_cache(tmp_path: Path, name: str, times: int) -> None:
    specs = (TensorSpec("a", (2, 3)), TensorSpec("b", ()))
    rng = np.random.default_rng(SEED)
    records = {rng.bytes(16): rng.standard_normal(7).astype("<f4").tobytes() for _ in range(12)}
    with FeatureCache(tmp_path, specs) as cache:
        for digest, record in records.items():
            cache.append(digest, record)
    files = {file: (tmp_path / file).read_bytes() for file in ("features.bin", "index.bin")}

    def case(rng: random.Random) -> None:
        for file, content in files.items():
            (tmp_path / file).write_bytes(damaged(content, rng) if file == name else content)
        with FeatureCache(tmp_path, specs) as cache:
            a, b = cache.tensors()
            for digest, record in records.items():
                row = cache.row(digest)
                assert row is None or a[row].tobytes() + b[row].tobytes() == record
            # and it can be filled again
            for digest in (digest for digest in records if cache.row(digest) is None):
                cache.append(digest, records[digest])
        with FeatureCache(tmp_path, specs) as cache:
            assert all(cache.row(digest) is not None for digest in records)

    withstand(case, times=times, seed=SEED, refusal=EdgetlError, both=False)


# by an enemy, whose hashes are right

VALUES = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**6, 10**12, 2**63, -(2**63), 10**400, 0.0, 0.5, -1.5, 1e308, float("nan")),
    *(float("inf"), "", "x", "../x", "/etc/passwd", "\0", "é" * 300, "cross_entropy", "regression", "text", "audio"),
    *("portable", "ort-training", "int8", "array", [], {}, [[]], [1], ["a", "a"], [{}], {"a": 1}, [1, 24, 24]),
)


def altered(data: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return JSON data with up to three values replaced, removed, doubled or added."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        parent: Any = data
        while True:
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(parent[key], dict | list) and rng.random() < 0.7:
                parent = parent[key]
                continue
            action = rng.random()
            if action < 0.6:
                parent[key] = copy.deepcopy(rng.choice(VALUES))
            elif action < 0.75:
                del parent[key]
            elif action < 0.9 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
                parent[key] = parent[key] * rng.choice((-1, 0, 2, 10))
            elif isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            else:
                parent[str(key) + "2"] = copy.deepcopy(parent[key])
            break
    return data


def use(artifacts: Path, data: Path, work: Path, engine: str) -> None:
    """Do what one does with a prepared directory."""
    load_artifacts(artifacts)
    describe(artifacts)
    plan(artifacts, device="raspberry-pi-4")
    finetune(artifacts, data, out=work / "run", cache=work / "cache", epochs=1, engine=engine, lr=0.01, force=True)
    deploy(work / "run", out=work / "model.onnx")
    predict(work / "model.onnx", [next((data / "6").iterdir())])


@pytest.fixture
def few_digits(digits: Path, tmp_path: Path) -> Path:
    for label in "6789":
        (tmp_path / "few" / label).mkdir(parents=True)
        for file in sorted((digits / "train" / label).iterdir())[:5]:
            shutil.copy(file, tmp_path / "few" / label)
    return tmp_path / "few"


def everything(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


@pytest.mark.parametrize("engine", engines())
@times(25, 700)
def test_a_made_up_manifest(digits_artifacts: Path, few_digits: Path, tmp_path: Path, engine: str, times: int) -> None:
    directory = Path(shutil.copytree(digits_artifacts, tmp_path / "artifacts"))
    manifest, before = json.loads((directory / MANIFEST).read_bytes()), everything(tmp_path)

    def case(rng: random.Random) -> None:
        (directory / MANIFEST).write_text(json.dumps(seal_json(altered(manifest, rng))))
        use(directory, few_digits, tmp_path / "work", engine)

    withstand(case, times=times, seed=SEED, refusal=EdgetlError, both=False)
    assert {path for path in everything(tmp_path) - before if not path.is_relative_to(tmp_path / "work")} == set()


@pytest.mark.parametrize("engine", engines())
@times(15, 300)
def test_a_damaged_file_that_the_manifest_describes(
    digits_artifacts: Path, few_digits: Path, tmp_path: Path, engine: str, times: int
) -> None:
    manifest = json.loads((digits_artifacts / MANIFEST).read_bytes())
    files = {name: (digits_artifacts / name).read_bytes() for name in manifest["files"]}
    directory = Path(shutil.copytree(digits_artifacts, tmp_path / "artifacts"))

    def case(rng: random.Random) -> None:
        chosen = rng.choice([name for name in files if not name.startswith("ort/")])
        content = damaged(files[chosen], rng)
        (directory / chosen).write_bytes(content)
        hashes = {**manifest["files"], chosen: hashlib.sha256(content).hexdigest()}
        (directory / MANIFEST).write_text(json.dumps(seal_json({**manifest, "files": hashes})))
        try:
            use(directory, few_digits, tmp_path / "work", engine)
        finally:
            (directory / chosen).write_bytes(files[chosen])

    withstand(case, times=times, seed=SEED, refusal=EdgetlError, both=False)


@times(40, 800)
def test_made_up_metadata_of_a_model(digits_model: Path, few_digits: Path, tmp_path: Path, times: int) -> None:
    model = onnx.load(digits_model)
    del model.metadata_props[-1]  # the hash
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_EDGETL)
    provenance, file = json.loads(entry.value), tmp_path / "model.onnx"
    picture = next((few_digits / "6").iterdir())

    def case(rng: random.Random) -> None:
        entry.value = json.dumps(altered(provenance, rng))
        file.write_bytes(seal_model(model.SerializeToString()))
        describe(file)
        predict(file, [picture])

    withstand(case, times=times, seed=SEED, refusal=EdgetlError, both=False)


@times(30, 500)
def test_made_up_settings_of_a_run(digits_run: Path, tmp_path: Path, times: int) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    lines = (run / "args.yaml").read_text().splitlines()
    settings = {name: json.loads(value) for name, _, value in (line.partition(": ") for line in lines)}

    def case(rng: random.Random) -> None:
        found = seal_json(altered(settings, rng))
        text = "\n".join(f"{name}: {json.dumps(value)}" for name, value in found.items())
        (run / "args.yaml").write_text(text)
        write_report(run)
        deploy(run, out=tmp_path / "model.onnx")

    withstand(case, times=times, seed=SEED, refusal=EdgetlError, both=False)
