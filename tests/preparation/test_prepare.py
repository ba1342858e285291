import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import write_pictures
from torch import nn

from edgetl import deploy, finetune, prepare
from edgetl.artifacts import load_artifacts
from edgetl.errors import DataError, EdgetlError, ModelError
from edgetl.preparation.sources.export import export
from edgetl.runs.run import BEST, Run

SOURCE = """
import torch
from torch import nn

def build(width=6, fail=False):
    if fail:
        raise ValueError("as asked")
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 9))

def nothing():
    return 3

def segmenter():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(SOURCE)
    return tmp_path / "nets.py"


SIZE = {"size": 12}


def test_a_factory_end_to_end(source: Path, tmp_path: Path) -> None:
    result = prepare(
        f"{source}:build", out=tmp_path / "art", labels=["a", "b"], preprocessing=SIZE, model_args={"width": 5}
    )
    assert (result.outputs, result.trainable_parameters) == (2, 12)
    artifacts = load_artifacts(tmp_path / "art")
    assert artifacts.manifest.labels == ("a", "b")
    assert artifacts.manifest.source.model_args == {"width": "5"}
    for name in artifacts.manifest.files:
        if name.endswith(".onnx") and "optimizer" not in name:
            model = onnx.load(tmp_path / "art" / name)
            assert (model.ir_version, model.opset_import[0].version) == (8, 18), name
    data = write_pictures(tmp_path / "data", {"a": 6, "b": 6})
    finetune(tmp_path / "art", data, out=tmp_path / "run", epochs=2)
    assert deploy(tmp_path / "run", out=tmp_path / "model.onnx").verified_samples == 2


def test_the_head_trains_as_in_torch(source: Path, tmp_path: Path) -> None:
    """The same features, order, loss and AdamW in torch end in the same parameters."""
    prepare(f"{source}:build", out=tmp_path / "art", labels=["a", "b", "c"], preprocessing=SIZE)
    data = write_pictures(tmp_path / "data", {"a": 10, "b": 10, "c": 10})
    finetune(tmp_path / "art", data, out=tmp_path / "run", epochs=5, batch_size=7, init="zero", lr=1e-2, val_fraction=0)

    from edgetl.data.dataset import open_folder
    from edgetl.training.features import extract_features

    features = extract_features(load_artifacts(tmp_path / "art"), open_folder(data).samples)
    inputs = torch.from_numpy(features.batch(np.arange(30))[0])
    targets = torch.tensor([sample.label for sample in features.samples])
    head = nn.Linear(6, 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    losses = []
    for epoch in range(1, 6):
        order = np.random.default_rng([0, epoch]).permutation(np.arange(30))
        for batch in torch.from_numpy(order).split(7):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(inputs[batch]), targets[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(batch))
    found = Run(tmp_path / "run").read_checkpoint(BEST)
    assert found is not None
    np.testing.assert_allclose(found.parameters["5.weight"], head.weight.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(found.parameters["5.bias"], head.bias.detach().numpy(), atol=1e-6)
    assert found.history[-1].train_loss == pytest.approx(sum(losses[-5:]) / 30, rel=1e-5)


def test_an_onnx_file_and_a_module_give_the_same_parts(source: Path, tmp_path: Path) -> None:
    namespace: dict[str, object] = {}
    exec(SOURCE, namespace)
    from edgetl.artifacts import Preprocessing

    model, _ = export(namespace["build"](), Preprocessing(12, 12, resize_size=12).inputs)  # type: ignore[operator]
    onnx.save(model, tmp_path / "net.onnx")
    first = prepare(str(tmp_path / "net.onnx"), out=tmp_path / "a", classes=4)
    prepare(f"{source}:build", out=tmp_path / "b", classes=4, preprocessing=SIZE)
    assert (first.outputs, first.labels) == (4, ())
    for name in ("backbone.onnx", "trainable.onnx", "preprocess.onnx"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_file_for_one_picture_at_a_time_gets_a_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    ).eval()
    program = torch.onnx.export(module, (torch.randn(1, 3, 10, 10),), dynamo=True, opset_version=18, verbose=False)
    program.save(tmp_path / "one.onnx")
    result = prepare(str(tmp_path / "one.onnx"), out=tmp_path / "art", labels=["a", "b"])
    assert (result.preprocessing.height, result.features[0].shape) == (10, (16,))


def test_only_the_number_of_classes_is_known(source: Path, tmp_path: Path) -> None:
    prepare(f"{source}:build", out=tmp_path / "art", classes=2, preprocessing=SIZE)
    data = write_pictures(tmp_path / "data", {"yes": 4, "no": 4})
    finetune(tmp_path / "art", data, out=tmp_path / "run", epochs=1)
    assert Run(tmp_path / "run").read_args().labels == ("no", "yes")
    three = write_pictures(tmp_path / "three", {"x": 2, "y": 2, "z": 2})
    with pytest.raises(DataError, match=r"has 3 classes, but .* prepared for 2"):
        finetune(tmp_path / "art", three, out=tmp_path / "other", epochs=1)


def test_weights_come_from_a_file_without_executing_it(source: Path, tmp_path: Path) -> None:
    namespace: dict[str, object] = {}
    exec(SOURCE, namespace)
    module = namespace["build"]()  # type: ignore[operator]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.5)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    prepare(f"{source}:build", out=tmp_path / "art", classes=2, preprocessing=SIZE, weights=tmp_path / "weights.pt")
    manifest = load_artifacts(tmp_path / "art").manifest
    assert manifest.source.weights_sha256 == hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
    backbone = onnx.load(tmp_path / "art" / "backbone.onnx")
    bias = next(onnx.numpy_helper.to_array(t) for t in backbone.graph.initializer if "bias" in t.name)
    assert (bias != 0).all()

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    torch.save({"0.weight": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ModelError, match="is not a checkpoint that can be read"):
        prepare(f"{source}:build", out=tmp_path / "x", classes=2, weights=tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_an_existing_directory_is_replaced_only_by_force(source: Path, tmp_path: Path) -> None:
    prepare(f"{source}:build", out=tmp_path / "art", classes=2, preprocessing=SIZE)
    before = (tmp_path / "art" / "manifest.json").read_bytes()
    with pytest.raises(EdgetlError, match="--force"):
        prepare(f"{source}:build", out=tmp_path / "art", classes=3, preprocessing=SIZE)
    with pytest.raises(ModelError):
        prepare(f"{source}:missing", out=tmp_path / "art", classes=3, preprocessing=SIZE, force=True)
    assert (tmp_path / "art" / "manifest.json").read_bytes() == before
    prepare(f"{source}:build", out=tmp_path / "art", classes=3, preprocessing=SIZE, force=True)
    assert json.loads((tmp_path / "art" / "manifest.json").read_text())["outputs"] == 3


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("{file}:missing", {}, "no function 'missing'"),
        ("{file}:nothing", {}, "returned a int"),
        ("{file}:build", {"model_args": {"fail": True}}, "as asked"),
        ("{file}:build", {"model_args": {"depth": 3}}, "depth"),
        ("{file}:build", {"weights": "missing.pt"}, "missing.pt does not exist"),
        ("{file}:build", {"train": ["half"]}, "'half' is neither a policy"),
        ("{file}:build", {"preprocessing": {"interpolation": "lanczos"}}, "lanczos"),
        ("{file}:build", {"preprocessing": {"sizes": 3}}, "no field sizes"),
        ("{file}:build", {"preprocessing": {"size": 12, "std": (0.0,)}}, "must be positive"),
        ("{file}:build", {"labels": ["a", "a"], "classes": None}, "repeated"),
        ("{file}:build", {"labels": ["a"], "classes": None}, "at least 2"),
        ("{file}:segmenter", {}, "no classifier is recognisable"),
        ("nowhere.py:build", {}, "does not exist"),
        ("no.such.module:build", {}, "there is no module no.such.module"),
        ("nowhere.onnx", {}, "does not exist"),
        ("something", {}, "does not exist: give timm:NAME"),
        ("timm:no_such_net", {}, "timm has no model"),
    ],
)
def test_what_cannot_be_prepared_is_one_sentence(
    source: Path, tmp_path: Path, spec: str, options: dict[str, object], message: str
) -> None:
    arguments = {"classes": 2, "preprocessing": SIZE, **options}
    with pytest.raises(EdgetlError, match=message):
        prepare(spec.format(file=source), out=tmp_path / "art", **arguments)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["nets.py"]


def test_other_onnx_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not protobuf")
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        prepare(str(tmp_path / "broken.onnx"), out=tmp_path / "art", classes=2)


def test_no_labels_or_too_many(source: Path, tmp_path: Path) -> None:
    for options in ({}, {"classes": 2, "labels": ["a", "b"]}):
        with pytest.raises(EdgetlError, match="exactly one"):
            prepare(f"{source}:build", out=tmp_path / "art", **options)  # type: ignore[arg-type]


def test_the_module_of_a_factory_can_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_nets.py").write_text("WIDTH = 4\n")
    (tmp_path / "nets2.py").write_text(SOURCE + "\nfrom neighbour_of_nets import WIDTH\n")
    prepare(f"{tmp_path / 'nets2.py'}:build", out=tmp_path / "art", classes=2, preprocessing=SIZE)
    assert str(tmp_path) not in sys.path


HINDERED = """
import torch
from torch import nn

class Steps(nn.Module):
    def forward(self, x):
        return torch.floor(x) + torch.ceil(x)

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Steps(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 9))
"""


def test_what_cannot_be_trained_is_listed_with_what_can(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(HINDERED)
    spec = f"{tmp_path / 'nets.py'}:build"
    with pytest.raises(ModelError) as caught:
        prepare(spec, out=tmp_path / "art", classes=2, preprocessing=SIZE, train=["all"])
    sentence = str(caught.value)
    assert "Floor" in sentence
    assert "Ceil" in sentence
    assert sentence.endswith("What can: head, last:1")
    assert not (tmp_path / "art").exists()
    for policy in ("head", "last:1"):
        prepare(spec, out=tmp_path / "art", classes=2, preprocessing=SIZE, train=[policy], force=True)
