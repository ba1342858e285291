"""Names hold anything that a file system or a table allows: every file gives them back, every output stays one line."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.cli.console import table
from edgetl.cli.main import main
from edgetl.errors import visible
from edgetl.files.schema import json_text
from edgetl.runs.run import Run, RunArgs, UsedSample, Validation

SEPARATORS = "\n\r\t\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
SIGNS = "\x1b\x07\x7f\u061c\u200e\u200f\u202a\u202e\u2066\u2069\ufeff"

# anything, and often what breaks lines or is not to be seen
texts = st.text(st.one_of(st.sampled_from(SEPARATORS + SIGNS + ',"\\:# '), st.characters(codec="utf-8")), max_size=12)
labels = texts.filter(lambda text: text.strip() and "\0" not in text)
paths = st.one_of(labels, st.binary(min_size=1, max_size=12).filter(lambda b: b"\0" not in b).map(os.fsdecode))


@settings(deadline=None)
@given(st.lists(labels, min_size=2, max_size=4, unique=True), st.lists(paths, min_size=2, max_size=2))
def test_a_run_gives_back_every_name(names: list[str], files: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        args = RunArgs(
            edgetl_version="1", artifacts=files[0], artifacts_sha256="0", data=files[1], val=files[0], val_fraction=0.2,
            labels=tuple(names), epochs=3, batch_size=4, lr=1e-3, seed=0, engine="x", input_columns=tuple(names),
            label_columns=tuple(names), provider_options={names[0]: names[1]}, device=files[0],
        )  # fmt: skip
        run.write_args(args)
        assert run.read_args() == args
        used = [UsedSample("train", "00", names[0], files[0]), UsedSample("val", "ff", names[1], files[1])]
        run.write_samples(used)
        assert list(run.read_samples()) == used
        run.write_metrics({"run": files[0], "rejected": [[files[1], names[0]]]})
        assert run.read_metrics() == {"run": files[0], "rejected": [[files[1], names[0]]]}
        validation = Validation(tuple(files), ("00", "ff"), np.zeros(2, np.int64), np.zeros((2, 2), np.float32))
        run.write_validation(validation)
        found = run.read_validation()
        assert (found.paths, found.digests) == (validation.paths, validation.digests)


@settings(deadline=None)
@given(texts)
def test_json_text_is_one_line_and_means_the_same(text: str) -> None:
    written = json_text({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert len(written.splitlines()) == 1
    assert written.isprintable()


def test_json_text_leaves_letters_as_they_are() -> None:
    assert json_text(["Käse 🐶", "a\u2028b", "\U000e0001"]) == '["Käse 🐶", "a\\u2028b", "\\udb40\\udc01"]'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain – Käse 犬 🐶\u00a0\u3000", "plain – Käse 犬 🐶\u00a0\u3000"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("evil\u202egnp.exe\u2066", r"evil\u202egnp.exe\u2066"),
        ("\U000e0001", r"\U000e0001"),
        ("K\udce4se", r"K\udce4se"),
        ("می\u200cخواهم 👩\u200d🔬", "می\u200cخواهم 👩\u200d🔬"),
    ],
)
def test_what_shows_nothing_becomes_an_escape(text: str, expected: str) -> None:
    assert visible(text) == expected


@settings(deadline=None)
@given(st.lists(labels.map("|".__add__), min_size=1, max_size=3))
def test_a_table_has_one_line_for_each_row(cells: list[str]) -> None:
    lines = table(["name"], [[cell] for cell in cells])
    assert len("\n".join(lines).splitlines()) == 1 + len(cells)


def test_predict_prints_one_line_for_each_input(digits_model: Path, digits: Path, tmp_path: Path) -> None:
    content = next((digits / "test" / "7").iterdir()).read_bytes()
    names = ["a.png", "line\nforged.png: 9 100.0%\nx.png", "sep\u2028\u2029\x85.png", "\u202egnp.png", "\x1b[2J.png"]
    files = [tmp_path / name for name in names]
    for file in files:
        file.write_bytes(content)
    broken = tmp_path / "not\na picture.png"
    broken.write_text("x")
    result = CliRunner().invoke(main, ["predict", str(digits_model), *map(str, files), str(broken)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.rstrip("\n").splitlines()
    assert len(lines) == len(names)
    assert all(line.isprintable() for line in lines)
    assert len([line for line in result.stderr.splitlines() if line.startswith("note: left out")]) == 1
    assert r"not\na picture.png" in result.stderr
    alone = CliRunner().invoke(main, ["predict", str(digits_model), str(broken)])
    assert alone.stderr.splitlines() == [f"note: left out {visible(str(broken))}: is not a picture",
                                         f"Error: {visible(str(broken))} is not a picture"]  # fmt: skip


def test_classes_with_separators_go_all_the_way(digits_artifacts: Path, tmp_path: Path) -> None:
    from dataclasses import replace
    from shutil import copytree

    from edgetl import deploy, evaluate, finetune
    from edgetl.artifacts import load_artifacts, save_manifest

    names = tuple(sorted(("a\u2028b", "c\x85d", "e\rf", "g\ni")))
    rng = np.random.default_rng(0)
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}\u2028\r.png")
    artifacts = tmp_path / "art\u2028"
    copytree(digits_artifacts, artifacts)
    save_manifest(artifacts, replace(load_artifacts(artifacts).manifest, labels=names))
    assert load_artifacts(artifacts).manifest.labels == names
    finetune(artifacts, tmp_path / "data", out=tmp_path / "run\u2029", epochs=1)
    deploy(tmp_path / "run\u2029", out=tmp_path / "m\u2028.onnx")
    assert tuple(evaluate(tmp_path / "m\u2028.onnx", tmp_path / "data").per_label) == names
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "m\u2028.onnx"), str(tmp_path / "data")])
    assert len(result.stdout.splitlines()) == result.stdout.count("\n")
