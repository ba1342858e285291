import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import HAS_TORCH

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not in this copy")
def test_a_picture_classifier(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["classify_pictures.py"])
    runpy.run_path(str(EXAMPLES / "classify_pictures.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "best validation accuracy" in printed
    assert ".png is " in printed


@pytest.mark.skipif(not HAS_TORCH, reason="pretrains with torch")
@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not in this copy")
def test_vibration(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "vibration.py"), run_name="__main__")
    found = re.search(r"([\d.]+)% before, ([\d.]+)% now", capsys.readouterr().out)
    assert found is not None
    assert float(found[2]) > float(found[1]) + 15
