"""Tables and folders: damaged bytes, and cells, columns and names that spreadsheets do not write."""

import contextlib
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damaged, explore, withstand
from hypothesis import strategies as st

from edgetl.data.dataset import Wanted, label_names, open_inputs, open_measured, open_training
from edgetl.errors import DataError

IMAGES = Wanted("image")
TEXTS = Wanted("text")
SEVERAL = Wanted("text", "multilabel")
NUMBERS = Wanted("array", "regression", input_columns=("size",), label_columns=("power",))
CLASSES_OF_NUMBERS = Wanted("array", input_columns=("size", "power"))
ALL = (IMAGES, TEXTS, SEVERAL, NUMBERS, CLASSES_OF_NUMBERS)

COLUMNS = ("path", "text", "size", "power", "label", "split")
ROWS = [
    ("a.jpg", "good, and\ncheap", 1.5, 3, "cat", "train"),
    ("b/c.jpg", 'it "is"', -3, 1e-3, "dog", "train"),
    ("/tmp/c.jpg", "ü", 0, 0, "cat", "val"),
    ("d", "ü", 0, 2, "cat", "test"),
]


def csv_of(rows: list[tuple[Any, ...]], delimiter: str = ",", end: str = "\n") -> str:
    def cell(value: Any) -> str:
        return '"' + str(value).replace('"', '""') + '"'

    return end.join(delimiter.join(map(cell, row)) for row in [COLUMNS, *rows]) + end


def json_of(rows: list[tuple[Any, ...]]) -> str:
    return "".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows)


def check(data: Path, wanted: Wanted) -> None:
    """Read a table as `finetune`, `evaluate`, `prepare --labels-from` and `predict` do."""
    train, val = open_training(data, None, wanted)
    for dataset in (train, val, open_measured(data, replace(wanted, labels=train.labels))):
        if dataset is not None:
            assert dataset.labels == train.labels
            check_samples(dataset, wanted)
    if wanted.modality != "array":
        names = label_names(data, wanted.task, ())
        assert set(names) <= set(train.labels) or wanted.task == "regression"
    check_samples(None, wanted, open_inputs(data, wanted))


def check_samples(dataset: Any, wanted: Wanted, samples: Any = None) -> None:
    samples = dataset.samples if samples is None else samples
    assert len(samples) > 0
    if dataset is not None:
        assert all(isinstance(name, str) and name.encode() for name in dataset.labels)
        assert len(set(dataset.labels)) == len(dataset.labels) > 0
    for sample in samples:
        if dataset is not None and wanted.task == "classification":
            assert 0 <= sample.label < len(dataset.labels)
        elif dataset is not None:
            assert np.shape(sample.label) == (len(dataset.labels),)
            assert np.isfinite(sample.label).all()
        try:
            content = sample.read()
        except DataError:
            assert wanted.modality == "image"
        else:
            assert wanted.modality != "array" or len(content) % 4 == 0


FILES = {"csv": csv_of(ROWS), "tsv": csv_of(ROWS, "\t", "\r\n"), "jsonl": json_of(ROWS)}


@pytest.mark.parametrize("times", [100, pytest.param(1500, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", FILES)
def test_damaged_bytes(kind: str, times: int, tmp_path: Path) -> None:
    data = FILES[kind].encode()
    file = tmp_path / f"t.{kind}"

    def case(rng: random.Random) -> None:
        file.write_bytes(damaged(data, rng, most=2))
        check(file, rng.choice(ALL))

    withstand(case, times=times, seed=21, refusal=DataError)


CELLS = (
    st.text(max_size=20)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(
        [
            *(
                "",
                "\0",
                '"',
                '""',
                "\ufeff",
                "\r",
                "\n",
                "\u2028",
                "x" * 140_000,
                "a,b;c\td",
                "=1+1",
                "\x1b[31m",
                "\x7f",
            ),
            *("../a", "/dev/zero", "/etc/passwd", "a/../../b", "..", ".", "/", "~", "C:\\a", "\\\\a\\b", "a" * 5000),
            *("1e999", "nan", "-inf", "1_0", "0x10", "٣", "train", "VAL", " test ", "other", "cat;dog", "cat|", "|;"),
        ]
    )
)
CELL_ROWS = st.lists(
    st.tuples(CELLS, CELLS, CELLS, CELLS, CELLS, CELLS | st.sampled_from(["train", "val"])), max_size=5
)


@pytest.mark.parametrize("times", [70, pytest.param(1200, marks=pytest.mark.long)])
def test_any_cells(times: int, tmp_path: Path) -> None:
    """Cells, delimiters, line ends, byte order marks; quoted as they should be or not at all."""

    def case(drawn: tuple[Any, ...]) -> None:
        rows, columns, delimiter, ends, quoted, mark, name, wanted = drawn
        lines = [columns, *rows, *ROWS]
        cell: Callable[[Any], str] = (lambda v: '"' + str(v).replace('"', '""') + '"') if quoted else str
        text = "".join(delimiter.join(map(cell, row)) + ends[number % len(ends)] for number, row in enumerate(lines))
        (tmp_path / name).write_bytes(mark + text.encode("utf-8", "surrogatepass"))
        check(tmp_path / name, wanted)

    columns = st.just(COLUMNS) | st.tuples(*[st.sampled_from(COLUMNS) | CELLS] * 6)
    ends = st.lists(st.sampled_from(["\n", "\r\n", "\r", "\n\n"]), min_size=1, max_size=2)
    marks = st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\0"])
    names = st.sampled_from(["t.csv", "t.tsv"])
    drawn = st.tuples(
        CELL_ROWS, columns, st.sampled_from(",;\t|"), ends, st.booleans(), marks, names, st.sampled_from(ALL)
    )
    explore(drawn, case, times=times, refusal=DataError)


SCALARS = (
    CELLS
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(10**4000), "\ud800", "a\udfff", "x" * 300_000])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=2))


@pytest.mark.parametrize("times", [70, pytest.param(1200, marks=pytest.mark.long)])
def test_any_json(times: int, tmp_path: Path) -> None:
    def case(drawn: tuple[list[dict[str, Any]], bool, Wanted]) -> None:
        objects, whole, wanted = drawn
        lines = [json.dumps(each) for each in objects]
        # an object that lacks nothing, and one more class
        lines += [json.dumps(dict(zip(COLUMNS, row, strict=True)) | (each if whole else {}))
                  for row, each in zip(ROWS, [*objects, {}, {}, {}, {}], strict=False)]  # fmt: skip
        (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
        check(tmp_path / "t.jsonl", wanted)

    keys = st.sampled_from(COLUMNS)
    objects = st.lists(st.dictionaries(keys | CELLS, VALUES, max_size=4), max_size=3) | st.lists(
        st.dictionaries(keys, SCALARS | st.sampled_from([["cat"], [], [1.0, 2], [None], {"a": 1}]), max_size=2),
        max_size=3,
    )
    explore(st.tuples(objects, st.booleans(), st.sampled_from(ALL)), case, times=times, refusal=DataError)


@pytest.mark.parametrize("times", [80, pytest.param(800, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_of_a_folder(kind: str, times: int, tmp_path: Path) -> None:
    """As Hugging Face's folders have it: above the parts, or in one of them."""
    named = [(part, *pair) for part in ("train", "val") for pair in (("a", "cat"), ("b", "dog"))]
    rows = [(f"{part}/{name}.jpg", "t", 1, 2, label, "train") for part, name, label in named]
    data = {"csv": csv_of, "jsonl": json_of}[kind](rows).replace("path", "file_name").replace("split", "other").encode()
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for name in "ab":
            (tmp_path / part / f"{name}.jpg").write_bytes(b"x")
    places = [tmp_path / f"metadata.{kind}", tmp_path / "train" / f"metadata.{kind}"]

    def case(rng: random.Random) -> None:
        place = rng.choice(places)
        place.write_bytes(damaged(data, rng, most=2))
        try:
            check(tmp_path, IMAGES)
        finally:
            place.unlink()

    withstand(case, times=times, seed=22, refusal=DataError)


@pytest.mark.parametrize("value", [[None], [["cat"]], [1.5], {"cat": 1}])
def test_labels_of_a_sample_are_names(value: Any, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "a", "label": value}) + '\n{"text": "b", "label": ["cat"]}')
    with pytest.raises(DataError, match=r"line 1: label is .*where labels were expected"):
        open_training(tmp_path / "t.jsonl", None, SEVERAL)


def test_a_table_without_any_label_or_number(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a", "label": []}\n{"text": "b", "label": []}')
    with pytest.raises(DataError, match="no labels"):
        open_training(tmp_path / "t.jsonl", None, SEVERAL)
    with pytest.raises(DataError, match="line 1: label holds no numbers"):
        open_training(tmp_path / "t.jsonl", None, Wanted("text", "regression"))


def test_a_path_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    """Devices and pipes, by a path or by a link, would be read for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "t.csv").write_text("path,label\npipe,a\nlink,b\n/dev/zero,b\n.,a\n")
    samples = open_training(tmp_path / "t.csv", None, IMAGES)[0].samples
    for sample in samples:
        with pytest.raises(DataError, match="is not a file"):
            sample.read()


def test_names_of_folders_and_files(tmp_path: Path) -> None:
    odd = ["\x1b[31m", "a\nb", "\u202e", "=1+1", "' or 1", "a" * 200, "-rf"]
    for name in odd:
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / f"{name}.jpg").write_bytes(b"x")
    dataset = open_training(tmp_path / "data", None, IMAGES)[0]
    assert sorted(dataset.labels) == sorted(odd)
    assert len(dataset.samples) == len(odd)
    assert all(sample.read() == b"x" for sample in dataset.samples)
    folder = tmp_path / "data" / os.fsdecode(b"\xff\xfe")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    with contextlib.suppress(DataError):
        assert open_training(tmp_path / "data", None, IMAGES)[0].samples[-1].read() == b"x"
