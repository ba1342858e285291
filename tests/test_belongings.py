"""Files of the user's in directories of edgetl's: nothing replaces or removes them."""

import shutil
from pathlib import Path

import pytest

from edgetl.belongings import own_names, refuse_others
from edgetl.errors import EdgetlError
from edgetl.run import FILES


@pytest.fixture
def prepared(digits_artifacts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_artifacts, tmp_path / "art"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("")
    return tmp_path / "run"


@pytest.mark.parametrize("kind", ["prepared", "run"])
@pytest.mark.parametrize("name", ["notes.txt", "photos/one.png", ".hidden", "weights/mine.npz", "backbone.onnx.bak"])
def test_a_file_of_somebody_elses_is_named(kind: str, name: str, request: pytest.FixtureRequest) -> None:
    directory: Path = request.getfixturevalue(kind)
    refuse_others(directory)
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text("precious")
    with pytest.raises(EdgetlError, match=f"{name} was not written by edgetl and would be lost: move it"):
        refuse_others(directory)


def test_what_is_being_written_and_links_to_folders(prepared: Path, tmp_path: Path) -> None:
    (prepared / ".edgetl-abcdefgh.partial").write_text("")
    refuse_others(prepared)
    (prepared / "data").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(EdgetlError, match="data was not written"):
        refuse_others(prepared)


def test_nothing_is_in_the_way_where_nothing_is(tmp_path: Path) -> None:
    refuse_others(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    refuse_others(tmp_path / "empty")


def test_a_damaged_directory_may_be_replaced(prepared: Path) -> None:
    (prepared / "manifest.json").write_text("{")
    refuse_others(prepared)


def test_another_versions_files_are_known_by_its_manifest(prepared: Path) -> None:
    (prepared / "manifest.json").write_text('{"files": {"training.onnx": ""}}')
    assert {"training.onnx", "manifest.json"} < own_names(prepared)
