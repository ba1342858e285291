import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.data.dataset import Dataset, Wanted, label_names, open_inputs, open_measured, open_training
from edgetl.data.sample import Row
from edgetl.errors import DataError
from edgetl.events import Event, Note

X = np.arange(24, dtype=np.float64).reshape(4, 2, 3)


def save(file: Path, **arrays: Any) -> Path:
    np.savez(file, **arrays)
    return file


def train(file: Path, **wanted: Any) -> Dataset:
    return open_training(file, None, Wanted("array", **wanted))[0]


def test_rows_are_samples(tmp_path: Path) -> None:
    dataset = train(save(tmp_path / "d.npz", x=X, y=[1, 0, 2, 1]), shape=(2, 3))
    assert dataset.labels == ("0", "1", "2")
    assert [sample.label for sample in dataset.samples] == [1, 0, 2, 1]
    assert dataset.samples[2].name == "d.npz x[2]"
    assert np.frombuffer(dataset.samples[2].read(), "<f4").tolist() == X[2].reshape(-1).tolist()


@pytest.mark.parametrize("y", [[0, 1, 0, 1], np.array([0, 1, 0, 1], np.uint8), [False, True, False, True]])
def test_indices_mean_the_archives_labels_or_else_the_artifacts(tmp_path: Path, y: Any) -> None:
    named = save(tmp_path / "a.npz", x=X, y=y, labels=["on", "off"])
    assert [sample.label for sample in train(named, labels=("off", "on")).samples] == [1, 0, 1, 0]
    plain = save(tmp_path / "b.npz", x=X, y=y)
    assert [sample.label for sample in train(plain, labels=("off", "on")).samples] == [0, 1, 0, 1]
    texts = save(tmp_path / "c.npz", x=X, y=["on", "off", "on", "off"])
    assert [sample.label for sample in train(texts, labels=("off", "on")).samples] == [1, 0, 1, 0]
    assert label_names(named, "classification", ()) == ("on", "off")
    with pytest.raises(DataError, match="differ"):
        train(named, labels=("off", "low"))


def test_parts(tmp_path: Path) -> None:
    file = save(tmp_path / "d.npz", x_train=X, y_train=[0, 1, 0, 1], x_test=X[:3], y_test=[0, 1, 1])
    trained, validated = open_training(file, None, Wanted("array"))
    assert validated is not None
    assert [len(trained.samples), len(validated.samples)] == [4, 3]
    assert len(open_measured(file, Wanted("array")).samples) == 3
    assert len(open_inputs(save(tmp_path / "e.npz", x=X), Wanted("array"))) == 4


def test_several_labels_and_numbers(tmp_path: Path) -> None:
    file = save(tmp_path / "d.npz", x=X, y=[[0, 1], [1, 1], [0, 0], [1, 0]], labels=["a", "b"])
    assert train(file, task="multilabel").labels == ("a", "b")
    assert train(file, task="multilabel").samples[1].label == (1.0, 1.0)
    assert train(save(tmp_path / "e.npz", x=X, y=[1.5, 2, 3, 4]), task="regression").samples[0].label == (1.5,)


def test_axes_of_one_do_not_matter(tmp_path: Path) -> None:
    file = save(tmp_path / "d.npz", x=X, y=[0, 1, 0, 1])
    assert len(train(file, shape=(1, 2, 3)).samples) == 4
    with pytest.raises(DataError, match=r"float64 \[4, 2, 3\].*samples of \[3, 2\]"):
        train(file, shape=(3, 2))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "call the samples x and their labels y"),
        ({"a": X, "b": [1]}, "call the samples x and their labels y"),
        ({"x": X, "y": [0, 1]}, "4 labels were expected"),
        ({"x": X, "y": 3}, "4 labels were expected"),
        ({"x": X[:0], "y": np.zeros(0, int)}, "numbers .* were expected"),
        ({"x": np.float64(3), "y": 3}, "numbers .* were expected"),
        ({"x": ["a", "b"], "y": [0, 1]}, "numbers .* were expected"),
        ({"x": X, "y": [0, 1, 2, -1]}, "no indices"),
        ({"x": X, "y": [0.5, 1, 2, 3]}, "whole number"),
        ({"x": X, "y": [0, 1, 2, 5], "labels": ["a", "b", "c"]}, "no indices of 3 classes"),
        ({"x": X, "y": np.array([{}] * 4, dtype=object)}, "Python objects"),
        ({"x": np.array([{}] * 4, dtype=object), "y": [0, 1, 0, 1]}, "Python objects"),
    ],
)
def test_what_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        train(save(tmp_path / "d.npz", **arrays))
    assert "d.npz" in str(raised.value)


@pytest.mark.parametrize(("task", "y"), [("regression", [1, 2, np.nan, 3]), ("multilabel", [[2], [0], [0], [1]])])
def test_labels_that_are_refused(tmp_path: Path, task: str, y: Any) -> None:
    with pytest.raises(DataError, match=r"d\.npz"):
        train(save(tmp_path / "d.npz", x=X, y=y), task=task)


def test_a_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 100)})
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", head.getvalue() + bytes(10**6))
        archive.writestr("y.npy", b"")
    with pytest.raises(DataError):
        train(tmp_path / "d.npz")
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", head.getvalue() + bytes(10**6))
    with pytest.raises(DataError, match=r"800\.0 GB"):
        open_inputs(tmp_path / "d.npz", Wanted("array"))


@pytest.mark.parametrize(
    "names",
    [
        ("x", "y", "x_val", "y_val"),
        ("X_train", "Y_train", "X_valid", "Y_valid"),
        ("train_x", "train_y", "testX", "testY"),
    ],
)
def test_parts_in_their_usual_forms(tmp_path: Path, names: tuple[str, ...]) -> None:
    y = np.array([0, 1, 0, 1][: len(X)])
    file = save(tmp_path / "d.npz", **dict(zip(names, (X, y, X, y), strict=True)), yes=y, sex=y)
    notes: list[Event] = []
    train_set, val_set = open_training(file, None, Wanted("array"), notes.append)
    assert val_set is not None
    assert (len(train_set.samples), len(val_set.samples), notes) == (len(X), len(X), [])


def test_a_part_without_labels_is_named(tmp_path: Path) -> None:
    file = save(tmp_path / "d.npz", x=X, y=[0, 1, 0, 1], x_val=X)
    notes: list[Event] = []
    assert open_training(file, None, Wanted("array"), notes.append)[1] is None
    assert notes == [Note(f"not used: 'x_val' in {file}, where samples or labels of the part are missing")]
    assert len(open_inputs(file, Wanted("array"))) == 2 * len(X)


def test_other_modalities_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--modality array"):
        open_training(save(tmp_path / "d.npz", x=X, y=[0, 1, 0, 1]), None, Wanted("image"))
    for content in (b"", b"PK", b"hello"):
        (tmp_path / "e.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"e\.npz is not an \.npz archive"):
            train(tmp_path / "e.npz")
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no \.csv, \.tsv or \.npy file of numbers"):
        train(tmp_path / "data")


@pytest.mark.parametrize("x", [X, np.asfortranarray(X), X[::2], X.astype(">i2")], ids=["C", "F", "strided", "swapped"])
def test_arrays_that_are_not_compressed_stay_on_the_disk(tmp_path: Path, x: np.ndarray) -> None:
    file = save(tmp_path / "d.npz", x=x, y=[0, 1, 0, 1][: len(x)])
    samples = train(file).samples
    assert all(isinstance(sample.source, Row) and isinstance(sample.source.array, np.memmap) for sample in samples)
    read = [np.frombuffer(sample.read(), "<f4").tolist() for sample in samples]
    assert read == [row.reshape(-1).tolist() for row in x]


def test_a_flipped_bit_of_an_array_on_the_disk_is_found(tmp_path: Path) -> None:
    file = save(tmp_path / "d.npz", x=X, y=[0, 1, 0, 1])
    data = bytearray(file.read_bytes())
    data[data.index(X.tobytes()) + 100] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        train(file)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7), st.integers(0, 2000), st.sampled_from([np.savez, np.savez_compressed]))
def test_damage_is_a_sentence_or_does_no_harm(position: int, bit: int, cut: int, write: Callable[..., None]) -> None:
    import tempfile

    stream = io.BytesIO()
    write(stream, x=X, y=[0, 1, 0, 1])
    data = bytearray(stream.getvalue())
    data[position % len(data)] ^= 1 << bit
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "d.npz"
        file.write_bytes(data[: len(data) - cut] if cut < len(data) // 2 else data)
        with contextlib.suppress(DataError):
            assert len(train(file).samples) == 4
