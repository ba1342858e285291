"""Files that would execute something, or reach out of their directory: pictures and archives of arrays.

`traps.py` has what is common with the files that `prepare` reads, in test_source_traps.py.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from traps import ESCAPES, Trap, pickled, unchanged

from edgetl.data.dataset import Wanted, open_inputs, open_training
from edgetl.data.images import read_rgb
from edgetl.errors import DataError

X = np.zeros((4, 2), np.float32)


@pytest.mark.parametrize("name", ["x", "y", "labels"])
def test_pickles_in_an_archive_of_arrays(name: str, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    objects = np.array([Trap(sprung)] * 4, dtype=object)
    arrays = {"x": X, "y": [0, 1, 0, 1], "labels": ["a", "b"]}
    contents = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, **{**arrays, name: objects})
        contents.append(stream.getvalue())
    # without numpy's header, and as fields of a structure
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    fields = np.zeros(4, [("a", "O")])
    for content in (pickled(sprung), npy(fields)):
        contents.append(replaced(stream.getvalue(), f"{name}.npy", content))
    contents += [pickled(sprung), npy(objects)]
    for content in contents:
        (tmp_path / "d.npz").write_bytes(content)
        with pytest.raises(DataError):
            open_training(tmp_path / "d.npz", None, Wanted("array"))[0].samples[0].read()
        with pytest.raises(DataError):
            open_inputs(tmp_path / "d.npz", Wanted("array"))[0].read()
    assert not sprung.exists()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def replaced(archive: bytes, name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(stream, "w") as new:
        for member in old.namelist():
            new.writestr(member, content if member == name else old.read(member))
    return stream.getvalue()


def test_names_in_an_archive_of_arrays_lead_nowhere(tmp_path: Path) -> None:
    with unchanged(tmp_path) as root:
        np.savez(root / "d.npz", x=X, y=[0, 1, 0, 1])
        with zipfile.ZipFile(root / "d.npz", "a") as archive:
            for name in ESCAPES:
                archive.writestr(name, b"evil")
        assert len(open_training(root / "d.npz", None, Wanted("array"))[0].samples) == 4


def test_no_picture_is_handed_to_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n/x 9 def\nshowpage\n"
    for data in (script, b"\xc5\xd0\xd3\xc6" + (32).to_bytes(4, "little") + bytes(24) + script):
        with pytest.raises(DataError):
            read_rgb(data)
    assert not (tmp_path / "sprung").exists()
