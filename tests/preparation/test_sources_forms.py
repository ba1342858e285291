"""MODEL.onnx in the forms that exporters leave it in: training mode, 16 bits, labels beside the scores, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from edgetl import prepare
from edgetl.artifacts import Preprocessing, load_artifacts
from edgetl.errors import ModelError
from edgetl.events import Event, Note
from edgetl.preparation.heads import replace_head
from edgetl.preparation.sources.assumed import own_scaling, settle
from edgetl.preparation.sources.resolve import LoadedModel, load_source
from edgetl.runtime import sessions

SIZE, CLASSES = 8, 5
Layer = tuple[str, list[str], list[str], dict[str, Any]]


@dataclass
class Notes:
    """Receives events and keeps the notes."""

    texts: list[str] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self.texts.append(event.text)


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "conv.weight": (4, 3, 3, 3),
        "conv.bias": (4,),
        "classifier.weight": (CLASSES, 4),
        "classifier.bias": (CLASSES,),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


BODY: list[Layer] = [
    ("Conv", ["pictures", "conv.weight", "conv.bias"], ["conv"], {}),
    ("Relu", ["conv"], ["active"], {}),
    ("GlobalAveragePool", ["active"], ["pooled"], {}),
    ("Flatten", ["pooled"], ["features"], {}),
    ("Gemm", ["features", "classifier.weight", "classifier.bias"], ["scores"], {"transB": 1}),
]


def model(
    layers: Sequence[Layer],
    outputs: Sequence[str] = ("scores",),
    extra: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 15,
    kind: int = TensorProto.FLOAT,
    shape: Sequence[int | str] = ("N", 3, SIZE, SIZE),
    domains: dict[str, str] | None = None,
) -> onnx.ModelProto:
    nodes: list[NodeProto] = [
        helper.make_node(op, inputs, made, made[0], domain=(domains or {}).get(op), **attributes)
        for op, inputs, made, attributes in layers
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pictures", kind, shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in {**weights(), **(extra or {})}.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in set((domains or {}).values()))]
    made = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    for value in made.graph.output:
        if not value.type.tensor_type.HasField("shape"):  # of an operator that onnx does not know
            kind = TensorProto.FLOAT if value.name == "scores" else TensorProto.INT64
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, ["n", "m"][: 1 + (value.name == "scores")]))
    return made


def load(built: onnx.ModelProto, tmp_path: Path, **overrides: Any) -> tuple[LoadedModel, list[str]]:
    onnx.save(built, tmp_path / "net.onnx")
    notes = Notes()
    loaded = load_source(str(tmp_path / "net.onnx"), weights=None, model_args={}, overrides=overrides, on_event=notes)
    return loaded, notes.texts


def run(graph: onnx.ModelProto, pictures: np.ndarray) -> np.ndarray:
    session = sessions.open_session(graph.SerializeToString())
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: pictures})[0]
    return found


PICTURES = np.random.default_rng(1).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)


def expected(pictures: np.ndarray = PICTURES, mean: float = 0.0, variance: float = 1.0) -> np.ndarray:
    """What the body computes, in torch; with batch normalisation by running statistics behind the convolution."""
    w = {name: torch.from_numpy(value) for name, value in weights().items()}
    x = nn.functional.conv2d(torch.from_numpy(pictures), w["conv.weight"], w["conv.bias"])
    x = torch.relu((x - mean) / (variance + 1e-5) ** 0.5) if (mean, variance) != (0.0, 1.0) else torch.relu(x)
    scores: np.ndarray = nn.functional.linear(x.mean((2, 3)), w["classifier.weight"], w["classifier.bias"]).numpy()
    return scores


NORMALISED = {
    "gain": np.ones(4, np.float32),
    "offset": np.zeros(4, np.float32),
    "mean": np.full(4, 0.3, np.float32),
    "variance": np.full(4, 2, np.float32),
}


@pytest.mark.parametrize(
    ("opset", "outputs", "attributes"),
    [
        (15, ["normal", "m", "v"], {"training_mode": 1}),
        (15, ["normal"], {"training_mode": 0}),
        (9, ["normal", "m", "v", "saved_m", "saved_v"], {}),
        (13, ["normal", "m", "v", "saved_m", "saved_v"], {"momentum": 0.8}),
        (13, ["normal"], {}),
    ],
)
def test_batch_normalisation_in_training_mode(
    opset: int, outputs: list[str], attributes: dict[str, Any], tmp_path: Path
) -> None:
    """Its running statistics are used, which the file holds."""
    layers = [
        BODY[0],
        ("BatchNormalization", ["conv", *NORMALISED], outputs, attributes),
        ("Relu", ["normal"], ["active"], {}),
        *BODY[2:],
    ]
    loaded, notes = load(model(layers, extra=NORMALISED, opset=opset), tmp_path)
    np.testing.assert_allclose(run(loaded.model, PICTURES), expected(mean=0.3, variance=2), rtol=1e-4, atol=1e-5)
    assert len(notes) == (len(outputs) > 1)
    assert all("was exported in training mode" in note for note in notes)


@pytest.mark.parametrize("switch", ["constant", "input"])
def test_dropout_in_training_mode(switch: str, tmp_path: Path) -> None:
    layers = [*BODY[:4], ("Dropout", ["features", "ratio", "training"], ["dropped"], {})]
    layers.append(("Gemm", ["dropped", *BODY[4][1][1:]], ["scores"], {"transB": 1}))
    extra = {"ratio": np.array(0.5, np.float32), "training": np.array(True)}
    built = model(layers, extra=extra)
    if switch == "input":
        del built.graph.initializer[-1]
        built.graph.input.append(helper.make_tensor_value_info("training", TensorProto.BOOL, []))
    loaded, notes = load(built, tmp_path)
    np.testing.assert_allclose(run(loaded.model, PICTURES), expected(), rtol=1e-4, atol=1e-5)
    assert "was exported in training mode" in notes[0]


def test_what_draws_numbers_or_mixes_samples_is_told(tmp_path: Path) -> None:
    noise: list[Layer] = [("RandomNormalLike", ["features"], ["noise"], {}), ("Add", ["features", "noise"], ["x"], {})]
    last: Layer = ("Gemm", ["x", *BODY[4][1][1:]], ["scores"], {"transB": 1})
    with pytest.raises(ModelError, match=r"draws random numbers \(RandomNormalLike 'noise'\).*evaluation mode"):
        load(model([*BODY[:4], *noise, last]), tmp_path)
    centred: list[Layer] = [
        ("ReduceMean", ["features"], ["mean"], {"axes": [0], "keepdims": 1}),
        ("Sub", ["features", "mean"], ["x"], {}),
    ]
    with pytest.raises(ModelError, match=r"other scores where others are in its batch.*evaluation mode"):
        load(model([*BODY[:4], *centred, last]), tmp_path)


def halves(names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: weights()[name].astype(np.float16) for name in names}


def in_halves(where: str) -> onnx.ModelProto:
    """A network that is in 16 bits as a whole, inside only, or in its weights only."""
    if where == "weights":
        casts: list[Layer] = [("Cast", [name], [f"{name}.wide"], {"to": 1}) for name in weights()]
        wide = {name: f"{name}.wide" for name in weights()}
        layers = [(op, [wide.get(name, name) for name in inputs], *rest) for op, inputs, *rest in BODY]
        return model([*casts, *layers], extra=halves(list(weights())))  # type: ignore[list-item]
    if where == "inside":
        first: Layer = ("Cast", ["pictures"], ["narrow"], {"to": 10})
        conv: Layer = ("Conv", ["narrow", *BODY[0][1][1:]], ["conv"], {})
        last: Layer = (BODY[4][0], BODY[4][1], ["narrow scores"], BODY[4][3])
        wide_again: Layer = ("Cast", ["narrow scores"], ["scores"], {"to": 1})
        return model([first, conv, *BODY[1:4], last, wide_again], extra=halves(list(weights())))
    return model(BODY, extra=halves(list(weights())), kind=TensorProto.FLOAT16)


@pytest.mark.parametrize("where", ["whole", "inside", "weights"])
def test_sixteen_bits_become_thirty_two_and_all_train(where: str, tmp_path: Path) -> None:
    loaded, notes = load(in_halves(where), tmp_path)
    np.testing.assert_allclose(run(loaded.model, PICTURES), expected(), rtol=0.01, atol=0.01)
    assert "16-bit numbers" in notes[0]
    assert set(loaded.parameters) == set(weights())
    notes_ = Notes()
    result = prepare(str(tmp_path / "net.onnx"), out=tmp_path / "art", classes=CLASSES, train=["all"], on_event=notes_)
    assert result.trainable_parameters == sum(value.size for value in weights().values())
    assert result.frozen_parameters == 0


def test_bfloat16(tmp_path: Path) -> None:
    import ml_dtypes

    built = in_halves("inside")
    for tensor in built.graph.initializer:
        values = weights()[tensor.name].astype(ml_dtypes.bfloat16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    built.graph.node[0].attribute[0].i = TensorProto.BFLOAT16
    del built.graph.value_info[:]
    built.opset_import[0].version = 22
    loaded, _ = load(built, tmp_path)
    np.testing.assert_allclose(run(loaded.model, PICTURES), expected(), rtol=0.05, atol=0.05)


MAPPED = {"keys_int64s": [0, 1, 2, 3, 4], "values_strings": ["a", "b", "c", "d", "e"]}
ENDINGS: dict[str, tuple[list[Layer], list[str], dict[str, np.ndarray]]] = {
    "label": ([("ArgMax", ["scores"], ["label"], {"axis": 1})], ["label"], {}),
    "label of softmax": (
        [("Softmax", ["scores"], ["p"], {}), ("ArgMax", ["p"], ["label"], {"axis": 1, "keepdims": 0})],
        ["label"],
        {},
    ),
    "best two": (
        [("TopK", ["scores", "two"], ["values", "indices"], {})],
        ["values", "indices"],
        {"two": np.array([2])},
    ),
    "those above a half": (
        [
            ("Sigmoid", ["scores"], ["p"], {}),
            ("Greater", ["p", "half"], ["above"], {}),
            ("NonZero", ["above"], ["indices"], {}),
        ],
        ["indices"],
        {"half": np.array(0.5, np.float32)},
    ),
    "label from a table": (
        [
            ("ArgMax", ["scores"], ["winner"], {"axis": 1, "keepdims": 0}),
            ("Gather", ["names", "winner"], ["label"], {}),
            ("Softmax", ["scores"], ["p"], {}),
        ],
        ["label", "p"],
        {"names": np.arange(10, 15)},
    ),
    "label and probabilities of scikit-learn": (
        [
            ("Softmax", ["scores"], ["p"], {}),
            ("ArgMax", ["p"], ["winner"], {"axis": 1, "keepdims": 0}),
            ("ArrayFeatureExtractor", ["names", "winner"], ["label"], {}),
            ("ZipMap", ["p"], ["output_probability"], {"classlabels_int64s": [1, 2, 3, 4, 5]}),
        ],
        ["label", "output_probability"],
        {"names": np.arange(10, 15)},
    ),
    "names of labels": (
        [("ArgMax", ["scores"], ["winner"], {"axis": 1}), ("LabelEncoder", ["winner"], ["label"], MAPPED)],
        ["label"],
        {},
    ),
    "calibrated": (
        [
            ("Div", ["scores", "temperature"], ["scaled"], {}),
            ("Add", ["scaled", "prior"], ["shifted"], {}),
            ("LogSoftmax", ["shifted"], ["log_p"], {}),
        ],
        ["log_p"],
        {"temperature": np.array(2.5, np.float32), "prior": np.ones(5, np.float32)},
    ),
    "both sides of a probability": (
        [
            ("Sigmoid", ["scores"], ["p"], {}),
            ("Sub", ["one", "p"], ["q"], {}),
            ("Concat", ["q", "p"], ["both"], {"axis": 1}),
        ],
        ["both"],
        {"one": np.array(1, np.float32)},
    ),
    "without the first class": (
        [("Slice", ["scores", "from", "to", "axis"], ["kept"], {})],
        ["kept"],
        {"from": np.array([1]), "to": np.array([5]), "axis": np.array([1])},
    ),
}
ML = dict.fromkeys(["ArrayFeatureExtractor", "ZipMap", "LabelEncoder"], "ai.onnx.ml")


@pytest.mark.parametrize("name", ENDINGS)
def test_what_is_made_of_scores_does_not_hide_the_classifier(name: str, tmp_path: Path) -> None:
    layers, outputs, extra = ENDINGS[name]
    built = model([*BODY, *layers], outputs, extra, domains=ML)
    built.opset_import[-1].version = 15 if built.opset_import[-1].domain == "" else 2
    if "ZipMap" in [op for op, *_ in layers]:
        sequence = helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        )
        built.graph.output[-1].type.CopyFrom(sequence)
    if "LabelEncoder" in [op for op, *_ in layers]:
        built.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    for domain in built.opset_import:
        domain.version = 2 if domain.domain else 15
    loaded, _ = load(built, tmp_path)
    network = replace_head(loaded.model, 3, loaded.parameters)
    assert network.head == ("classifier.weight", "classifier.bias")
    assert [node.op_type for node in network.model.graph.node][-3:] == ["Reshape", "Flatten", "Gemm"]


@pytest.mark.parametrize("name", ["classifier", "classifier.weight", "scores", "probabilities"])
def test_the_head_has_many_names(name: str, tmp_path: Path) -> None:
    """Its module's, its weight's, its own, and that of the output that it leads to, which edgetl renames."""
    layers: list[Layer] = [("Softmax", ["scores"], ["probabilities"], {}), ("Relu", ["active"], ["other"], {})]
    loaded, _ = load(model([*BODY, *layers], ["probabilities", "other"]), tmp_path)
    network = replace_head(loaded.model, 3, loaded.parameters, name)
    assert network.head == ("classifier.weight", "classifier.bias")


def test_operators_outside_the_standard_that_matter_are_named(tmp_path: Path) -> None:
    layers = [("FusedConv", *BODY[0][1:3], {"activation": "Relu"}), *BODY[2:]]  # type: ignore[misc]
    layers[1] = ("GlobalAveragePool", ["conv"], ["pooled"], {})
    with pytest.raises(ModelError, match=r"FusedConv 'conv' of com\.microsoft; .*before ONNX Runtime optimises it"):
        load(model(layers, domains={"FusedConv": "com.microsoft"}), tmp_path)  # type: ignore[arg-type]


# what is computed before the convolution, and the largest value of the pixels that it is made for
SCALES: dict[str, tuple[list[tuple[str, Any]], float | None]] = {
    "to -1..1 from bytes": ([("Mul", 1 / 127.5), ("Add", -1.0)], 255),
    "to 0..1 from bytes": ([("Div", 255.0)], 255),
    "to -1..1 from 0..1": ([("Mul", 2.0), ("Sub", 1.0)], 1),
    "ImageNet from 0..1": ([("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])], 1),
    "ImageNet from bytes": (
        [("Mul", 1 / 255), ("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])],
        255,
    ),
    "Caffe's mean": ([("Sub", [103.9, 116.8, 123.7])], 255),
    "Caffe's mean and scale": ([("Sub", [103.9, 116.8, 123.7]), ("Mul", 0.017)], 255),
    "centred 0..1": ([("Sub", 0.5)], 1),
    "a factor alone": ([("Mul", 1.1)], None),
    "nothing": ([], None),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", SCALES)
def test_a_graph_that_scales_pixels_gets_them_in_its_range(name: str, last: bool, tmp_path: Path) -> None:
    steps, largest = SCALES[name]
    layers: list[Layer] = []
    extra: dict[str, np.ndarray] = {}
    x = "pictures"
    for i, (op, value) in enumerate(steps):
        array = np.array(value, np.float32)
        extra[f"value{i}"] = array.reshape(1, 1, 1, 3) if array.ndim and last else array.reshape(-1, 1, 1)
        layers.append((op, [x, f"value{i}"], [f"step{i}"], {}))
        x = f"step{i}"
    if last:
        layers.append(("Transpose", [x], ["planes"], {"perm": [0, 3, 1, 2]}))
        x = "planes"
    shape = ("N", SIZE, SIZE, 3) if last else ("N", 3, SIZE, SIZE)
    layers.append(("Conv", [x, *BODY[0][1][1:]], ["conv"], {}))
    loaded, _ = load(model([*layers, *BODY[1:]], extra=extra, shape=shape), tmp_path)
    scaling = own_scaling(loaded.model, 3)
    assert (scaling.largest if scaling is not None else None) == largest
    if scaling is not None:
        pixels = np.random.default_rng(0).random((4, 3))
        wanted = pixels
        for op, value in steps:
            wanted = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.divide}[op](wanted, value)
        np.testing.assert_allclose(pixels * scaling.scale + scaling.shift, wanted, rtol=1e-5)

    notes = Notes()
    result = prepare(str(tmp_path / "net.onnx"), out=tmp_path / "art", classes=2, on_event=notes)
    own = result.preprocessing
    assert own is not None
    assert own.mean == ((0.485, 0.456, 0.406) if largest is None else (0, 0, 0))
    (note,) = notes.texts
    assert all(option in note for option in ("--mean", "--std", "--channel-order"))
    said = (
        "scales pixels itself, so it gets RGB values of 0.."
        if largest
        else "Assumed: RGB values of 0..1, less the mean"
    )
    assert said in note
    if largest:
        assert own.std == (1 / largest,) * 3


def test_batch_normalisation_of_the_input(tmp_path: Path) -> None:
    """As MXNet's networks begin."""
    statistics = {
        "gain": np.ones(3, np.float32),
        "offset": np.zeros(3, np.float32),
        "mean": np.array([124, 117, 104], np.float32),
        "variance": np.full(3, 3400, np.float32),
    }
    first: Layer = ("BatchNormalization", ["pictures", *statistics], ["normal"], {"epsilon": 2e-5})
    conv: Layer = ("Conv", ["normal", *BODY[0][1][1:]], ["conv"], {})
    loaded, _ = load(model([first, conv, *BODY[1:]], extra=statistics), tmp_path)
    scaling = own_scaling(loaded.model, 3)
    assert scaling is not None
    assert scaling.largest == 255
    np.testing.assert_allclose(scaling.scale, 3400**-0.5, rtol=1e-4)


def test_what_the_user_says_is_neither_changed_nor_told(tmp_path: Path) -> None:
    load(model([("Mul", ["pictures", "s"], ["x"], {}), ("Conv", ["x", *BODY[0][1][1:]], ["conv"], {}), *BODY[1:]],
               extra={"s": np.array(1 / 255, np.float32)}), tmp_path)  # fmt: skip
    notes = Notes()
    given = {"mean": (0.1,), "std": (0.2,)}
    result = prepare(str(tmp_path / "net.onnx"), out=tmp_path / "art", classes=2, preprocessing=given, on_event=notes)
    assert result.preprocessing is not None
    assert (result.preprocessing.mean, result.preprocessing.std) == ((0.1,) * 3, (0.2,) * 3)
    assert not notes.texts


@pytest.mark.parametrize("consumer", ["Cast", "DequantizeLinear"])
def test_bytes_enter_as_they_are(consumer: str, tmp_path: Path) -> None:
    rest: list[str] = ["s", "z"] if consumer == "DequantizeLinear" else []
    attributes = {} if rest else {"to": 1}
    extra = {"s": np.array(1, np.float32), "z": np.array(0, np.uint8)}
    layers: list[Layer] = [
        (consumer, ["pictures", *rest], ["values"], attributes),
        ("Conv", ["values", *BODY[0][1][1:]], ["conv"], {}),
        *BODY[1:],
    ]
    notes = Notes()
    onnx.save(model(layers, extra=extra, kind=TensorProto.UINT8), tmp_path / "net.onnx")
    result = prepare(str(tmp_path / "net.onnx"), out=tmp_path / "art", classes=2, on_event=notes)
    assert "takes bytes" in notes.texts[0]
    assert len(notes.texts) == 1
    artifacts = load_artifacts(tmp_path / "art")
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    assert result.preprocessing is not None
    assert result.preprocessing.std == (1 / 255,) * 3
    session = sessions.open_session(artifacts.file("preprocess.onnx"))
    (x,) = session.run(None, {"image": picture})
    assert (x == np.round(x)).all()
    assert 100 < x.max() <= 255


class Half(nn.Module):
    """A network whose module, or whose inside, is in 16 bits."""

    def __init__(self, kind: torch.dtype, *, inside: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        self.body.to(kind)
        self.kind = kind if inside else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind is None:
            return self.body(x)  # type: ignore[no-any-return]
        return self.body(x.to(self.kind)).float()  # type: ignore[no-any-return]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_module_in_sixteen_bits(kind: torch.dtype, inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetl.preparation.sources.export import export

    torch.manual_seed(0)
    module = Half(kind, inside=inside)
    reference = Half(torch.float32, inside=False)
    reference.load_state_dict({name: value.float() for name, value in module.state_dict().items()})
    notes = Notes()
    graph, parameters = export(module, Preprocessing(SIZE, SIZE, resize_size=SIZE).inputs, notes)
    with torch.no_grad():
        wanted = reference(torch.from_numpy(PICTURES)).numpy()
    np.testing.assert_allclose(run(graph, PICTURES), wanted, rtol=1e-4, atol=1e-5)
    assert len(parameters) == 4
    assert "16-bit numbers" in notes.texts[0]


def factory_source(tmp_path: Path, forward: str) -> str:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n        self.fc = nn.Linear(4, 5)\n\n"
        f"    def forward(self, x):\n        {forward}\n"
        "        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))\n"
    )
    return f"{file}:Net"


@pytest.mark.parametrize(
    ("forward", "wanted"),
    [
        ("x = x / 127.5 - 1", "0..255 as they are"),
        ("x = (x - 0.5) / 0.25", "0..1 as they are"),
        ("x = x", "Assumed: RGB values of 0..1"),
    ],
)
def test_a_function_that_does_not_say(forward: str, wanted: str, tmp_path: Path) -> None:
    notes = Notes()
    source = factory_source(tmp_path, forward)
    prepare(source, out=tmp_path / "art", classes=2, preprocessing={"size": SIZE}, on_event=notes)
    (note,) = notes.texts
    assert wanted in note


def test_what_is_stated_is_not_told() -> None:
    """Of pictures that a graph takes as they are, nothing is assumed."""
    notes = Notes()
    own = Preprocessing(SIZE, SIZE, resize_size=SIZE, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    assert settle("net", model(BODY), own, {}, notes) == own
    assert not notes.texts
