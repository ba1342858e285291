import json
import shutil
from pathlib import Path

import pytest

from edgetl.artifacts import MANIFEST, SCHEMA_VERSION, load_artifacts
from edgetl.errors import ArtifactsError
from edgetl.files.seal import seal_json


@pytest.fixture
def copy(tmp_path: Path, digits_artifacts: Path) -> Path:
    return Path(shutil.copytree(digits_artifacts, tmp_path / "artifacts"))


def edit(directory: Path, **changes: object) -> None:
    manifest = json.loads((directory / MANIFEST).read_text())
    (directory / MANIFEST).write_text(json.dumps(seal_json({**manifest, **changes})))


def test_the_committed_directory_is_whole(digits_artifacts: Path) -> None:
    artifacts = load_artifacts(digits_artifacts)
    assert artifacts.manifest.labels == ("6", "7", "8", "9")
    assert artifacts.has_backbone
    listed = set(artifacts.manifest.files) | {MANIFEST}
    assert listed == {p.relative_to(digits_artifacts).as_posix() for p in digits_artifacts.rglob("*") if p.is_file()}


def test_every_altered_or_missing_file_is_named(copy: Path) -> None:
    for name in load_artifacts(copy).manifest.files:
        file = copy / name
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[len(flipped) // 2] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(ArtifactsError, match=f"{file} is not the file that was prepared"):
            load_artifacts(copy)
        file.unlink()
        with pytest.raises(ArtifactsError, match=f"{file} is missing"):
            load_artifacts(copy)
        file.write_bytes(content)
    load_artifacts(copy)


def test_a_newer_schema_asks_for_an_update(copy: Path) -> None:
    edit(copy, schema_version=SCHEMA_VERSION + 1, labels="no longer a list")
    with pytest.raises(ArtifactsError, match="update edgetl"):
        load_artifacts(copy)


def test_a_manifest_cannot_lead_out_of_its_directory(copy: Path) -> None:
    before = load_artifacts(copy).manifest.files
    for name in ("../secret", "/etc/passwd", "a/../../b", "c:\\x"):
        edit(copy, files={**before, name: "0" * 64})
        with pytest.raises(ArtifactsError, match="outside"):
            load_artifacts(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "null", "{}", '{"schema_version": 1}'])
def test_a_damaged_manifest_is_one_sentence(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(ArtifactsError, match=MANIFEST):
        load_artifacts(copy)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"task": "guessing"}, "'task' is 'guessing'"),
        ({"engines": []}, "'engines' is empty"),
        ({"engines": ["magic"]}, "'engines' is 'magic'"),
        ({"labels": ["6", "7", "8", "8"]}, "one name for each of 4 outputs"),
        ({"labels": ["6", "7"]}, "one name for each of 4 outputs"),
        ({"labels": [], "outputs": 0}, "'outputs' is 0"),
        ({"preprocessing": None}, "'preprocessing' is missing"),
        ({"features": []}, "'features' lists nothing"),
        ({"features": [{"name": "f", "shape": [-4]}]}, r"'f' has the shape \[-4\]"),
        ({"features": [{"name": "f", "shape": [10**9, 10**9]}]}, "'f' has the shape"),
        ({"features": [{"name": "f", "shape": [4], "dtype": "object"}]}, "'f' has the type 'object'"),
        ({"files": {}}, "lists no"),
        ({"modality": "text", "text": {"tokenizer": "t", "max_length": 0}}, "'text.max_length' is 0"),
        (
            {"optimizer": {"name": "adamw", "betas": [0.9, 1.0]}},
            "beta2 of adamw must lie between 0 and just",
        ),
        ({"optimizer": {"epsilon": float("nan")}}, "epsilon of adamw must lie between"),
        ({"backbone_macs": -5}, "'backbone_macs' is -5"),
    ],
)
def test_what_no_prepare_writes_is_refused_by_name(copy: Path, changes: dict[str, object], named: str) -> None:
    edit(copy, **changes)
    with pytest.raises(ArtifactsError, match=named):
        load_artifacts(copy)


def test_a_manifest_whose_content_is_another_than_it_was(copy: Path) -> None:
    text = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(text.replace('"6",', '"5",', 1))
    with pytest.raises(ArtifactsError, match="content_sha256"):
        load_artifacts(copy)
    # order and spaces mean nothing
    (copy / MANIFEST).write_text(json.dumps(dict(reversed(json.loads(text).items()))))
    load_artifacts(copy)


def test_any_other_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactsError, match="not a prepared directory"):
        load_artifacts(tmp_path)


def test_a_link_that_is_switched_later_does_not_mix_two_versions(digits_artifacts: Path, tmp_path: Path) -> None:
    old, new = (Path(shutil.copytree(digits_artifacts, tmp_path / name)) for name in ("old", "new"))
    (new / "backbone.onnx").write_bytes(b"another")
    link = tmp_path / "digits"
    link.symlink_to("old")
    prepared = load_artifacts(link)
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(link)
    assert link.resolve() == new
    assert prepared.file("backbone.onnx").read_bytes() == (old / "backbone.onnx").read_bytes()
    assert prepared.path == link, "messages name what was given"
