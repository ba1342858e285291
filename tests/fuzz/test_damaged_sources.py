"""Files that `prepare` takes a network from: damaged bytes, and parts that no exporter writes."""

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import altered, bounded, damaged, withstand

torch = pytest.importorskip("torch")

import onnx  # noqa: E402
from networks import SIZE, onnx_network, saved_keras, saved_program  # noqa: E402
from onnx import helper  # noqa: E402
from torch import nn  # noqa: E402

from edgetl.artifacts import TensorSpec  # noqa: E402
from edgetl.errors import EngineError, ModelError, one_sentence  # noqa: E402
from edgetl.graph.execute import run_graph  # noqa: E402
from edgetl.preparation.sources.program_archive import read_program  # noqa: E402
from edgetl.preparation.sources.resolve import LoadedModel, load_source  # noqa: E402
from edgetl.preparation.sources.weights import load_weights  # noqa: E402


def load(file: Path, inputs: tuple[TensorSpec, ...] = ()) -> LoadedModel:
    modality = "array" if inputs else "image"
    return load_source(str(file), weights=None, model_args={}, overrides={}, modality=modality, inputs=inputs)


def check(file: Path, inputs: tuple[TensorSpec, ...] = ()) -> None:
    """What is accepted is a graph that runs on any batch, and gives scores for each sample."""
    loaded = load(file, inputs)
    onnx.checker.check_model(loaded.model)
    (spec,) = loaded.inputs
    samples = np.random.default_rng(0).normal(size=(3, *spec.shape)).astype(spec.dtype)
    (scores,) = run_graph(loaded.model, [loaded.model.graph.output[0].name], {spec.name: samples})
    assert len(scores) == 3


@pytest.mark.parametrize("times", [20, pytest.param(300, marks=pytest.mark.long)])
def test_onnx_files_of_damaged_bytes(times: int, tmp_path: Path) -> None:
    contents = [onnx_network(18).SerializeToString(), onnx_network(13, 1).SerializeToString()]

    def case(rng: random.Random) -> None:
        (tmp_path / "net.onnx").write_bytes(damaged(rng.choice(contents), rng, most=1))
        check(tmp_path / "net.onnx")

    withstand(case, times=times, seed=41, refusal=ModelError)


NUMBERS = (0, 1, -1, 2, 3, 7, 2**31 - 1, -(2**31), 2**62, -(2**63))
NAMES = ("", "x", "scores", "c", "f", "conv.weight", "shape", "no such", "image", "../x", "\n")
OPERATORS = ("Relu", "Conv", "Gather", "Loop", "If", "Identity", "Concat", "Resize", "MatMul", "Constant", "Split",
             "SequenceAt", "Transpose", "Expand", "ConstantOfShape", "NoSuch", "")  # fmt: skip


def disturbed(model: onnx.ModelProto, rng: random.Random) -> None:
    """Change one thing in a graph that stays a protobuf message."""
    graph = model.graph
    what = rng.randrange(13)
    node = rng.choice(graph.node)
    tensor = rng.choice(graph.initializer)
    value = rng.choice([*graph.input, *graph.output])
    dims = value.type.tensor_type.shape.dim
    if what == 0:
        node.op_type = rng.choice(OPERATORS)
    elif what == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(NAMES)
    elif what == 2:
        node.output[rng.randrange(len(node.output))] = rng.choice(NAMES)
    elif what == 3 and node.attribute:
        attribute = rng.choice(node.attribute)
        given = rng.choice([*NUMBERS, 0.5, "text", [1, 2], [2**62]])
        attribute.CopyFrom(helper.make_attribute(attribute.name, given))
    elif what == 4:
        name = rng.choice(["axis", "perm", "group", "value"])
        node.attribute.append(helper.make_attribute(name, rng.choice(NUMBERS)))
    elif what == 5 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif what == 6:
        tensor.data_type = rng.randrange(-1, 30)
    elif what == 7:
        tensor.raw_data = damaged(tensor.raw_data, rng)
    elif what == 8 and dims:
        rng.choice(dims).dim_value = rng.choice(NUMBERS)
    elif what == 9:
        value.type.tensor_type.elem_type = rng.randrange(-1, 30)
    elif what == 10:
        del rng.choice([graph.node, graph.initializer, graph.input, graph.output, node.input, dims])[:1]
    elif what == 11:
        model.opset_import[0].version = rng.choice([*NUMBERS, 5, 9, 22, 99])
        model.opset_import[0].domain = rng.choice(["", "", "ai.onnx", "com.example"])
    else:
        tensor.name = rng.choice(NAMES)


@pytest.mark.parametrize("times", [40, pytest.param(600, marks=pytest.mark.long)])
@pytest.mark.parametrize("inputs", [(), (TensorSpec("x", (3, SIZE, SIZE), "float32"),)], ids=["picture", "array"])
def test_onnx_graphs_of_altered_structure(inputs: tuple[TensorSpec, ...], times: int, tmp_path: Path) -> None:
    def case(rng: random.Random) -> None:
        model = onnx_network(rng.choice((11, 13, 18, 21)), rng.choice((1, 2, "batch")))
        for _ in range(rng.randint(1, 2)):
            disturbed(model, rng)
        (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
        check(tmp_path / "net.onnx", inputs)

    withstand(case, times=times, seed=42, refusal=ModelError)


def read(file: Path, rng: random.Random) -> None:
    """Read a program as `prepare` does; only some are exported, which takes a second."""
    if rng.random() < 0.05:
        load(file)
    else:
        with one_sentence(ModelError, "net.pt2"):
            read_program(file)


@pytest.mark.parametrize("times", [20, pytest.param(300, marks=pytest.mark.long)])
def test_programs_of_damaged_bytes(times: int, tmp_path: Path) -> None:
    data = saved_program(tmp_path / "net.pt2")

    def case(rng: random.Random) -> None:
        (tmp_path / "net.pt2").write_bytes(damaged(data, rng, most=1))
        read(tmp_path / "net.pt2", rng)

    withstand(case, times=times, seed=43, refusal=ModelError, both=False)


def rewritten(data: bytes, file: Path, change: Any, *names: str) -> None:
    """Write an archive anew, with another content of the members whose names end so."""
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name.endswith(names) else old.read(name))


@pytest.mark.parametrize("times", [20, pytest.param(300, marks=pytest.mark.long)])
def test_programs_of_altered_structure(times: int, tmp_path: Path) -> None:
    data = saved_program(tmp_path / "net.pt2")

    def case(rng: random.Random) -> None:
        def change(content: bytes) -> bytes:
            return json.dumps(altered(json.loads(content), rng)).encode()

        names = rng.choice(("models/model.json", "models/model.json", "weights_config.json", "constants_config.json"))
        rewritten(data, tmp_path / "net.pt2", change, names)
        read(tmp_path / "net.pt2", rng)

    withstand(case, times=times, seed=44, refusal=ModelError)


@pytest.mark.parametrize("times", [40, pytest.param(800, marks=pytest.mark.long)])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_of_damaged_bytes(suffix: str, times: int, tmp_path: Path) -> None:
    module, file = nn.Linear(30, 20), tmp_path / f"w.{suffix}"
    state = module.state_dict()
    if suffix == "pt":
        torch.save(state, file)
    else:
        pytest.importorskip("safetensors.torch").save_file(state, file)
    data = file.read_bytes()

    def case(rng: random.Random) -> None:
        file.write_bytes(damaged(data, rng, most=1))
        load_weights(module, file)

    withstand(case, times=times, seed=45, refusal=ModelError)


@pytest.mark.parametrize("times", [60, pytest.param(800, marks=pytest.mark.long)])
def test_safetensors_of_any_header(times: int, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    module, file = nn.Linear(3, 2), tmp_path / "w.safetensors"
    header = {
        "weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "bias": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
    }

    def case(rng: random.Random) -> None:
        text = json.dumps(header if rng.random() < 0.1 else altered(header, rng)).encode()
        length = len(text) if rng.random() < 0.9 else rng.choice((0, 2**20, 2**62, 2**64 - 1))
        file.write_bytes(length.to_bytes(8, "little") + text + bytes(32))
        load_weights(module, file)

    withstand(case, times=times, seed=46, refusal=ModelError)


@pytest.mark.parametrize("state", [[1], {"state_dict": {1: torch.ones(2)}}, {1: 2}, {"weight": "text"}, {"a": {}}, 3])
def test_files_that_are_no_weights(state: Any, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError):
        load_weights(nn.Linear(3, 2), tmp_path / "w.pt")


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("h5py")
    from edgetl.preparation.sources.keras_file import _import_keras

    try:
        return _import_keras()
    except ModelError as error:
        return pytest.skip(str(error))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("times", [1, pytest.param(60, marks=pytest.mark.long)])
def test_keras_files(keras: Any, times: int, tmp_path: Path) -> None:
    data = saved_keras(keras, tmp_path / "net.keras")

    def case(rng: random.Random) -> None:
        def bytes_changed(content: bytes) -> bytes:
            return damaged(content, rng, most=1)

        def structure_changed(content: bytes) -> bytes:
            return json.dumps(altered(json.loads(content), rng)).encode()

        kind = rng.randrange(3)
        if kind == 0:
            (tmp_path / "net.keras").write_bytes(damaged(data, rng, most=1))
        elif kind == 1:
            rewritten(data, tmp_path / "net.keras", bytes_changed, "model.weights.h5")
        else:
            rewritten(data, tmp_path / "net.keras", structure_changed, "config.json")
        load(tmp_path / "net.keras")

    withstand(case, times=times, seed=47, refusal=ModelError, both=False)


def test_a_function_that_calls_itself_ends(tmp_path: Path) -> None:
    model = onnx_network()
    node = helper.make_node("Twice", ["a"], ["b"], domain="own")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [node], opsets))
    model.opset_import.append(opsets[1])
    model.graph.node[2].op_type, model.graph.node[2].domain = "Twice", "own"
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with bounded(), pytest.raises(EngineError, match="its function 'Twice' calls itself"):
        load(tmp_path / "net.onnx")
