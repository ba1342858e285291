"""The parts of a data set are known by their names, and never taken for classes."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write_pictures

from edgetl.data.dataset import Wanted, label_names, open_measured, open_training
from edgetl.data.names import part_of, parts_of
from edgetl.data.parts import Layout, find_layout
from edgetl.errors import DataError
from edgetl.events import Event, Note

CLASSES = {"ripe": 2, "unripe": 2}


TRAIN = """train Train TRAIN training Training_Set train-data train_images images_train trainset TrainingData
           train2017 01_train trainval dataset_train trn"""
VAL = "val Val VALID valid_set validation Validation-Images dev devset val2017 valset"
TEST = "test Test testing test_set TestData testset holdout hold-out Hold_Out eval evaluation eval-set"
NONE = """trains tester retest latest contrast protest invalid valued trainer latrain cat te va tr 1
          train_masks test_cat training_shoes testé"""


@pytest.mark.parametrize(("part", "names"), [("train", TRAIN), ("val", VAL), ("test", TEST), (None, NONE)])
def test_names_of_parts(part: str | None, names: str) -> None:
    assert {name: part_of(name) for name in names.split()} == dict.fromkeys(names.split(), part)


def test_what_evaluates_validates_beside_a_test() -> None:
    assert parts_of(["train", "eval", "test"]) == {"train": "train", "eval": "val", "test": "test"}
    assert parts_of(["train", "dev", "eval"]) == {"train": "train", "dev": "val", "eval": "test"}
    assert parts_of(["train", "eval"]) == {"train": "train", "eval": "test"}


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["seg_train", "seg_test", "seg_pred"], {"seg_train": "train", "seg_test": "test"}),
        (["train_v2", "test_v2", "Validation V2"], {"train_v2": "train", "test_v2": "test", "Validation V2": "val"}),
        (["2019-fruit-train", "2019-fruit-val"], {"2019-fruit-train": "train", "2019-fruit-val": "val"}),
        # words that differ tell of classes, and so does a training part alone
        (["steam_train", "acid_test"], {}),
        (["freight_train", "bus"], {}),
        (["crash_test", "crash_dev"], {}),
    ],
)
def test_other_words_in_names_of_parts_do_not_matter_if_they_are_equal(names: list[str], parts: dict[str, str]) -> None:
    assert parts_of(names) == parts


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Validation", "Test"),
        ("TRAIN", "dev", "eval"),
        ("training_set", "valid", "hold-out"),
    ],
)
def test_parts_are_found(tmp_path: Path, train: str, val: str, test: str) -> None:
    for name in (train, val, test):
        write_pictures(tmp_path / name, CLASSES)
    assert find_layout(tmp_path) == Layout({"train": tmp_path / train, "val": tmp_path / val, "test": tmp_path / test})
    assert label_names(tmp_path, "classification", ()) == ("ripe", "unripe")
    dataset, validation = open_training(tmp_path, None, Wanted())
    assert validation is not None
    assert (dataset.root, validation.root) == (tmp_path / train, tmp_path / val)
    assert open_measured(tmp_path, Wanted()).root == tmp_path / test


def test_classes_may_be_called_like_parts(tmp_path: Path) -> None:
    for number, counts in enumerate(
        ({"test": 1, "rest": 1}, {"train": 1, "car": 1, "bus": 1}, {"valid": 1, "invalid": 1}, {"dev": 1, "ops": 1})
    ):
        write_pictures(tmp_path / str(number), counts)
        assert find_layout(tmp_path / str(number)) == Layout()
        assert label_names(tmp_path / str(number), "classification", ()) == tuple(sorted(counts))
    # with folders of their own
    write_pictures(tmp_path / "deep" / "test", {"2020": 1, "2021": 1})
    write_pictures(tmp_path / "deep", {"rest": 1})
    assert find_layout(tmp_path / "deep") == Layout()
    # the labels decide
    write_pictures(tmp_path / "both", {"train": 1, "test": 1})
    assert find_layout(tmp_path / "both", ("test", "train")) == Layout()
    assert open_training(tmp_path / "both", None, Wanted(labels=("train", "test")))[0].labels == ("train", "test")
    write_pictures(tmp_path / "trains" / "train", {"steam": 1, "diesel": 1})
    write_pictures(tmp_path / "trains", {"car": 1})
    assert find_layout(tmp_path / "trains", ("train", "car")) == Layout()
    assert find_layout(tmp_path / "trains", ("steam", "diesel")).parts == {"train": tmp_path / "trains" / "train"}


def test_a_part_that_the_labels_tell(tmp_path: Path) -> None:
    write_pictures(tmp_path / "Test", CLASSES)
    write_pictures(tmp_path, {"masks": 1})
    assert find_layout(tmp_path, ("ripe", "unripe")) == Layout({"test": tmp_path / "Test"}, unused=("masks",))
    assert find_layout(tmp_path) == Layout()


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", CLASSES)
    write_pictures(tmp_path / "test", CLASSES)
    write_pictures(tmp_path, {"ground_truth": 1})
    (tmp_path / "train" / "loose.png").write_bytes(b"x")
    (tmp_path / "extra.png").write_bytes(b"x")
    for document in ("README.md", "LICENSE", "info.json", ".hidden", "Thumbs.db"):
        (tmp_path / document).write_text("x")
    (tmp_path / "__MACOSX" / "a").mkdir(parents=True)
    notes: list[Event] = []
    open_training(tmp_path, None, Wanted(), notes.append)
    assert notes == [
        Note(f"not used: 'extra.png', 'ground_truth' in {tmp_path}, beside 'train', 'test'"),
        Note(f"not used: 'loose.png' in {tmp_path / 'train'}, outside of its folders of classes"),
    ]


def test_parts_of_loose_files(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"train": 2, "test": 2})
    for given in ((), ("bolt", "nut")):
        with pytest.raises(DataError, match="train holds files, but no folders"):
            open_training(tmp_path, None, Wanted(labels=given))
        with pytest.raises(DataError, match="test holds files, but no folders"):
            open_measured(tmp_path, Wanted(labels=given))
    with pytest.raises(DataError, match="train holds files, but no folders"):
        label_names(tmp_path, "classification", ())


def test_loose_files_to_test_do_not_keep_from_training(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", CLASSES)
    write_pictures(tmp_path, {"test": 2, "val": 0})
    notes: list[Event] = []
    train, val = open_training(tmp_path, None, Wanted(), notes.append)
    assert (train.root, val) == (tmp_path / "train", None)
    assert [note.text for note in notes if isinstance(note, Note)] == [
        f"not used: 'val' in {tmp_path}, beside 'train'",
        f"{tmp_path / 'test'} holds files, but no folders of classes and no table, so it is not used",
    ]


def test_two_of_one_part_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", CLASSES)
    write_pictures(tmp_path / "Training", CLASSES)
    with pytest.raises(DataError, match="'Training', 'train', which are both its part train"):
        open_training(tmp_path, None, Wanted())


def test_nothing_to_train_with(tmp_path: Path) -> None:
    write_pictures(tmp_path / "test", CLASSES)
    with pytest.raises(DataError, match=r"holds what validates or tests \(test\), but nothing to train with"):
        open_training(tmp_path, None, Wanted())
    assert open_measured(tmp_path, Wanted()).root == tmp_path / "test"


def test_parts_within_classes_are_refused(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        write_pictures(tmp_path / kind, {"train": 1, "val": 1})
    with pytest.raises(DataError, match=r"cat holds 'train', 'val', which are parts .* \(train.cat\)"):
        open_training(tmp_path, None, Wanted())


def test_tables_and_archives_are_parts(tmp_path: Path) -> None:
    for name in ("Train.csv", "test.csv"):
        (tmp_path / name).write_text("text,label\ngood,yes\nbad,no\n")
    train, val = open_training(tmp_path, None, Wanted("text"))
    assert val is not None
    assert (train.root.name, val.root.name, train.labels) == ("Train.csv", "test.csv", ("no", "yes"))
    assert label_names(tmp_path, "classification", ()) == ("no", "yes")
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    for name in ("train", "val"):
        np.savez(arrays / f"{name}.npz", x=np.zeros((4, 3)), y=[0, 1, 0, 1])
    assert open_training(arrays, None, Wanted("array"))[0].labels == ("0", "1")


def test_columns_and_first_folders(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,split\na,x,TRAIN\nb,y,training_set\nc,x,Validation\nd,y,Test-Set\n")
    train, val = open_training(tmp_path / "t.csv", None, Wanted("text"))
    assert val is not None
    assert (len(train.samples), len(val.samples)) == (2, 1)
    (tmp_path / "t.csv").write_text("text,label,split\na,x,tomorrow\n")
    with pytest.raises(DataError, match="line 2: split is 'tomorrow'"):
        open_training(tmp_path / "t.csv", None, Wanted("text"))
    described = tmp_path / "metadata.csv"
    described.write_text("file_name,label\nTrain/a.png,x\nTrain/b.png,y\nVal/c.png,x\n")
    train, val = open_training(tmp_path, None, Wanted())
    assert val is not None
    assert (len(train.samples), len(val.samples)) == (2, 1)
    described.write_text("file_name,label\ntest/a.png,x\nrest/b.png,y\nrest/c.png,x\n")
    assert len(open_training(tmp_path, None, Wanted())[0].samples) == 3
