import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not in this copy")
def test_a_picture_classifier(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["classify_pictures.py"])
    runpy.run_path(str(EXAMPLES / "classify_pictures.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "best validation accuracy" in printed
    assert ".png is " in printed
