"""Whatever things are called, wherever they lie, whatever locale and clock: the same result, or one sentence."""

import csv
import html
import json
import os
import shutil
import subprocess
import sys
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import HAS_TORCH
from processes import EDGETL, classifier, python

from edgetl import deploy, describe, evaluate, finetune, predict, prepare
from edgetl.artifacts import load_artifacts, save_manifest
from edgetl.cli.console import Display
from edgetl.cli.main import main
from edgetl.cli.reporting import how_to_resume
from edgetl.data.dataset import Wanted, open_training
from edgetl.data.folder import open_folder
from edgetl.deployment.deployed import DeployedModel
from edgetl.errors import DataError, EdgetlError, visible
from edgetl.runs.run import BEST, Run

NAMES = {
    "letters": "ein  Lauf Äöüß 🐶🐱",
    "long": "x" * 200,
    "long letters": "🐶" * 60,
    "signs": "-d 100%s%d% $HOME ~",
    "quotes": "q'u\"o`te\nline [red]<b>&amp;",
    "separators": "a\u2028b\u2029c\x85d\re\tf\x0bg\x0ch\x1ci\x1dj\x1ek",
    "commands": "\x1b[31mred\x1b]0;title\x07\u202egnp.exe\u2066\u200f",
}
EMOJI = ("Hund 🐶", "Katze 🐱", "Maus 🐭", "Käse")
NOT_UTF8 = os.fsdecode(b"K\xe4se")

# the locales that Python would not answer with UTF-8 by itself
LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.fixture(scope="module")
def unnamed(tmp_path_factory: pytest.TempPathFactory, digits_artifacts: Path) -> Path:
    """A prepared directory that takes the names of its classes from the data."""
    return renamed(digits_artifacts, tmp_path_factory.mktemp("unnamed") / "artifacts")


def renamed(artifacts: Path, to: Path, labels: tuple[str, ...] = ()) -> Path:
    """A copy of a prepared directory whose classes have other names."""
    shutil.copytree(artifacts, to)
    save_manifest(to, replace(load_artifacts(artifacts).manifest, labels=labels))
    return to


def pictures(digits: Path, to: Path, names: tuple[str, ...], each: int = 5) -> Path:
    """A folder of data with the digits 6 to 9 as classes of these names, in this order."""
    for digit, name in zip(("6", "7", "8", "9"), names, strict=True):
        try:
            (to / name).mkdir(parents=True)
        except OSError as error:
            pytest.skip(f"this file system has no {name!r}: {error.strerror}")
        for file in sorted((digits / "train" / digit).iterdir())[:each]:
            shutil.copy(file, to / name)
    return to


def done(*arguments: object) -> str:
    """Run a command in this process, check that it succeeds, and return its stdout."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def parameters(run: Path) -> dict[str, bytes]:
    checkpoint = Run(run).read_checkpoint(BEST)
    assert checkpoint is not None
    return {name: value.tobytes() for name, value in checkpoint.parameters.items()}


def check_main_job(artifacts: Path, data: Path, directory: Path, name: str, labels: tuple[str, ...]) -> None:
    """Run every command of a device with run, cache and model of that name; `labels` are the classes, sorted."""
    run, model = directory / "runs" / name, directory / "models" / name
    done("finetune", artifacts, data, "--out", run, "--cache", directory / "cache" / name, "--epochs", 1)
    assert Run(run).read_args().labels == labels
    assert {sample.label for sample in Run(run).read_samples()} == set(labels)
    done("deploy", run, "--out", model)
    assert DeployedModel(model).labels == labels
    found = json.loads(done("evaluate", model, data, "--json"))
    assert tuple(found["per_label"]) == labels
    (told,) = json.loads(done("predict", model, next((data / labels[0]).iterdir()), "--json"))["predictions"]
    assert told["label"] in labels
    assert json.loads(done("inspect", model, "--json"))["labels"] == list(labels)
    assert "kind: run" in done("inspect", run)
    done("report", run)
    page = (run / "report.html").read_text(encoding="utf-8")
    for shown in (*labels, name):
        assert html.escape(visible(shown)) in page
    assert done("verify", run)
    assert json.loads(done("runs", directory / "runs", "--json"))["runs"][0]["name"] == name
    assert not list(directory.rglob("*.partial"))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_everything_may_be_called_anything(digits: Path, unnamed: Path, tmp_path: Path, name: str) -> None:
    labels = tuple(sorted((name, "a", "b", "c")))
    data = pictures(digits, tmp_path / "data" / name, labels)
    artifacts = tmp_path / "artifacts" / name
    artifacts.parent.mkdir()
    artifacts.symlink_to(unnamed)
    check_main_job(artifacts, data, tmp_path, name, labels)


def test_paths_that_look_like_options(
    digits: Path, unnamed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(digits, tmp_path / "-data", ("-1", "--help", "--out", "b"))
    Path("--artifacts").symlink_to(unnamed)
    done("finetune", "--out=-run", "--epochs=1", "--", "--artifacts", "-data")
    done("deploy", "--out=-model", "--", "-run")
    assert "--help" in done("predict", "--top=4", "--", "-model", "-data/--help")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["--artifacts", "-data", "-model", "-run"]


def test_the_way_to_resume_puts_no_option_behind_the_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["edgetl", "finetune", "--out=-a b", "--force", "--", "-artifacts", "-data"])
    said = how_to_resume("-a b", Display())
    assert said.endswith("Continue with: edgetl finetune '--out=-a b' --resume -- -artifacts -data")


def test_links_are_followed_and_stay(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    real, links = tmp_path / "real", tmp_path / "links"
    links.mkdir()
    for name in ("data", "artifacts", "runs", "cache", "models"):
        (links / name).symlink_to(real / name)
    shutil.copytree(digits_artifacts, real / "artifacts")
    plain = pictures(digits, tmp_path / "plain", ("6", "7", "8", "9"))
    shutil.copytree(plain, real / "data")
    for digit in ("6", "7"):  # a class, and single pictures
        (real / "data" / digit).rename(real / digit)
    (real / "data" / "6").symlink_to(real / "6")
    (real / "data" / "7").mkdir()
    for file in (real / "7").iterdir():
        (real / "data" / "7" / file.name).symlink_to(file)
    for name in ("runs", "cache", "models"):
        (real / name).mkdir()
    finetune(links / "artifacts", links / "data", out=links / "runs" / "a", cache=links / "cache", epochs=1)
    deploy(links / "runs" / "a", out=links / "models" / "model.onnx")
    finetune(digits_artifacts, plain, out=tmp_path / "run", cache=tmp_path / "cache", epochs=1)
    assert parameters(real / "runs" / "a") == parameters(tmp_path / "run")
    assert evaluate(links / "models" / "model.onnx", links / "data").samples == 20
    assert all(link.is_symlink() for link in links.iterdir())
    assert list((real / "cache").iterdir())


def without_privileges() -> list[str]:
    """The beginning of a command that keeps to permissions, although root started it."""
    if os.geteuid() != 0:
        return []
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    if shutil.which("setpriv") is None or subprocess.run([*drop, "true"], capture_output=True).returncode != 0:
        pytest.skip("permissions do not bind root, and setpriv cannot drop the privilege here")
    return drop


def test_inputs_are_only_read(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    inputs, out = tmp_path / "inputs", tmp_path / "out"
    shutil.copytree(digits_artifacts, inputs / "artifacts")
    pictures(digits, inputs / "data", ("6", "7", "8", "9"))
    out.mkdir()
    everything = [inputs, *inputs.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = (
        "import os, sys; from pathlib import Path; import edgetl\n"
        "inputs, out = map(Path, sys.argv[1:])\n"
        "assert not os.access(inputs / 'data', os.W_OK)\n"
        "edgetl.finetune(inputs / 'artifacts', inputs / 'data', out=out / 'run', cache=out / 'cache', epochs=1)\n"
        "edgetl.deploy(out / 'run', out=out / 'model.onnx')\n"
        "edgetl.evaluate(out / 'model.onnx', inputs / 'data')\n"
    )
    try:
        command = [*without_privileges(), *python(code), str(inputs), str(out)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=inputs, check=False)
        assert ended.returncode == 0, ended.stderr
        assert sorted([inputs, *inputs.rglob("*")]) == sorted(everything)
    finally:
        for path in everything:
            path.chmod(0o755)


def test_what_may_not_be_read_is_one_sentence(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    everything = []
    for closed in (".", "7", "7/deep"):
        everything.append(pictures(digits, tmp_path / str(len(everything)), ("6", "7", "8", "9"), each=1) / closed)
        everything[-1].mkdir(exist_ok=True)
        everything[-1].chmod(0)
    code = (
        "import sys; import edgetl\n"
        "for number in range(3):\n"
        "    try:\n"
        "        edgetl.finetune(sys.argv[1], f'{sys.argv[2]}/{number}', out='run')\n"
        "    except edgetl.EdgetlError as error:\n"
        "        print(error)\n"
    )
    try:
        command = [*without_privileges(), *python(code), str(digits_artifacts), str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    finally:
        for path in everything:
            path.chmod(0o755)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        f"{path} cannot be read (Permission denied): allow it, or give other data" for path in everything
    ]


def test_no_clock_changes_the_result(
    digits: Path, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(digits, tmp_path / "data", ("6", "7", "8", "9"))
    artifacts = Path(shutil.copytree(digits_artifacts, tmp_path / "artifacts"))

    def job(directory: Path) -> dict[str, bytes]:
        for epochs in (2, 3):
            finetune(artifacts, data, out=directory / "run", cache=directory / "cache", epochs=epochs, resume=True)
        digests = {file.name: file.read_bytes() for file in (directory / "cache").rglob("*.bin")}
        logits = Run(directory / "run").read_validation().logits.tobytes()
        return {**parameters(directory / "run"), **digests, "logits": logits}

    expected = job(tmp_path / "plain")
    year = 366 * 86400
    for number, path in enumerate([*data.rglob("*"), *artifacts.rglob("*")]):
        moment = (0, time.time() + 50 * year, -10 * year)[number % 3]
        os.utime(path, (moment, moment))
    calls = 0

    def jumping() -> float:
        nonlocal calls
        calls += 1
        return 1.9e9 + (-1) ** calls * 10.0 * year + calls

    monkeypatch.setattr(time, "time", jumping)
    assert job(tmp_path / "jumping") == expected


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory, digits: Path, unnamed: Path) -> Path:
    """`data`, `run` and `model.onnx` whose classes have names that no old encoding has."""
    root = tmp_path_factory.mktemp("emoji")
    pictures(digits, root / "data", EMOJI)
    finetune(unnamed, root / "data", out=root / "run", cache=root / "cache", epochs=1)
    deploy(root / "run", out=root / "model.onnx")
    return root


def in_locale(name: str, *arguments: object) -> bytes:
    """Run a command in a locale, check that it succeeds, and return its stdout."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    ended = subprocess.run([*EDGETL, *map(str, arguments)], capture_output=True, env={**plain, **LOCALES[name]})
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.isascii(), "what the encoding lacks is escaped"
    return ended.stdout


@pytest.mark.parametrize("name", ["C", *(pytest.param(name, marks=pytest.mark.long) for name in ("ascii", "latin-1"))])
def test_every_command_in_an_old_locale(digits: Path, unnamed: Path, tmp_path: Path, name: str) -> None:
    data, run, model = pictures(digits, tmp_path / "Größe 📏", EMOJI), tmp_path / "Läufe 🏃", tmp_path / "Modell ö.onnx"
    in_locale(name, "finetune", unnamed, data, "--out", run, "--epochs", 1)
    in_locale(name, "deploy", run, "--out", model)
    out = in_locale(name, "predict", model, data / EMOJI[0])
    assert rb"Hund \U0001f436 " in out
    assert ("Käse ".encode("latin-1") if name == "latin-1" else rb"K\xe4se ") in out
    assert rb"\U0001f436" in in_locale(name, "inspect", model)
    in_locale(name, "report", run)
    labels = tuple(sorted(EMOJI))
    assert Run(run).read_args().labels == labels
    assert Run(run).read_args().data == str(data)
    assert DeployedModel(model).labels == labels
    with open(run / "samples.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["label"] for row in rows} == set(labels)
    assert all(Path(row["name"]).is_file() for row in rows)
    for file in ("args.yaml", "report.html"):
        assert all(label in (run / file).read_text(encoding="utf-8") for label in labels)


@pytest.mark.parametrize("option", [(), pytest.param(("--json",), marks=pytest.mark.long)], ids=["text", "json"])
def test_names_that_the_encoding_lacks_are_escaped(emoji: Path, option: tuple[str, ...]) -> None:
    out = in_locale("latin-1", "inspect", emoji / "run", *option).decode("latin-1")
    if option:
        assert json.loads(out)["args"]["labels"] == sorted(EMOJI)
    else:
        assert r"labels: Hund \U0001f436, Katze \U0001f431, Käse, Maus \U0001f42d" in out


def test_json_is_ascii_and_keeps_every_name(emoji: Path) -> None:
    out = done("predict", emoji / "model.onnx", emoji / "data" / EMOJI[0], "--json")
    assert out.isascii()
    assert {label for item in json.loads(out)["predictions"] for label, _ in item["top"]} <= set(EMOJI)


def test_files_whose_names_are_not_utf8(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    data = pictures(digits, tmp_path / NOT_UTF8, ("6", "7", "8", "9"))
    for file in list(data.rglob("*.png")):
        file.rename(file.with_name(f"{NOT_UTF8} {file.name}"))
    run, model = tmp_path / f"run {NOT_UTF8}", tmp_path / "model.onnx"
    done("finetune", digits_artifacts, data, "--out", run, "--epochs", 1, "--cache", tmp_path / f"cache {NOT_UTF8}")
    assert all(Path(sample.name).is_file() for sample in Run(run).read_samples())
    done("deploy", run, "--out", model)
    assert r"K\udce4se" in done("predict", model, data / "6")
    found = json.loads(done("predict", model, data / "6", "--json"))
    assert all(Path(item["input"]).is_file() for item in found["predictions"])
    for arguments in (("evaluate", model, data), ("inspect", run), ("report", run), ("runs", tmp_path)):
        done(*arguments)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert r"K\udce4se" in page


def test_what_cannot_be_opened_or_named_in_utf8_is_one_sentence(
    digits: Path, unnamed: Path, digits_run: Path, tmp_path: Path
) -> None:
    data = pictures(digits, tmp_path / "data", (NOT_UTF8, "a", "b", "c"))
    with pytest.raises(DataError, match=r"names a class, but its name is not UTF-8: rename it"):
        finetune(unnamed, data, out=tmp_path / "run")
    good = pictures(digits, tmp_path / "good", ("a", "b", "c", "d"))
    artifacts = Path(shutil.copytree(unnamed, tmp_path / NOT_UTF8))
    with pytest.raises(EdgetlError, match=r"cannot open .*, because its path is not UTF-8: rename it"):
        finetune(artifacts, good, out=tmp_path / "run")
    with pytest.raises(EdgetlError, match=r"because its path is not UTF-8: rename it"):
        deploy(digits_run, out=tmp_path / f"{NOT_UTF8}.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["data", "good", NOT_UTF8])


RESERVED = ("CON", "aux.txt", "a:b?", "trailing.", "nul", "COM1", "tab\t<|>", "back\\slash")


def windows_allows(name: str) -> bool:
    """Whether Windows takes a file of that name (learn.microsoft.com, Naming Files, Paths, and Namespaces)."""
    devices = {"CON", "PRN", "AUX", "NUL", *(f"{port}{digit}" for port in ("COM", "LPT") for digit in range(10))}
    stem = name.partition(".")[0].rstrip()
    return (
        stem.upper() not in devices
        and not set(name) & set('<>:"/|?*\\')
        and not name.endswith((".", " "))
        and min(map(ord, name)) >= 32
    )


@pytest.mark.parametrize("name", RESERVED)
def test_windows_would_not_take_these(name: str) -> None:
    assert not windows_allows(name)


def check_windows_allows_all(directory: Path, at_least: int) -> None:
    found = [path.name for path in directory.rglob("*")]
    assert len(found) >= at_least
    assert [name for name in found if not windows_allows(name)] == []


@pytest.mark.parametrize("names", [RESERVED[:4], pytest.param(RESERVED[4:], marks=pytest.mark.long)])
def test_classes_named_as_windows_forbids_leave_no_such_file(
    digits: Path, unnamed: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    data, written = pictures(digits, tmp_path / "data", names), tmp_path / "written"
    run = finetune(unnamed, data, out=written / "run", cache=written / "cache", epochs=1).run
    deploy(run, out=written / "model.onnx")
    assert describe(run)["args"]["labels"] == sorted(names)
    check_windows_allows_all(written, at_least=12)


@pytest.mark.skipif(not HAS_TORCH, reason="prepare needs torch")
def test_a_prepared_directory_has_names_that_windows_allows(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    prepare(
        str(classifier(tmp_path_factory.mktemp("source") / "model.onnx")),
        out=tmp_path / "artifacts",
        labels=RESERVED,
    )
    assert load_artifacts(tmp_path / "artifacts").manifest.labels == RESERVED
    check_windows_allows_all(tmp_path, at_least=10)


COMPOSED = "Käsé"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.mark.parametrize(
    ("prepared", "found"),
    [(COMPOSED, DECOMPOSED), pytest.param(DECOMPOSED, COMPOSED, marks=pytest.mark.long)],
    ids=["composed", "decomposed"],
)
def test_a_name_is_the_same_composed_and_decomposed(
    digits: Path, digits_artifacts: Path, tmp_path: Path, prepared: str, found: str
) -> None:
    assert prepared != found
    artifacts = renamed(digits_artifacts, tmp_path / "artifacts", (prepared, "a", "b", "c"))
    data = pictures(digits, tmp_path / "data", (found, "a", "b", "c"))
    run = finetune(artifacts, data, out=tmp_path / "run", epochs=1, lr=1e-2).run
    deploy(run, out=tmp_path / "model.onnx")
    measured = evaluate(tmp_path / "model.onnx", data)
    assert measured.samples == 20
    assert tuple(measured.per_label) == (prepared, "a", "b", "c")
    (told,) = predict(tmp_path / "model.onnx", [next((data / found).iterdir())])
    assert told.label == prepared


def test_without_names_given_classes_are_the_same_from_every_file_system(digits: Path, tmp_path: Path) -> None:
    one, other = (
        open_folder(pictures(digits, tmp_path / str(number), (name, "Kz", "a", "b"), each=1))
        for number, name in enumerate((COMPOSED, DECOMPOSED))
    )
    # by code points the forms would be sorted differently
    assert sorted((COMPOSED, "Kz")) != sorted((DECOMPOSED, "Kz"))
    assert one.labels == other.labels == ("Kz", COMPOSED, "a", "b")
    labels = np.array([sample.label for sample in other.samples])
    assert labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("task", ["classification", "multilabel"])
@pytest.mark.parametrize(("wanted", "written"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_table_may_write_names_either_way(tmp_path: Path, task: str, wanted: str, written: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"text,label\none,{written}\nother,a\n", encoding="utf-8")
    found = open_training(table, None, Wanted("text", task, labels=(wanted, "a")))[0]
    assert found.labels == (wanted, "a")
    assert [sample.label for sample in found.samples] == ([0, 1] if task == "classification" else [(1, 0), (0, 1)])


def test_two_folders_of_one_name_are_one_sentence(digits: Path, tmp_path: Path) -> None:
    data = pictures(digits, tmp_path, (COMPOSED, DECOMPOSED, "a", "b"), each=1)
    with pytest.raises(DataError, match=f"two folders that are both called '{COMPOSED}' in Unicode: merge them"):
        open_folder(data)
