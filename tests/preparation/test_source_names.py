"""Misspelt sources: the message names what was meant."""

from pathlib import Path
from typing import Any

import pytest

from edgetl.errors import ModelError
from edgetl.preparation.sources import factory
from edgetl.preparation.sources.resolve import load_source
from edgetl.suggest import similar_path


@pytest.fixture(autouse=True)
def _zoos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "_ZOOS", {"timm": lambda: ["resnet18", "vit_s"], "torchvision": lambda: ["resnet18"]})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("time:resnet18", "is a module of Python itself.*; did you mean 'timm:resnet18'"),
        ("tim:resnet18", "no module tim; did you mean 'timm:resnet18'"),
        ("TIMM:resnet18", "did you mean 'timm:resnet18'"),
        ("timm :resnet18", "did you mean 'timm:resnet18'"),
        ("torchvison:resnet18", "did you mean 'torchvision:resnet18'"),
        ("hf :some/model", "did you mean 'hf:some/model'"),
        ("torch:resnet18", "no function 'resnet18'; did you mean 'timm:resnet18' or 'torchvision:resnet18'"),
        ("models:vit_s", "models.*; did you mean 'timm:vit_s'"),
        ("json:loads", "is a module of Python itself, which has no networks: give FILE.py:callable"),
        ("collections.abc:Mapping", "is a module of Python itself"),
        ("torch.nn:Linera", "no function 'Linera'; did you mean 'Linear'"),
        ("nowhere:build", "there is no module nowhere: give FILE.py:callable"),
    ],
)
def test_the_source_that_was_meant_is_named(spec: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_source(spec, weights=None, model_args={}, overrides={})


def test_a_module_of_ones_own_may_be_called_as_one_of_pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "antigravity.py").write_text("def build():\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="returned a int"):
        load_source("antigravity:build", weights=None, model_args={}, overrides={})


def test_what_is_there_is_not_suggested_again(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit2").mkdir()
    assert similar_path(tmp_path / "vit") == ""
    assert "vit2" in similar_path(tmp_path / "vit3")


def test_a_folder_of_transformers_that_cannot_be_loaded_is_not_suggested(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text('{"model_type": "no-such-type"}')
    overrides: dict[str, Any] = {"mean": (0.5,), "std": (0.5,)}
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_source(f"hf:{tmp_path / 'vit'}", weights=None, model_args={}, overrides=overrides)
    assert "did you mean" not in str(caught.value)
