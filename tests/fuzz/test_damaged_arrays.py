"""Archives of arrays: damaged bytes, and headers and values that numpy never writes."""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damaged, explore, withstand
from hypothesis import strategies as st

from edgetl.artifacts import ARRAY
from edgetl.data.augment import Views
from edgetl.data.dataset import Wanted, label_names, open_inputs, open_training
from edgetl.data.decode import open_decoder
from edgetl.data.sample import Row
from edgetl.errors import DataError

X = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)

# numpy, of headers as Python 2 wrote them
pytestmark = pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file:UserWarning")


def check(file: Path, task: str) -> None:
    """Read an archive as `finetune`, `predict` and `prepare --labels-from` do."""
    dataset, val = open_training(file, None, Wanted("array", task))
    names = label_names(file, task, ()) if task == "classification" else dataset.labels
    assert names == dataset.labels
    assert len(set(names)) == len(names)
    for part in (dataset, val) if val else (dataset,):
        check_samples(part.samples, len(dataset.labels), task)
    check_samples(open_inputs(file, Wanted("array")), 0, "")


def check_samples(samples: Any, outputs: int, task: str) -> None:
    assert 0 < len(samples) < 10_000
    for sample in samples:
        if task == "classification":
            assert 0 <= sample.label < outputs
        elif task:
            assert np.shape(sample.label) == (outputs,)
            assert np.isfinite(sample.label).all()
        assert isinstance(sample.source, Row)
        shape = sample.source.array.shape[1:]
        decode = open_decoder("array", [type("Spec", (), {"shape": shape})()], None)
        try:
            decoded = decode(sample.read())
        except DataError:
            with np.errstate(all="ignore"):
                assert not np.isfinite(sample.source.array[sample.source.index].astype(np.float32)).all()
            continue
        assert decoded[ARRAY].dtype == np.float32
        assert decoded[ARRAY].shape == shape
        assert np.isfinite(decoded[ARRAY]).all()
        assert Views("light", 1, 0).make(decoded, bytes(16))[ARRAY].shape == shape


def packed(write: Callable[..., None], **arrays: Any) -> bytes:
    stream = io.BytesIO()
    write(stream, **arrays)
    return stream.getvalue()


NAMED = {"x": X, "y": ["a", "b", "a", "b"], "x_val": X, "y_val": ["a"] * 4}
ARCHIVES = {
    "stored": (packed(np.savez, x=X, y=[0, 1, 0, 1], labels=["a", "b"]), "classification"),
    "compressed": (
        packed(np.savez_compressed, **NAMED),
        "classification",
    ),
    "numbers": (packed(np.savez, x=X.astype(np.float64), y=[0.5, 1, 2, 3]), "regression"),
    "several": (packed(np.savez_compressed, x=X[:, 0], y=[[0, 1], [1, 0], [1, 1], [0, 0]]), "multilabel"),
}


@pytest.mark.parametrize("times", [80, pytest.param(600, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ARCHIVES)
def test_damaged_bytes(kind: str, times: int, tmp_path: Path) -> None:
    data, task = ARCHIVES[kind]
    file = tmp_path / "d.npz"

    def case(rng: random.Random) -> None:
        file.write_bytes(damaged(data, rng, most=2))
        check(file, task)

    withstand(case, times=times, seed=11, refusal=DataError, both=False)


@pytest.mark.parametrize("times", [80, pytest.param(1200, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ARCHIVES)
def test_damaged_arrays_with_checksums_that_are_right(kind: str, times: int, tmp_path: Path) -> None:
    data, task = ARCHIVES[kind]
    file = tmp_path / "d.npz"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def case(rng: random.Random) -> None:
        changed = rng.choice(list(members))
        kinds = (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        with zipfile.ZipFile(file, "w", rng.choice(kinds)) as archive:
            for name, content in members.items():
                archive.writestr(name, damaged(content, rng, most=2) if name == changed else content)
        check(file, task)

    withstand(case, times=times, seed=12, refusal=DataError)


@pytest.mark.parametrize("times", [60, pytest.param(500, marks=pytest.mark.long)])
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_bytes_of_other_compressions(method: int, times: int, tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive, zipfile.ZipFile(io.BytesIO(ARCHIVES["stored"][0])) as stored:
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
    data = stream.getvalue()

    def case(rng: random.Random) -> None:
        file.write_bytes(damaged(data, rng, most=1))
        check(file, "classification")

    withstand(case, times=times, seed=13, refusal=DataError, both=False)


def member(header: str, content: bytes, version: int = 1) -> bytes:
    text = header.encode("latin-1", "replace")
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + content


SIZES = st.integers(0, 5) | st.sampled_from([-1, -4, True, 10**6, 10**12, 2**63, 10**400])
SHAPES = st.lists(SIZES, max_size=4).map(tuple) | st.sampled_from([(4,), (4, 2), (-4, -2), (10**12, 0), (0, 4)])
PLAIN = [f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "f16", "i1", "i8", "u8", "U1", "U3", "U0")]
ODD = ["|O", "|b1", "|V0", "|V8", "S4", "S0", "<M8[s]", "<c8", "", "x", (), [], [("a", "<f4")], [()], None, 3]
HEADERS = st.builds(
    lambda descr, order, shape: repr({"descr": descr, "fortran_order": order, "shape": shape}),
    st.sampled_from(PLAIN + ODD), st.booleans(), SHAPES,
) | st.text(max_size=60) | st.sampled_from(["(" * 3000, "{" + "[" * 150, "'" * 99, "{'shape': (4L,)}"])  # fmt: skip
NAMES = st.sampled_from(["x", "y", "labels", "x_val", "y_val", "x_test", "y_test"])
MEMBERS = st.builds(member, HEADERS, st.binary(max_size=130), st.sampled_from([1, 1, 1, 2, 3, 9]))


@pytest.mark.parametrize("times", [80, pytest.param(1500, marks=pytest.mark.long)])
def test_any_header(times: int, tmp_path: Path) -> None:
    file = tmp_path / "d.npz"

    def case(drawn: tuple[dict[str, bytes], str, int]) -> None:
        odd, task, method = drawn
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, content in {**whole, **odd}.items():
                archive.writestr(f"{name}.npy", content)
        check(file, task)

    with zipfile.ZipFile(io.BytesIO(ARCHIVES["stored"][0])) as archive:
        whole = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    tasks = st.sampled_from(["classification", "classification", "regression", "multilabel"])
    methods = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    drawn = st.tuples(st.dictionaries(NAMES, MEMBERS, min_size=1, max_size=3), tasks, methods)
    explore(drawn, case, times=times, refusal=DataError)


KINDS = [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint64, np.bool_, ">i4", ">f8", "U2"]


@pytest.mark.parametrize("times", [80, pytest.param(1000, marks=pytest.mark.long)])
def test_any_values(times: int, tmp_path: Path) -> None:
    file = tmp_path / "d.npz"

    def array(kind: Any, shape: tuple[int, ...], content: bytes) -> Any:
        return np.ndarray(shape, kind, (content * 500)[: int(np.prod(shape)) * np.dtype(kind).itemsize])

    content = st.binary(min_size=8, max_size=64) | st.sampled_from([bytes(8), b"\x01" + bytes(7), b"\xff" * 8])
    arrays = st.builds(array, st.sampled_from(KINDS), st.sampled_from([(4,), (4, 1), (4, 2), (3,), (1, 4)]), content)

    def case(drawn: tuple[Any, Any, Any, str]) -> None:
        x, y, labels, task = drawn
        np.savez(file, x=x, y=y, **({} if labels is None else {"labels": labels}))
        check(file, task)

    names = st.none() | st.sampled_from(["ab", 3, [], ["a", "a"], ["a", "b"], [1, 2, 3], [["a"], ["b"]], [True]])
    tasks = st.sampled_from(["classification", "regression", "multilabel"])
    explore(st.tuples(arrays, arrays, names | arrays, tasks), case, times=times, refusal=DataError)


def test_an_index_of_a_billion_makes_no_billion_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=[0, 1, 2, 10**15])
    with pytest.raises(DataError, match="no indices"):
        label_names(tmp_path / "d.npz", "classification", ())


@pytest.mark.parametrize("labels", ["ab", 3, ["a", "a"], [["a"], ["b"]], []])
def test_labels_are_distinct_names(labels: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=[0, 1, 0, 1], labels=labels)
    with pytest.raises(DataError, match="each another"):
        open_training(tmp_path / "d.npz", None, Wanted("array"))


def test_letters_that_are_none(tmp_path: Path) -> None:
    for letters in (0x110000, 0xD800):
        y = np.frombuffer(np.full(4, letters, "<u4").tobytes(), "<U1")
        with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
            archive.writestr("x.npy", packed_member(X))
            archive.writestr("y.npy", packed_member(y))
        with pytest.raises(DataError, match="y holds what is no text"):
            open_training(tmp_path / "d.npz", None, Wanted("array"))


def packed_member(array: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()
