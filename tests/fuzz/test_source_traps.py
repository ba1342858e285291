"""Files for `prepare` that would execute something, reach out of their directory, or unpack to much."""

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import bounded
from traps import ESCAPES, Trap, pickled, unchanged

torch = pytest.importorskip("torch")

import onnx  # noqa: E402
from networks import SIZE, onnx_network, saved_keras, saved_program  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402
from torch import nn  # noqa: E402

from edgetl.errors import ModelError  # noqa: E402
from edgetl.preparation.sources.resolve import load_source  # noqa: E402
from edgetl.preparation.sources.weights import load_weights  # noqa: E402

# keras 3.15, of its own variables under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def load(file: Path) -> Any:
    return load_source(str(file), weights=None, model_args={}, overrides={})


def saved(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def rewritten(data: bytes, changes: dict[str, bytes | None]) -> bytes:
    """An archive with other members: replaced, added, or, with None, left out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            if name not in changes:
                new.writestr(name, old.read(name))
        for name, content in changes.items():
            if content is not None:
                new.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
def test_pickles_as_weights(suffix: str, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap, file = Trap(sprung), tmp_path / f"w{suffix}"
    contents = [
        pickled(sprung),
        *(saved(value, **options) for value in (trap, {"weight": torch.ones(2, 3), "bias": trap})
          for options in ({}, {"_use_new_zipfile_serialization": False})),
    ]  # fmt: skip
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(ModelError):
            load_weights(nn.Linear(3, 2), file).check({"weight", "bias"}, ())
    assert not sprung.exists()


class Opens:
    """An object whose pickle calls one function by its name, which makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (self.file, "w"))


def test_traps_beside_weights_are_not_sprung(tmp_path: Path) -> None:
    sprung, file = tmp_path / "sprung", tmp_path / "w.pt"
    whole, loaded = nn.Linear(3, 2), nn.Linear(3, 2)
    whole.trap = Opens(sprung)
    for value in (whole, {"state_dict": whole.state_dict(), "args": Opens(sprung)}):
        torch.save(value, file)
        load_weights(loaded, file).check({"weight", "bias"}, ())
        assert torch.equal(loaded.weight, whole.weight)
    torch.save(whole, file, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError):
        load_weights(loaded, file)
    assert not sprung.exists()


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.long)])
def test_pickles_as_programs(every: int, tmp_path: Path) -> None:
    sprung, file = tmp_path / "sprung", tmp_path / "net.pt2"
    program = saved_program(file)
    scripted = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(3, 2)), scripted)
    pickle = saved(Trap(sprung))
    members = zipfile.ZipFile(io.BytesIO(program)).namelist()
    contents = [pickled(sprung), pickle, scripted.getvalue()]
    contents += [
        rewritten(program, {name: pickle}) for name in members if name.endswith((".json", "sample_inputs/model.pt"))
    ]
    contents += [rewritten(program, {name: pickled(sprung)}) for name in members]
    for content in contents[:3] + contents[3::every]:
        file.write_bytes(content)
        with contextlib.suppress(ModelError):
            load(file)
    assert not sprung.exists()


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("h5py")
    from edgetl.preparation.sources.keras_file import _import_keras

    try:
        return _import_keras()
    except ModelError as error:
        return pytest.skip(str(error))


def layers_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    return config["config"]["layers"]


def test_code_in_keras_files(keras: Any, tmp_path: Path) -> None:
    """Pickled modules and functions, functions by their names, weights as pickles."""
    sprung, file = tmp_path / "sprung", tmp_path / "net.keras"
    data = saved_keras(keras, file)
    config = json.loads(zipfile.ZipFile(io.BytesIO(data)).read("config.json"))
    touch = {"class_name": "function", "module": "os", "config": "mkdir", "registered_name": "mkdir"}
    path = {"path": str(sprung)}
    module = base64.b64encode(saved(Trap(sprung))).decode()
    layers = [
        {"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {"module": module, "name": "t"}},
        {"class_name": "TorchModuleWrapper", "module": "keras.src.utils.torch_utils", "config": {"module": module}},
        {"class_name": "Lambda", "module": "keras.layers", "config": {"function": touch, "arguments": path}},
        {"class_name": "Activation", "module": "keras.layers", "config": {"activation": touch}},
        {"class_name": "mkdir", "module": "os", "config": path},
        {"class_name": "Popen", "module": "subprocess", "config": {"args": ["touch", str(sprung)]}},
        {"class_name": "Path", "module": "pathlib", "config": {}},
        {"class_name": "load", "module": "torch", "config": {"f": str(tmp_path / "trap.pt"), "weights_only": False}},
        {"class_name": "get_file", "module": "keras.utils", "config": {"origin": f"file://{tmp_path}/trap.pt"}},
    ]  # fmt: skip
    (tmp_path / "trap.pt").write_bytes(saved(Trap(sprung)))
    for layer in layers:
        changed = json.loads(json.dumps(config))
        place = layers_of(changed)[1]
        place.update(layer)
        changed["build_config"] = {}
        file.write_bytes(rewritten(data, {"config.json": json.dumps(changed).encode()}))
        with pytest.raises(ModelError):
            load(file)
        file.write_bytes(rewritten(data, {"config.json": json.dumps(layer).encode()}))
        with pytest.raises(ModelError):
            load(file)
    objects = io.BytesIO()
    np.savez(objects, **{name: np.array([Trap(sprung)], dtype=object) for name in ("__root__", "layers/conv2d/vars")})
    for content in (
        pickled(sprung),
        saved(Trap(sprung)),
        rewritten(data, {"model.weights.h5": None, "model.weights.npz": objects.getvalue()}),
        rewritten(data, {"model.weights.h5": pickled(sprung)}),
        rewritten(data, {"config.json": pickled(sprung)}),
    ):
        file.write_bytes(content)
        with pytest.raises(ModelError):
            load(file)
    assert not sprung.exists()


def test_other_suffixes_are_no_sources(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for name in ("net.h5", "net.hdf5", "net.pkl", "net.pt", "net.joblib", "net.zip"):
        (tmp_path / name).write_bytes(pickled(sprung))
        with pytest.raises(ModelError, match="not a network to prepare"):
            load(tmp_path / name)
    assert not sprung.exists()


@pytest.mark.long  # to import the library takes longer than all else here
def test_a_directory_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    sprung = tmp_path / "sprung"
    directory = tmp_path / "model"
    directory.mkdir()
    code = f"open({str(sprung)!r}, 'w')\n"
    for name in ("modeling_own.py", "configuration_own.py", "processing_own.py"):
        (directory / name).write_text(code)
    for name in ("pytorch_model.bin", "model.safetensors"):
        (directory / name).write_bytes(saved(Trap(sprung)))
    own = {
        "AutoConfig": "configuration_own.Own",
        "AutoModelForImageClassification": "modeling_own.Own",
        "AutoModel": "modeling_own.Own",
        "AutoImageProcessor": "processing_own.Own",
    }
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": SIZE, "width": SIZE}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    for config in (
        {"model_type": "own", "auto_map": own},
        {"model_type": "vit", **small},
        {"model_type": "bert", **small},
    ):
        (directory / "config.json").write_text(json.dumps(config))
        for modality in ("image", "text"):
            with pytest.raises(ModelError):
                load_source(f"hf:{directory}", weights=None, model_args={}, overrides={}, modality=modality)
    assert not sprung.exists()


def pointing(location: str, place: str) -> onnx.ModelProto:
    """A classifier, one of whose tensors lies in a second file."""
    model = onnx_network()
    graph = model.graph
    tensor = next(tensor for tensor in graph.initializer if tensor.name == "fc.weight")
    outside = onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=TensorProto.FLOAT)
    outside.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": "0", "length": str(len(tensor.raw_data))}
    outside.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in entries.items())
    if place == "initializer":
        tensor.CopyFrom(outside)
        return model
    graph.initializer.remove(tensor)
    constant = helper.make_node("Constant", [], ["fc.weight"], value=outside)
    if place == "constant":
        graph.node.insert(0, constant)
    elif place == "branch":
        value = helper.make_tensor_value_info("fc.weight", TensorProto.FLOAT, list(outside.dims))
        branch = helper.make_graph([constant], "branch", [], [value])
        condition = helper.make_node(
            "Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        )
        graph.node.insert(0, helper.make_node("If", ["yes"], ["fc.weight"], then_branch=branch, else_branch=branch))
        graph.node.insert(0, condition)
    else:
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", "Weight", [], ["fc.weight"], [constant], opsets[:1]))
        model.opset_import.append(opsets[1])
        graph.node.insert(0, helper.make_node("Weight", [], ["fc.weight"], domain="own"))
    return model


@pytest.mark.parametrize("place", ["initializer", "constant", "branch", "function"])
def test_external_data_stay_in_their_directory(place: str, tmp_path: Path) -> None:
    secret = next(tensor.raw_data for tensor in onnx_network().graph.initializer if tensor.name == "fc.weight")
    directory = tmp_path / "model"
    (directory / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(secret)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.bin").write_bytes(secret)
    (directory / "link.bin").symlink_to(tmp_path / "secret.bin")
    (directory / "again.bin").symlink_to("link.bin")
    (directory / "folder").symlink_to(tmp_path / "elsewhere")
    (directory / "sub" / "up").symlink_to("../..")
    os.mkfifo(directory / "pipe.bin")
    file = directory / "net.onnx"
    locations = [
        *(str(tmp_path / "secret.bin"), "../secret.bin", "sub/../../secret.bin", "./../secret.bin", "//../secret.bin"),
        *("link.bin", "again.bin", "folder/secret.bin", "sub/up/secret.bin", "folder/../secret.bin", "file://../secret.bin"),
        *("pipe.bin", "/dev/zero", "/dev/stdin", "/proc/self/environ", "", ".", "sub", "\0", "..", "x" * 5000),
        *("..\\secret.bin", "%2e%2e/secret.bin"),
    ]  # fmt: skip
    for location in locations:
        file.write_bytes(pointing(location, place).SerializeToString())
        with bounded(), pytest.raises(ModelError) as raised:
            load(file)
        assert "\n" not in str(raised.value)
    if place == "initializer":
        (directory / "weights.bin").write_bytes(secret)
        file.write_bytes(pointing("weights.bin", place).SerializeToString())
        load(file)


@pytest.mark.parametrize("kind", ["pt2", "keras"])
def test_members_of_archives_lead_nowhere(kind: str, tmp_path: Path, request: pytest.FixtureRequest,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    with unchanged(tmp_path) as root:
        file = root / f"net.{kind}"
        data = saved_program(file) if kind == "pt2" else saved_keras(request.getfixturevalue("keras"), file)
        link = zipfile.ZipInfo("assets/link")
        link.external_attr = 0o120777 << 16
        (root / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(root / "tmp"))
        monkeypatch.chdir(root)
        file.write_bytes(rewritten(data, dict.fromkeys(ESCAPES, b"evil")))
        load(file)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(link, str(tmp_path))
            archive.writestr("assets/link/evil", b"evil")
        with contextlib.suppress(ModelError):
            load(file)


READ = """
import json, resource, sys
from pathlib import Path
from edgetl.errors import ModelError
from edgetl.preparation.sources.resolve import load_source
from edgetl.runtime.process import peak_rss_mb

def read(file):
    load_source(str(file), weights=None, model_args={}, overrides={})

files = sorted(Path(sys.argv[1]).iterdir())
import edgetl.preparation.sources.onnx_file, edgetl.preparation.sources.program_file, onnxscript.optimizer
limit = 4_000_000_000 + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
found = {}
for file in files:
    before = peak_rss_mb()
    try:
        read(file)
        outcome = "accepted"
    except ModelError as error:
        outcome = str(error)
    found[file.name] = outcome, peak_rss_mb() - before
print(json.dumps(found))
"""


def bomb(data: bytes, name: str) -> bytes:
    """An archive with a member of 200 MB in 200 kB."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for member in old.namelist():
            if member != name:
                new.writestr(member, old.read(member))
        with new.open(name, "w") as out:
            for _ in range(20):
                out.write(b" " * 10**7)
    return stream.getvalue()


def resized(dims: list[int]) -> bytes:
    model = onnx_network()
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, dims, strict=True):
        dim.dim_value = size
    return model.SerializeToString()


def test_bombs_take_no_memory(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = tmp_path / "bombs"
    folder.mkdir()
    program = saved_program(tmp_path / "net.pt2")
    prefix = zipfile.ZipFile(io.BytesIO(program)).namelist()[0].partition("/")[0]
    bombs: dict[str, tuple[bytes, str]] = {
        "member.pt2": (bomb(program, f"{prefix}/models/model.json"), "declares"),
        "other.pt2": (bomb(program, f"{prefix}/extra/x"), "declares"),
        "batch.onnx": (resized([10**9, 3, SIZE, SIZE]), "needs too much memory"),
        "size.onnx": (resized([1, 3, 10**6, 10**6]), "needs too much memory"),
        "both.onnx": (resized([10_000, 3, 1000, 1000]), "needs too much memory"),
    }
    for name, (content, _) in bombs.items():
        (folder / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, str(folder)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, (_, message) in bombs.items():
        outcome, megabytes = found[name]
        assert megabytes < 150, f"{name} took {megabytes:.0f} MB: {outcome}"
        assert message in outcome, f"{name}: {outcome}"


def test_a_keras_file_that_unpacks_to_much(keras: Any, tmp_path: Path) -> None:
    data = saved_keras(keras, tmp_path / "net.keras")
    for name in ("config.json", "assets/x"):
        (tmp_path / "net.keras").write_bytes(bomb(data, name))
        with pytest.raises(ModelError, match=r"declares 0\.2\d* GB"):
            load(tmp_path / "net.keras")
