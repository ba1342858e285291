"""Files of numbers that are one sample each, in a folder for each class."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgetl.data.dataset import Wanted, label_names, open_inputs, open_measured, open_training
from edgetl.data.series import Series, fitted, is_series, read_series, series_shape
from edgetl.errors import DataError
from edgetl.events import Event, Note

NAMES = ("aX", "aY", "aZ")
VALUES = np.array([[1.5, -2, 3e-3], [4, 5, 6], [7, 8, 9], [0, 1, 2]])


def npy(values: NDArray[np.generic]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def text(
    values: NDArray[np.float64] = VALUES, names: tuple[str, ...] = NAMES, between: str = ",", end: str = "\n"
) -> bytes:
    rows = [between.join(names)] * bool(names) + [between.join(f"{value:g}" for value in row) for row in values]
    return (end.join(rows) + end).encode()


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (text(), NAMES),
        (text(names=()), ()),
        (text(between=";"), NAMES),
        (text(between="\t", end="\r\n"), NAMES),
        (text(names=(), between=" "), ()),
        (b"\xef\xbb\xbf" + text(), NAMES),
        (b"# made by a sensor\n" + text(names=()) + b"\n\n", ()),
        (b'"aX","aY","aZ"\n' + text(names=()), NAMES),
        (text(np.column_stack([np.arange(4), VALUES]), ("", *NAMES)), NAMES),
        (text().replace(b"1.5", b'"1.5"'), NAMES),
    ],
)
def test_csv(data: bytes, names: tuple[str, ...]) -> None:
    found = read_series(data, ".csv")
    assert found.columns == names
    np.testing.assert_array_equal(found.values, VALUES)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "|u1", "|b1"])
def test_npy(dtype: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    np.testing.assert_array_equal(read_series(npy(values), ".npy").values, values)


@pytest.mark.parametrize(
    ("data", "suffix", "message"),
    [
        (b"", ".csv", "is empty"),
        (b"# nothing\n", ".csv", "holds no numbers"),
        (b"aX,aY\n", ".csv", "names of columns, but no numbers"),
        (b"1,2\n3\n", ".csv", "does not hold rows of numbers"),
        (b"1,2\n3,x\n", ".csv", "does not hold rows of numbers .could not convert string 'x'"),
        (b"1,2\n3,\n", ".csv", "does not hold rows of numbers"),
        (b"a,a\n3,4\n", ".csv", "repeated column name"),
        (b"a,b,c\n3,4\n", ".csv", "names 3 columns, but has 2"),
        (b"\xff\xfe1", ".csv", "is not UTF-8"),
        (b"junk", ".npy", "is not an .npy file"),
        (npy(np.array(["a"])), ".npy", "is not an .npy file of numbers"),
        (npy(np.empty((0, 3))), ".npy", "holds no numbers"),
        (npy(np.array([1, 2]))[:-3], ".npy", "is not an .npy file"),
    ],
)
def test_other_files_are_refused(data: bytes, suffix: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_series(data, suffix)


def test_a_pickle_is_refused() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"is not an .npy file of numbers"):
        read_series(stream.getvalue(), ".npy")


def test_shapes() -> None:
    rows = Series(VALUES, NAMES)
    np.testing.assert_array_equal(fitted(rows, (4, 3)), VALUES.astype(np.float32))
    np.testing.assert_array_equal(fitted(rows, (3, 4)), VALUES.T.astype(np.float32))
    np.testing.assert_array_equal(fitted(rows, (1, 3, 4, 1))[0, :, :, 0], VALUES.T.astype(np.float32))
    # the middle of more rows, the ends of fewer again
    np.testing.assert_array_equal(fitted(rows, (2, 3)), VALUES[1:3].astype(np.float32))
    np.testing.assert_array_equal(fitted(rows, (3, 7)), VALUES[[0, 0, 1, 2, 3, 3, 3]].T.astype(np.float32))
    np.testing.assert_array_equal(fitted(Series(np.array([[1.0], [2.0]])), (1, 4)), [[1, 1, 2, 2]])
    np.testing.assert_array_equal(fitted(Series(np.array([[1.0, 2.0]])), (2,)), [1, 2])
    for series, shape in (
        (rows, (5, 2)),
        (Series(np.array([[1.0, 2.0]])), (3,)),
        (Series(np.zeros((2, 3, 4))), (4, 3, 2)),
    ):
        with pytest.raises(DataError, match=r"numbers, but the network takes"):
            fitted(series, shape)


def test_columns_go_by_their_names() -> None:
    series = Series(VALUES, NAMES)
    np.testing.assert_array_equal(fitted(series, (4, 2), ("aZ", "aX")), VALUES[:, [2, 0]].astype(np.float32))
    with pytest.raises(DataError, match="has no column 'gX'; it has 'aX', 'aY', 'aZ'"):
        fitted(series, (4, 2), ("aX", "gX"))
    # a file that names none has them in order
    np.testing.assert_array_equal(fitted(Series(VALUES), (4, 3), NAMES), VALUES.astype(np.float32))


@pytest.fixture
def motions(tmp_path: Path) -> Path:
    for part, count in (("Train", 3), ("test", 1)):
        for label, kind in enumerate(("rest", "walk")):
            folder = tmp_path / "motions" / part / kind
            folder.mkdir(parents=True)
            for number in range(count):
                values = np.full((10 + number, 3), label + 0.1 * number) + np.arange(3)
                (folder / f"{number}.csv").write_bytes(text(values))
    # the same columns in another order
    (tmp_path / "motions/Train/walk/0.csv").write_bytes(text(np.array([[3, 2, 1.0]] * 10), ("aZ", "aY", "aX")))
    return tmp_path / "motions"


def test_a_folder_for_each_class(motions: Path) -> None:
    assert label_names(motions, "classification", ()) == ("rest", "walk")
    notes: list[Event] = []
    wanted = Wanted("array", labels=("walk", "rest"), shape=(3, 10))
    train, val = open_training(motions, None, wanted, notes.append)
    assert val is not None
    assert (train.input_columns, len(train.samples), len(val.samples)) == (NAMES, 6, 2)
    assert notes == [
        Note(f"of 6 files in {motions / 'Train'}, 4 are longer, of which the middle is taken (the network takes 3×10)")
    ]
    first = np.frombuffer(train.samples[0].read(), "<f4").reshape(3, 10)
    np.testing.assert_array_equal(first, np.repeat([[1], [2], [3]], 10, axis=1))
    assert train.samples[0].place == str((motions / "Train/walk/0.csv").resolve())
    measured = open_measured(motions, wanted)
    assert [sample.label for sample in measured.samples] == [0, 1]


def test_a_file_of_another_form_is_one_sentence(motions: Path) -> None:
    (motions / "Train/walk/bad.csv").write_text("a,b\n1,2\n")
    (motions / "Train/walk/bad.npy").write_text("x")
    train, _ = open_training(motions, None, Wanted("array", shape=(3, 10)))
    for sample in train.samples:
        if "bad" in sample.name:
            with pytest.raises(DataError, match=r"has no column 'aX', 'aY', 'aZ'|is not an .npy file"):
                sample.read()
    for file in motions.rglob("*.*"):
        if file.is_file():
            file.rename(file.with_suffix(".dat"))
    with pytest.raises(DataError, match=r"no .csv, .tsv or .npy file of numbers in them"):
        open_training(motions, None, Wanted("array", shape=(3, 10)))


def test_shape_of_a_sample(motions: Path, tmp_path: Path) -> None:
    files = sorted(motions.rglob("*.csv"))
    assert series_shape(files) == (12, 3)
    (tmp_path / "one.npy").write_bytes(npy(np.zeros((20, 1))))
    assert series_shape([tmp_path / "one.npy"]) == (20,)
    (tmp_path / "two.npy").write_bytes(npy(np.zeros((20, 2))))
    assert series_shape([*files, tmp_path / "two.npy"]) is None
    assert series_shape([]) is None


def test_what_predict_is_given(motions: Path, tmp_path: Path) -> None:
    window = motions / "test/rest/0.csv"
    assert is_series(window, (3, 10))
    assert is_series(window, (10, 3), NAMES)
    assert not is_series(window, (3,))  # a table of ten samples
    (tmp_path / "column.csv").write_text("1\n2\n")
    assert is_series(tmp_path / "column.csv", (1, 2))
    wanted = Wanted("array", shape=(3, 10))
    (alone,) = open_inputs(window, wanted)
    assert len(alone.read()) == 3 * 10 * 4
    assert len(open_inputs(motions / "test", wanted)) == 2
    assert len(open_inputs(window, Wanted("array", shape=(3,)))) == 10
