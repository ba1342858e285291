from pathlib import Path

import pytest
from conftest import write_pictures
from hypothesis import given
from hypothesis import strategies as st

from edgetl.data.folder import open_folder, split_stratified, strata
from edgetl.errors import DataError


def test_classes_are_folders_in_order_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"b": 2, "a": 3})
    (tmp_path / "a" / ".hidden").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "a" / "more").mkdir()
    (tmp_path / "a" / "000.png").rename(tmp_path / "a" / "more" / "000.png")
    dataset = open_folder(tmp_path)
    assert dataset.labels == ("a", "b")
    assert [sample.label for sample in dataset.samples] == [0, 0, 0, 1, 1]
    assert tmp_path / "a" / "more" / "000.png" in {sample.path for sample in dataset.samples}


def test_labels_decide_the_order(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 1, "b": 1})
    assert [s.path.parent.name for s in open_folder(tmp_path, ("b", "a")).samples] == ["b", "a"]


def test_differing_names_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"cat": 1, "dgo": 1})
    with pytest.raises(DataError, match=r"no folder for 'dog'; folders that the artifacts do not know: 'dgo'"):
        open_folder(tmp_path, ("cat", "dog"))


@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "holds no folders"), ({"only": 2}, "one class only"), ({"a": 1, "b": 0}, "b is empty")],
)
def test_unusable_folders(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    write_pictures(tmp_path, counts)
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)


def test_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        open_folder(tmp_path / "file")


def test_loose_files_are_no_class(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds files, but no folders: .* or give a table"):
        open_folder(tmp_path)


def test_what_measures_may_lack_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"bolt": 2, "nut": 0})
    labels = ("bolt", "nut", "rust")
    dataset = open_folder(tmp_path, labels, complete=False)
    assert dataset.labels == labels
    assert [sample.label for sample in dataset.samples] == [0, 0]
    with pytest.raises(DataError, match="no folder for 'rust'"):
        open_folder(tmp_path, labels)
    with pytest.raises(DataError, match="nut is empty"):
        open_folder(tmp_path, labels[:2])
    with pytest.raises(DataError, match="do not know: 'nut'"):
        open_folder(tmp_path, ("bolt", "rust"), complete=False)
    (tmp_path / "bolt").rename(tmp_path / "rust")
    with pytest.raises(DataError, match="do not know: 'nut'"):
        open_folder(tmp_path, ("rust", "x"), complete=False)
    for file in (tmp_path / "rust").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="holds no files"):
        open_folder(tmp_path, ("rust", "nut"), complete=False)


labels = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@given(labels, st.floats(0, 0.9), st.integers(0, 3))
def test_a_split_is_stratified_complete_and_repeatable(labels: list[int], fraction: float, seed: int) -> None:
    train, val = split_stratified(labels, fraction, seed)
    assert sorted([*train, *val]) == list(range(len(labels)))
    for found, again in zip((train, val), split_stratified(labels, fraction, seed), strict=True):
        assert found.tolist() == again.tolist() == sorted(found)
    for label in set(labels):
        count = labels.count(label)
        held = sum(labels[i] == label for i in val)
        assert held < count
        if fraction == 0:
            assert held == 0
        elif count > 1:
            assert held == min(max(round(count * fraction), 1), count - 1)


def test_another_seed_splits_otherwise() -> None:
    one, other = (split_stratified([0, 1] * 50, 0.2, seed)[1].tolist() for seed in (0, 1))
    assert one != other


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=50))
def test_samples_of_several_labels_go_by_their_rarest(rows: list[tuple[int, ...]]) -> None:
    counts = [sum(row[k] for row in rows) for k in range(3)]
    for row, stratum in zip(rows, strata("multilabel", rows), strict=True):
        if any(row):
            assert row[stratum]
            assert counts[stratum] == min(counts[k] for k in range(3) if row[k])
        else:
            assert stratum == 3


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300))
def test_numbers_go_by_bins_of_like_size(values: list[float]) -> None:
    found = strata("regression", [(value, 0.0) for value in values]).tolist()
    sizes = [found.count(stratum) for stratum in set(found)]
    assert len(sizes) <= 10
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(10, len(values))
    for value, stratum in zip(values, found, strict=True):
        assert all(other >= value for other, behind in zip(values, found, strict=True) if behind > stratum)
