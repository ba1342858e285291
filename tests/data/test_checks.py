"""Labels that contradict each other, samples that look alike, and classes without samples are named."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl import deploy, evaluate, finetune
from edgetl.data.checks import contradictions, groups_at_odds, missing, odd_columns
from edgetl.events import Event, Note

NAMES = ("a", "b", "c")


def test_only_groups_with_several_labels_are_at_odds() -> None:
    keys = np.array([5, 3, 5, 3, 9, 5])
    assert list(groups_at_odds(keys, np.array([0, 1, 0, 1, 2, 1]))) == [(0, 5)]
    assert list(groups_at_odds(keys, np.array([[0.0], [1], [0], [2], [2], [0]]))) == [(1, 3)]
    assert not list(groups_at_odds(np.empty(0), np.empty(0, np.int64)))


def test_contradictions_are_told() -> None:
    digests = [b"1", b"2", b"1", b"2", b"3"]
    assert contradictions(digests, np.array([0, 1, 2, 1, 1]), NAMES, str) == (
        "1 content has more than one label, which contradict each other: 0 is 'a', and 2 is 'c'"
    )
    assert contradictions(digests, np.array([0, 1, 0, 1, 1]), NAMES, str) is None
    assert contradictions([], np.empty(0, np.int64), NAMES, str) is None
    found = contradictions([b"1"] * 2, np.array([[1.5], [2.0]]), ("price",), str)
    assert found is not None
    assert found.endswith("0 is price 1.5, and 1 is price 2")


def test_missing_labels_are_told() -> None:
    assert missing(NAMES, np.array([0, 1, 2]), "sample") is None
    assert missing(NAMES, np.array([0]), "sample") == (
        "there is no sample of 'b', 'c', so how well they are recognised is not measured"
    )
    assert missing(NAMES, np.array([[1.0, 1, 0]]), "sample") == (
        "there is no sample of 'c', so how well it is recognised is not measured"
    )


def texts(notes: list[Event]) -> list[str]:
    return [note.text for note in notes if isinstance(note, Note)]


@pytest.fixture
def pictures(digits: Path, tmp_path: Path) -> Path:
    """Six of each digit, of which one 6 is a 9, too."""
    root = tmp_path / "data"
    for digit in "6789":
        (root / digit).mkdir(parents=True)
        for file in sorted((digits / "train" / digit).iterdir())[:6]:
            (root / digit / file.name).write_bytes(file.read_bytes())
    (root / "9" / "same.png").write_bytes(next((root / "6").iterdir()).read_bytes())
    return root


@pytest.mark.parametrize("fraction", [0, 0.2])
@pytest.mark.parametrize("form", ["folders", "table"])
def test_two_classes_with_one_picture(
    pictures: Path, digits_artifacts: Path, tmp_path: Path, form: str, fraction: float
) -> None:
    data = pictures
    if form == "table":
        data = tmp_path / "table.csv"
        with data.open("w", newline="") as stream:
            files = sorted(pictures.rglob("*.png"))
            csv.writer(stream).writerows([("path", "label"), *((file, file.parent.name) for file in files)])
    notes: list[Event] = []
    finetune(digits_artifacts, data, out=tmp_path / "run", epochs=1, val_fraction=fraction, on_event=notes.append)
    (found,) = [text for text in texts(notes) if "more than one label" in text]
    assert "same.png is '9'" in found
    assert "is '6'" in found
    assert not [text for text in texts(notes) if "look the same to the network" in text]
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    notes.clear()
    evaluate(tmp_path / "model.onnx", data, on_event=notes.append)
    assert [text for text in texts(notes) if "more than one label" in text] == [found]


def test_pictures_that_are_all_black(digits_artifacts: Path, tmp_path: Path) -> None:
    for digit in "6789":
        (tmp_path / "data" / digit).mkdir(parents=True)
        for number in range(3):
            # other contents, but the same after resizing
            Image.new("L", (20 + number, 30)).save(tmp_path / "data" / digit / f"{number}.png")
    notes: list[Event] = []
    finetune(digits_artifacts, tmp_path / "data", out=tmp_path / "run", epochs=1, val_fraction=0, on_event=notes.append)
    assert any(text.startswith("all 12 training samples look the same to the network") for text in texts(notes))


def test_other_contents_that_look_the_same(pictures: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    (pictures / "9" / "same.png").unlink()
    image = Image.open(sorted((pictures / "6").iterdir())[0])
    image.save(pictures / "8" / "again.bmp")
    notes: list[Event] = []
    finetune(digits_artifacts, pictures, out=tmp_path / "run", epochs=1, val_fraction=0, on_event=notes.append)
    (found,) = [text for text in texts(notes) if "the same to the network" in text]
    assert found.startswith("1 training sample looks the same")
    assert "again.bmp" in found


def test_a_class_without_samples_to_measure(pictures: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    import json

    data = tmp_path / "parts"
    data.mkdir()
    pictures.rename(data / "train")
    for digit in "67":
        (data / "val" / digit).mkdir(parents=True)
        file = sorted((data / "train" / digit).iterdir())[-1]
        file.rename(data / "val" / digit / file.name)
    (data / "val" / "8").mkdir()  # empty, and there is none for 9
    notes: list[Event] = []
    result = finetune(digits_artifacts, data, out=tmp_path / "run", epochs=2, on_event=notes.append)
    sentence = "of '8', '9', so how well they are recognised is not measured"
    assert [text for text in texts(notes) if sentence in text] == [f"there is no validation sample {sentence}"]
    assert result.val_samples == 2
    assert all(np.isfinite(value) for value in result.val_figures.values() if value is not None)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "nan" not in page.lower().split("</style>")[-1]
    deploy(tmp_path / "run", out=tmp_path / "model.onnx")
    notes.clear()
    measured = evaluate(tmp_path / "model.onnx", data, on_event=notes.append)
    assert f"there is no sample {sentence}" in texts(notes)
    assert measured.per_label["8"] == {"precision": measured.per_label["8"]["precision"], "recall": None,
                                       "f1": measured.per_label["8"]["f1"], "support": 0}  # fmt: skip
    json.dumps(measured.figures, allow_nan=False)


def test_columns_that_never_vary_and_far_larger_ones_are_named() -> None:
    smallest, largest = np.array([-1.0, 5.0, 0.1, 1.7e9]), np.array([2.0, 5.0, 0.9, 1.73e9])
    constant, huge = odd_columns(smallest, largest, ("a", "b", "c", "time"))
    assert constant == "the column 'b' varies in no training sample, and tell nothing".replace("tell", "tells")
    assert huge.startswith("the column 'time' is up to 1.73e+09 large where numbers of other columns are around")
    assert list(odd_columns(smallest[:1], largest[:1], ())) == []
    # what is far larger and hardly varies is told once
    (huge,) = odd_columns(np.array([0.0, 0.0, 1e9]), np.array([1.0, 2.0, 1e9 + 60]), ("a", "b", "serial"))
    assert "'serial' is up to 1e+09 large" in huge
    (both,) = odd_columns(np.array([3.0, 7.0, 0.0]), np.array([3.0, 7.0, 1.0]), ())
    assert both.startswith("the columns '1', '2' vary in no training sample, and tell nothing")
    # if nothing varies at all, that is told of the samples
    assert list(odd_columns(np.ones(3), np.ones(3), ())) == []
