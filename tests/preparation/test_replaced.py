"""prepare --force replaces what prepare made, and nothing else."""

from pathlib import Path

import pytest

from edgetl import prepare
from edgetl.errors import EdgetlError

NET = """
from torch import nn
def build():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
"""


def test_a_file_of_the_users_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    source, out = f"{tmp_path / 'net.py'}:build", tmp_path / "art"
    prepare(source, out=out, classes=2, modality="array", input_shape=[4])
    prepare(source, out=out, classes=3, modality="array", input_shape=[4], force=True)
    (out / "photos").mkdir()
    (out / "photos" / "one.png").write_text("precious")
    with pytest.raises(EdgetlError, match=r"one\.png was not written by edgetl and would be lost: move it elsewhere"):
        prepare(source, out=out, classes=2, modality="array", input_shape=[4], force=True)
    assert (out / "photos" / "one.png").read_text() == "precious"
