import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.data.dataset import Dataset, Wanted, label_names, open_inputs, open_measured, open_training
from edgetl.errors import DataError

IMAGES = Wanted()
TEXTS = Wanted(modality="text")
NUMBERS = Wanted(modality="array", task="regression")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def train(file: Path, wanted: Wanted) -> Dataset:
    return open_training(file, None, wanted)[0]


def labels(dataset: Dataset) -> list[Any]:
    return [sample.label for sample in dataset.samples]


@pytest.mark.parametrize("column", ["file_name", "path", "file", "image"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_paths_are_relative_to_the_table(tmp_path: Path, column: str, delimiter: str) -> None:
    file = write(tmp_path / "t.CSV", f"{column},label\nin/a.png,cat\n{tmp_path}/b.png,dog\n".replace(",", delimiter))
    dataset = train(file, IMAGES)
    assert dataset.labels == ("cat", "dog")
    assert labels(dataset) == [0, 1]
    assert [sample.path for sample in dataset.samples] == [tmp_path / "in" / "a.png", tmp_path / "b.png"]


def test_a_text_is_known_by_its_line(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", 'text,label\n"one\nline, two",x\nthree,y\n')
    first, second = train(file, TEXTS).samples
    assert (first.name, first.read()) == ("t.csv line 3", b"one\nline, two")
    assert (second.name, second.read()) == ("t.csv line 4", b"three")
    assert first.path is None


@given(st.lists(st.tuples(st.text(), st.sampled_from(["a", "b"])), min_size=1, max_size=10))
def test_any_text_comes_back_from_csv_and_json_lines(rows: list[tuple[str, str]]) -> None:
    import tempfile

    rows = [(text.encode(errors="replace").decode().strip() or "x", label) for text, label in rows]
    rows = [(text.replace("\0", "x").replace("\r", "\n").strip() or "x", label) for text, label in rows]
    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    with tempfile.TemporaryDirectory() as name:
        table, lines = Path(name) / "t.csv", Path(name) / "t.jsonl"
        table.write_text(stream.getvalue(), encoding="utf-8", newline="")
        lines.write_text("\n".join(json.dumps({"text": t, "label": label}) for t, label in rows), encoding="utf-8")
        wanted = Wanted(modality="text", labels=("a", "b"))
        for file in (table, lines):
            dataset = train(file, wanted)
            assert [(s.read().decode(), dataset.labels[s.label]) for s in dataset.samples] == rows  # type: ignore[index]


def test_a_split_column_makes_the_parts(tmp_path: Path) -> None:
    text = "text,label,split\na,x,train\nb,y,training\nc,x,validation\nd,y,Test\n"
    file = write(tmp_path / "t.csv", text)
    trained, validated = open_training(file, None, TEXTS)
    assert validated is not None
    assert [sample.read() for sample in trained.samples] == [b"a", b"b"]
    assert [sample.read() for sample in validated.samples] == [b"c"]
    measured = open_measured(file, Wanted(modality="text", labels=("x", "y")))
    assert [sample.read() for sample in measured.samples] == [b"d"]
    assert len(open_inputs(file, TEXTS)) == 4
    with pytest.raises(DataError, match="line 2: split is 'some'"):
        train(write(tmp_path / "u.csv", "text,label,split\na,x,some\n"), TEXTS)


def test_metadata_of_a_folder_and_of_its_parts(tmp_path: Path) -> None:
    one = write(
        tmp_path / "one" / "metadata.csv", "file_name,label\ntrain/a.png,x\ntrain/b.png,y\ntest/c.png,x\n"
    ).parent
    trained, validated = open_training(one, None, IMAGES)
    assert validated is not None
    assert [len(trained.samples), len(validated.samples)] == [2, 1]
    for part, rows in (("train", 'x"}\n{"file_name": "b.png", "label": "y"}\n'), ("test", 'x"}\n')):
        write(tmp_path / "two" / part / "metadata.jsonl", '{"file_name": "a.png", "label": "' + rows)
    trained, validated = open_training(tmp_path / "two", None, IMAGES)
    assert validated is not None
    assert [len(trained.samples), len(validated.samples)] == [2, 1]
    assert label_names(tmp_path / "two", "classification", ()) == label_names(one, "classification", ()) == ("x", "y")


def test_several_labels(tmp_path: Path) -> None:
    wanted = Wanted(task="multilabel")
    expected = [(1.0, 1.0), (0.0, 0.0), (0.0, 1.0)]
    for name, text in (
        ("a.csv", "path,labels\n1,sea; sun\n2,\n3,sun\n"),
        ("b.csv", "path,labels\n1,sun|sea\n2,\n3,sun\n"),
        ("c.jsonl", '{"path":"1","labels":["sun","sea"]}\n{"path":"2","labels":[]}\n{"path":"3","labels":["sun"]}'),
    ):
        dataset = train(write(tmp_path / name, text), wanted)
        assert dataset.labels == ("sea", "sun")
        assert labels(dataset) == expected
    ones = write(tmp_path / "d.csv", "path,sea,sun\n1,1,1\n2,0,0\n3,0,1\n")
    dataset = train(ones, Wanted(task="multilabel", label_columns=("sea", "sun")))
    assert labels(dataset) == expected
    assert labels(train(ones, Wanted(task="multilabel", labels=("sun", "sea")))) == [row[::-1] for row in expected]
    with pytest.raises(DataError, match="must hold 0 or 1"):
        train(write(tmp_path / "e.csv", "path,sea\n1,2\n"), Wanted(task="multilabel", labels=("sea",)))


def test_numbers_to_learn(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "a,b,price,size\n1,2,3.5,-1e3\n4,5,6,7\n")
    dataset = train(file, Wanted("array", "regression", label_columns=("price", "size"), shape=(2,)))
    assert (dataset.labels, dataset.input_columns) == (("price", "size"), ("a", "b"))
    assert labels(dataset) == [(3.5, -1000.0), (6.0, 7.0)]
    assert np.frombuffer(dataset.samples[1].read(), "<f4").tolist() == [4, 5]
    assert labels(train(file, Wanted("array", "regression", labels=("price", "size"))))[1] == (6.0, 7.0)
    chosen = train(file, Wanted("array", "regression", input_columns=("b", "a"), label_columns=("size",), shape=(2, 1)))
    assert np.frombuffer(chosen.samples[0].read(), "<f4").tolist() == [2, 1]
    priced = Wanted("array", "regression", labels=("price", "size"), shape=(2,))
    assert [sample.read() for sample in open_inputs(file, priced)] == [sample.read() for sample in dataset.samples]
    lists = write(tmp_path / "t.jsonl", '{"a": 1, "target": [1, 2.5]}\n{"a": 2, "target": [3, 4]}')
    assert labels(train(lists, NUMBERS)) == [(1.0, 2.5), (3.0, 4.0)]


def test_a_byte_order_mark_and_empty_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "\ufefftext,label\n\na,x\n\nb,y\n")
    assert labels(train(file, TEXTS)) == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no samples"),
        ("path,label\n", "holds no samples"),
        ("path,label\na,x,more\nb,y\n", "line 2 has 3 values for 2 columns"),
        ("path,path\na,x\n", "repeated column name"),
        ("name,label\na,x\n", "no column with a path.*--input-column"),
        ("path,kind\na,x\n", "no column named label, labels, class or target.*--label-column"),
        ("path,label\n../a,x\n", "line 2: path is '../a', which lies outside"),
        ("path,label\nin/../../a,x\n", "lies outside"),
        ("path,label\na\0b,x\n", "lies outside|not a CSV file"),
        ("path,label\n,x\nb,y\n", "line 2: path is empty"),
        ("path,label\na,\nb,y\n", "line 2: label is empty"),
        ("path,label\na,x\nb,x\n", "one class only"),
        ('path,label\n"a,x\n', "not a CSV file"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        train(write(tmp_path / "t.csv", text), IMAGES)
    assert "t.csv" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "line 1 is not JSON"),
        ("[1]", "is not an object"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"path": 3, "label": "x"}', "path is 3, where a text was expected"),
        ('{"path": "a", "label": ["x"]}', "where one label was expected"),
        ('{"path": "\\ud800", "label": "x"}', "surrogate"),
    ],
)
def test_json_lines_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(write(tmp_path / "t.jsonl", text), IMAGES)


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "1e999", "0x10"])
def test_what_is_no_number(tmp_path: Path, value: str) -> None:
    with pytest.raises(DataError, match="line 3: a is"):
        train(write(tmp_path / "t.csv", f"a,target\n1,2\n{value},3\n"), NUMBERS)


def test_foreign_labels_and_wrong_shapes(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "path,label\na,cat\nb,cow\n")
    with pytest.raises(DataError, match="do not know: 'cow'"):
        train(file, Wanted(labels=("cat", "dog")))
    file = write(tmp_path / "u.csv", "a,b,target\n1,2,3\n")
    with pytest.raises(DataError, match=r"gives 2 numbers.*takes \[3\]"):
        train(file, Wanted("array", "regression", shape=(3,)))
    with pytest.raises(DataError, match="gives 1 numbers"):
        train(file, Wanted("array", "regression", labels=("x", "y")))
    with pytest.raises(DataError, match="cannot be both"):
        train(file, Wanted("array", "regression", input_columns=("target",)))


def test_files_that_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(DataError, match="not UTF-8"):
        train(tmp_path / "t.csv", IMAGES)
    with pytest.raises(DataError, match="does not exist"):
        train(tmp_path / "gone.csv", IMAGES)
    with pytest.raises(DataError, match="is a text file, not data"):
        train(write(tmp_path / "t.txt", "x"), IMAGES)
    with pytest.raises(DataError, match="says nothing of regression"):
        train(write(tmp_path / "a" / "x.png", "x").parents[1], Wanted(task="regression"))


def test_a_value_that_is_too_long_for_csv(tmp_path: Path) -> None:
    text = "x" * 200_000
    with pytest.raises(DataError, match="as JSON Lines"):
        train(write(tmp_path / "t.csv", f"text,label\n{text},a\ny,b\n"), TEXTS)
    lines = "".join(json.dumps({"text": t, "label": t[0]}) + "\n" for t in (text, "y"))
    assert train(write(tmp_path / "t.jsonl", lines), TEXTS).samples[0].read() == text.encode()
