import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.files.npz import npz_bytes, read_npz
from edgetl.files.seal import SealError, check_file, seal_json, seal_model, unseal_json, write_sealed_npz

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(min_size=1).filter(lambda name: name != "content_sha256"), json_values)


@given(json_objects)
def test_sealed_json_survives_its_file(data: dict[str, object]) -> None:
    text = json.dumps(seal_json(data), ensure_ascii=False)
    found = unseal_json(json.loads(text))
    assert json.dumps(found) == json.dumps(data)  # as text: no number equals itself


@given(json_objects, st.text(min_size=1), json_values)
def test_json_with_another_value_is_refused(data: dict[str, object], name: str, value: object) -> None:
    sealed = seal_json(data)
    altered = {**sealed, name: value}
    if json.dumps(altered, sort_keys=True) != json.dumps(sealed, sort_keys=True):
        with pytest.raises(SealError):
            unseal_json(altered)


@pytest.mark.parametrize("data", [None, [], "text", 3, {}, {"content_sha256": None}])
def test_json_without_a_seal_is_refused(data: object) -> None:
    with pytest.raises(SealError):
        unseal_json(data)


def test_every_bit_of_a_sealed_archive_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    write_sealed_npz(file, [("a/weight", np.arange(3.0, dtype=np.float32)), ("b", np.array(7))])
    check_file(file)
    with np.load(file) as archive:  # anybody can read it
        assert archive["a/weight"].tolist() == [0, 1, 2]
        assert archive["b"] == 7
    content = file.read_bytes()
    for position in range(len(content)):
        for bit in range(8):
            altered = bytearray(content)
            altered[position] ^= 1 << bit
            file.write_bytes(altered)
            with pytest.raises(SealError):
                check_file(file)
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(SealError):
            check_file(file)


def test_the_same_arrays_give_the_same_bytes() -> None:
    arrays = {"file": np.eye(2), "self": np.array(1, np.int64)}  # names of parameters that numpy.savez has itself
    content = npz_bytes(arrays.items())
    assert npz_bytes(arrays.items()) == content
    found = read_npz(io.BytesIO(content))
    assert all(
        np.array_equal(found[name], array) and found[name].shape == array.shape for name, array in arrays.items()
    )
    assert read_npz(io.BytesIO(content), keep=lambda name: name != "file").keys() == {"self"}


def test_a_sealed_model_is_a_model_with_its_hash_among_the_metadata(digits_artifacts: Path, tmp_path: Path) -> None:
    content = (digits_artifacts / "trainable.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(seal_model(content))
    check_file(tmp_path / "model.onnx")
    found = onnx.load(tmp_path / "model.onnx")
    (entry,) = found.metadata_props
    assert entry.key == "sha256"
    assert (tmp_path / "model.onnx").read_bytes().endswith(entry.value.encode())
    del found.metadata_props[:]
    assert found == onnx.load(digits_artifacts / "trainable.onnx")
