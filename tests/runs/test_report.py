import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl import finetune, write_report
from edgetl.data.dataset import content_digest
from edgetl.errors import RunError
from edgetl.events import EpochEnd, Event, Note
from edgetl.optimizers.registry import Optimizer
from edgetl.runs.report import text
from edgetl.runs.report.findings import gather
from edgetl.runs.report.page import page
from edgetl.runs.run import CONFUSION, CURVES, METRICS, REPORT, Run, RunArgs, UsedSample, Validation

VOID = {"meta", "img", "wbr", "line", "path", "circle"}  # of these, SVG's end themselves


class Page(HTMLParser):
    """Reads a page, checks that what opens closes, and keeps what is asked about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def read(run: Path) -> Page:
    return Page((run / REPORT).read_text(encoding="utf-8"))


def make_run(
    path: Path,
    labels: list[str],
    *,
    samples: int = 60,
    epochs: int = 4,
    before: bool = False,
    validated: bool = True,
    finished: bool = True,
    skill: float = 2.0,
    pictures: tuple[Path, ...] = (),
) -> Run:
    """Write a run as finetune would, of made-up predictions."""
    rng = np.random.default_rng(len(labels))
    run = Run(path)
    run.write_args(
        RunArgs(
            edgetl_version="0.1.0",
            artifacts="/gone/artifacts",
            artifacts_sha256="0" * 64,
            data="/data",
            val=None,
            val_fraction=0.2,
            labels=tuple(labels),
            epochs=epochs,
            batch_size=32,
            lr=1e-3,
            seed=0,
            engine="portable",
            optimizer=Optimizer("sgd", {"momentum": 0.5}),
            micro_batch=None,
            provider="CPUExecutionProvider",
            provider_options={},
        )
    )
    truth = rng.integers(0, len(labels), samples)
    logits = rng.standard_normal((samples, len(labels))).astype(np.float32)
    logits[np.arange(samples), truth] += skill
    files = [pictures[i % len(pictures)] if pictures else Path(f"/gone/{i}.png") for i in range(samples)]
    digests = tuple(content_digest(file.read_bytes()).hex() if file.exists() else "00" * 16 for file in files)
    paths = tuple(map(str, files))
    validation = Validation(paths, digests, truth.astype(np.int64), logits)
    run.write_samples(
        [UsedSample("train", digest, labels[0], "a.png") for digest in ("aa", "bb")]
        + [
            UsedSample("val", *each)
            for each in zip(digests, (labels[i] for i in truth), paths, strict=True)
            if validated
        ]
    )
    accuracy = float((logits.argmax(1) == truth).mean())
    with open(path / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "train_loss", "val_loss", "val_accuracy", "seconds", "a_later_column"])
        for epoch in range(0 if before else 1, epochs + 1):
            measured = (1 / (epoch + 1), accuracy if epoch else 0.125) if validated else ("", "")
            writer.writerow([epoch, 1 / epoch if epoch else "", *measured, 0.5 if epoch else "", "x"])
    if finished:
        run.write_validation(validation)
        run.write_metrics(
            {"epochs": epochs, "seconds": 3.5, "engine": "portable", "rejected": [["<b>.jpg", "is empty"]]}
        )
    return run


def test_the_page_of_a_real_run(digits_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    (run / REPORT).unlink()
    result = write_report(run)
    metrics = json.loads((run / METRICS).read_text())
    found = read(run)
    assert result.figures == {name: pytest.approx(value) for name, value in metrics["val_figures"].items()}
    assert f"{metrics['val_accuracy']:.1%}" in found.text
    assert f"epoch {metrics['best_epoch']} of {metrics['epochs']}" in found.text
    for word in ("Precision", "Recall", "Support", "Confusion matrix", "Most wrong", metrics["engine"], "processor"):
        assert word in found.text
    assert metrics["machine"]["cores"] >= 1
    assert result.mistakes is not None
    assert result.pictures == min(result.mistakes, 24)
    assert len(found.values("src")) == result.pictures
    assert result.size_kb == (run / REPORT).stat().st_size / 1e3
    assert result.plots == (str(run / CURVES), str(run / CONFUSION))


def test_finetune_writes_it_and_force_removes_the_old_one(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    finetune(digits_artifacts, digits / "train", out=tmp_path / "run", epochs=1)
    assert re.search(r"epoch [01] of 1", read(tmp_path / "run").text)

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(digits_artifacts, digits / "train", out=tmp_path / "run", epochs=3, force=True, on_event=interrupt)
    assert not (tmp_path / "run" / REPORT).exists()
    assert not (tmp_path / "run" / CURVES).exists()
    result = write_report(tmp_path / "run")
    assert not result.finished
    assert "This run is not finished: 1 of 3 epochs" in read(tmp_path / "run").text


def test_a_report_that_fails_does_not_fail_the_run(
    digits: Path, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(findings: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("edgetl.runs.report.write.page", fail)
    events: list[Event] = []
    result = finetune(digits_artifacts, digits / "train", out=tmp_path / "run", epochs=1, on_event=events.append)
    assert result.epochs == 1
    assert any(isinstance(e, Note) and "no report was written (a fault of ours)" in e.text for e in events)


def test_it_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", {"a": 3})
    run = make_run(tmp_path / "run", ["a", "b"], pictures=tuple((pictures / "a").iterdir()))
    write_report(run.path)
    found = read(run.path)
    assert not {"script", "link", "iframe", "object", "a"} & found.tags
    assert not found.values("href")
    assert all(source.startswith("data:image/") for source in found.values("src"))
    assert "url(" not in (run.path / REPORT).read_text()
    assert any("default-src 'none'" in value for value in found.values("content"))
    assert all(found.values("alt"))
    assert not any(name.startswith("on") for name, _ in found.attributes)


@pytest.mark.parametrize(("classes", "has_matrix"), [(2, True), (10, True), (30, True), (31, False), (200, False)])
def test_any_number_of_classes(tmp_path: Path, classes: int, has_matrix: bool) -> None:
    labels = [f"class {i}" for i in range(classes)]
    run = make_run(tmp_path / "run", labels, samples=300)
    write_report(run.path)
    found = read(run.path)
    assert ("Confusion matrix" in found.text) == has_matrix
    assert any(value.startswith("matrix ") or value == "matrix" for value in found.values("class")) == has_matrix
    assert ("Confused most often" in found.text) == (classes > 2)
    assert all(label in found.text for label in labels)


def test_what_it_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b", "c"])
    validation = run.read_validation()
    logits = np.zeros((60, 3), dtype=np.float32)
    logits[:, 0] = np.arange(60)  # it says a to all, from 37 % to 100 %
    labels = np.array([0] * 30 + [1] * 20 + [2] * 10)
    run.write_validation(replace(validation, labels=labels, logits=logits))
    measured = gather(run).measured
    assert measured is not None
    assert measured.summary.accuracy == 0.5
    assert [(pair.truth, pair.predicted, pair.count, pair.share) for pair in measured.confusions] == [
        (1, 0, 20, 1.0),
        (2, 0, 10, 1.0),
    ]
    assert [mistake.path for mistake in measured.mistakes[:2]] == ["/gone/59.png", "/gone/58.png"]
    assert measured.mistakes[0].truth_probability == pytest.approx(0, abs=1e-20)
    assert measured.mistakes[-1].predicted_probability > 0.99
    write_report(run.path)
    assert "30 of 60 validation pictures, so 38% to 62%" in read(run.path).text


def test_accuracy_before_and_after(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], before=True)
    result = write_report(run.path)
    assert result.figures_before == {"accuracy": 0.125}
    assert "12.5% at the start →" in read(run.path).text
    best = gather(run).best
    assert best is not None
    assert best.epoch == 4  # the lowest loss of the highest accuracy
    assert write_report(make_run(tmp_path / "other", ["a", "b"]).path).figures_before == {}


def test_a_start_that_no_epoch_betters(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], before=True)
    file = run.path / "results.csv"
    file.write_text(file.read_text().replace("0.125", "0.999"))
    assert write_report(run.path).figures == {"accuracy": 0.999}
    assert "99.9%at the start, which no epoch bettered" in read(run.path).text
    only = make_run(tmp_path / "only", ["a", "b"], before=True, epochs=0)
    assert write_report(only.path).figures == {"accuracy": 0.125}
    assert "bettered" not in read(only.path).text


def test_settings_and_where_it_ran(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"])
    metrics = run.read_metrics()
    run.write_metrics({**(metrics or {}), "placement": {"features": {"X": 0.75, "CPUExecutionProvider": 0.25}}})
    write_report(run.path)
    found = read(run.path).text
    assert "optimizersgd;" in found
    assert "momentum 0.5" in found
    assert "features ran onX 75.0%, CPUExecutionProvider 25.0%" in found
    assert "micro batch" not in found
    for unused in ("flip", "views", "label smoothing", "warmup"):
        assert unused not in found


def test_without_validation_data_training_pictures_prove_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], validated=False)
    result = write_report(run.path)
    assert (result.figures, result.mistakes, result.pictures) == ({}, None, 0)
    found = read(run.path)
    assert "no pictures were kept for validation" in found.text
    assert "Most wrong" not in found.text


def test_one_epoch_and_none(tmp_path: Path) -> None:
    write_report(make_run(tmp_path / "one", ["a", "b"], epochs=1).path)
    assert "epoch 1 of 1" in read(tmp_path / "one").text
    bare = make_run(tmp_path / "bare", ["a", "b"], finished=False)
    (bare.path / "results.csv").unlink()
    (bare.path / "samples.csv").unlink()
    assert not write_report(bare.path).finished
    assert "0 of 4 epochs" in read(bare.path).text


def test_what_was_measured_of_an_earlier_best_epoch_is_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"])
    with open(run.path / "results.csv", "a") as file:
        file.write("5,0.1,0.1,0.99,0.5,x\n")  # resumed, and interrupted again
    result = write_report(run.path)
    assert (result.finished, result.figures, result.mistakes) == (False, {"accuracy": 0.99}, None)
    assert "Most wrong" not in read(run.path).text


def test_nothing_is_wrong(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], skill=100)
    assert write_report(run.path).mistakes == 0
    assert "all validation pictures were recognised" in read(run.path).text


def test_a_loss_that_is_no_number(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"])
    file = run.path / "results.csv"
    file.write_text(file.read_text().replace("0.25", "nan").replace("0.2,", "inf,"))
    write_report(run.path)
    drawn = [value for value in read(run.path).values("d") if "nan" in value or "inf" in value]
    assert not drawn


def test_pictures_that_are_gone_changed_or_not_upright(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.jpg" for name in ("large", "gone", "changed", "turned")]
    pixels = np.random.default_rng(0).integers(0, 256, (600, 400, 3), dtype=np.uint8)
    for file in files:
        Image.fromarray(pixels).save(file)
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held sideways
    Image.fromarray(pixels).save(files[3], exif=exif)
    run = make_run(tmp_path / "run", ["a", "b"], samples=4, pictures=tuple(files), skill=-50)
    files[1].unlink()
    files[2].write_bytes(b"\xff\xd8 broken")
    result = write_report(run.path)
    found = read(run.path)
    assert (result.mistakes, result.pictures) == (4, 2)
    assert "is no longer where it was" in found.text
    assert "has changed since the run" in found.text
    assert {str(file) for file in files} <= set(found.values("title"))
    assert result.size_kb < 100


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><b>'&amp;",
    "W" * 200,
    "Äpfel 🍎",
    "$\\frac{1$",
    "\u202eevil",
    "line\nbreak\x00",
    "\udcff",
    "{x} $version ${title} %s",
]


def test_hostile_names_are_text(tmp_path: Path) -> None:
    plain = gather(make_run(tmp_path / "plain", list("abcdefghij"), samples=200))
    named = replace(
        plain,
        path=tmp_path / "<i>x",
        args=replace(plain.args, labels=tuple(HOSTILE), data="/<u>", artifacts="\udcff<u>"),
    )
    found, expected = Page(page(named)[0]), Page(page(plain)[0])
    assert found.tags == expected.tags
    assert "onerror" not in dict(found.attributes)
    for name in (*HOSTILE[:6], r"\u202eevil", r"line\nbreak\x00", r"\udcff"):
        assert name in found.text
    page(named)[0].encode("utf-8")


@given(st.lists(st.text(min_size=1), min_size=3, max_size=3))
@settings(max_examples=50, deadline=None)
def test_any_name_is_text(tmp_path_factory: pytest.TempPathFactory, labels: list[str]) -> None:
    global _PLAIN
    _PLAIN = _PLAIN or gather(make_run(tmp_path_factory.mktemp("plain"), ["a", "b", "c"]))
    found = Page(page(replace(_PLAIN, args=replace(_PLAIN.args, labels=tuple(labels))))[0])
    assert found.tags == Page(page(_PLAIN)[0]).tags


_PLAIN = None


def test_no_run_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run"):
        write_report(tmp_path)
    run = make_run(tmp_path / "run", ["a", "b"])
    validation = run.read_validation()
    run.write_validation(replace(validation, labels=validation.labels + 5))
    with pytest.raises(RunError, match="does not fit"):
        write_report(run.path)
    run.write_validation(replace(validation, paths=validation.paths[:3]))
    with pytest.raises(RunError, match="does not fit"):
        write_report(run.path)
    (run.path / "results.csv").write_text("epoch,train_loss\none,2\n")
    with pytest.raises(RunError, match="damaged"):
        write_report(run.path)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.percent(0.6445), "64.5%"),
        (text.percent(0.0), "0.0%"),
        (text.percent(0.0001), "<0.1%"),
        (text.percent(0.9999), ">99.9%"),
        (text.percent(None), "–"),
        (text.short_percent(0.997), ">99%"),
        (text.short_percent(0.0123), "1.2%"),
        (text.number(1.07079), "1.071"),
        (text.number(0.00012345), "0.000123"),
        (text.number(25000.4), "25,000"),
        (text.number(-999999.0), "-999,999"),
        (text.number(2.5e6), "2.5e+06"),
        (text.number(float("nan")), "–"),
        (text.axis_number(0.25), "0.25"),
        (text.axis_number(20000.0), "20,000"),
        (text.axis_number(2.5e13), "2.5e+13"),
        (text.duration(0.0551), "55 ms"),
        (text.duration(59.94), "59.9 s"),
        (text.duration(59.97), "1 min 00 s"),
        (text.duration(3599.6), "1 h 00 min"),
        (text.duration(5025.3), "1 h 23 min"),
        (text.megabytes(0.0312), "31 kB"),
        (text.megabytes(8.94), "8.9 MB"),
        (text.megabytes(25276.5), "25.3 GB"),
        (text.count(2223872), "2,223,872"),
    ],
)
def test_figures_as_text(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("task", "metric", "columns", "seen"),
    [
        ("regression", "r2", {"r2": (-0.5, 0.75), "mae": (9, 2.5), "rmse": (12, 3.5)},
         ["R²-0.500 at the start → 0.750", "Mean absolute error2.500", "2 numbers"]),
        ("regression", "mae", {"r2": (-0.5, 0.75), "mae": (9, 2.5), "rmse": (12, 3.5)},
         ["Mean absolute error9.000 at the start → 2.500", "R²0.750"]),
        ("multilabel", "micro_f1", {"macro_f1": (0.1, 0.6), "micro_f1": (0.2, 0.7), "exact_match": (0, 0.4)},
         ["Micro F120.0% at the start → 70.0%", "Exact match40.0%", "2 labels"]),
        ("classification", "loss", {"accuracy": (0.25, 0.5), "macro_f1": (0.2, 0.4)},
         ["Accuracy25.0% at the start → 50.0%", "Macro F140.0%", "2 classes"]),
    ],
)  # fmt: skip
def test_other_tasks_and_metrics(
    tmp_path: Path, task: str, metric: str, columns: dict[str, tuple[float, float]], seen: list[str]
) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], before=True, epochs=1)
    run.write_args(replace(run.read_args(), task=task, metric=metric, modality="array"))
    run.write_results(
        tuple(
            EpochEnd(epoch, 1, 1.0 if epoch else None, 0.5, 2.0 - epoch, {n: v[epoch] for n, v in columns.items()})
            for epoch in (0, 1)
        )
    )
    (run.path / "validation.npz").unlink()
    result = write_report(run.path)
    assert result.figures == {name: values[1] for name, values in columns.items()}
    assert result.figures_before == {name: values[0] for name, values in columns.items()}
    assert result.metric == ("accuracy" if metric == "loss" else metric)
    found = read(run.path).text
    for part in seen:
        assert part in found
    assert "pictures" not in found
