"""Networks that take something else than one picture: other shapes, several tensors, integers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgetl.artifacts import TensorSpec
from edgetl.errors import ModelError
from edgetl.graph.build import join, make_model
from edgetl.graph.execute import draw
from edgetl.preparation.heads import replace_head
from edgetl.preparation.sources.export import export_program
from edgetl.preparation.sources.resolve import load_source
from edgetl.preparation.split import split
from edgetl.runtime import sessions

SIGNAL = TensorSpec("signal", (6, 128))
TAGGED = (TensorSpec("signal", (6, 16)), TensorSpec("tag", (), "int64"), TensorSpec("mask", (16,), "int64"))

FACTORY = """
from torch import nn

def build():
    front = nn.Sequential(nn.Conv1d(6, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    return nn.Sequential(front, nn.Linear(8, 4))
"""


class Tagged(nn.Module):
    """A masked signal and a tag."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 8)
        self.first = nn.Conv1d(6, 8, 3, padding=1)
        self.second = nn.Conv1d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, signal: torch.Tensor, tag: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept = mask[:, None].float()
        x = torch.relu(self.first(signal * kept)) + self.table(tag)[:, :, None]
        x = torch.relu(self.second(x)) * kept
        return self.head(x.sum(2) / kept.sum(2))


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tagged") / "net.onnx"
    torch.manual_seed(0)
    examples = tuple(torch.from_numpy(array) for array in draw(TAGGED, 2).values())
    batch = {0: torch.export.Dim("batch", min=1)}
    onnx.save(export_program(Tagged().eval(), examples, [batch, batch, batch]), file)
    return file


def load(spec: str, *inputs: TensorSpec) -> object:
    return load_source(spec, weights=None, model_args={}, overrides={}, modality="array", inputs=inputs)


def test_a_function_may_take_another_shape(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    loaded = load(f"{tmp_path}/net.py:build", SIGNAL)
    assert (loaded.modality, loaded.preprocessing) == ("array", None)
    assert [(spec.shape, spec.dtype) for spec in loaded.inputs] == [((6, 128), "float32")]
    network = replace_head(loaded.model, 3, loaded.parameters)
    parts = split(network, [*network.head])
    assert [spec.shape for spec in parts.features] == [(8,)]
    with pytest.raises(ModelError, match=r"does not take samples of 5×128"):
        load(f"{tmp_path}/net.py:build", TensorSpec("signal", (5, 128)))


@pytest.mark.parametrize(
    ("trained", "boundary"),
    [
        ("head", {(8,): "float32"}),
        ("second", {(8, 16): "float32", (16,): "int64"}),
        ("table", {(8, 16): "float32", (): "int64", (16,): "int64"}),
        ("first", {(6, 16): "float32", (8, 1): "float32", (16,): "int64"}),
    ],
)
def test_several_inputs_cross_as_what_they_are(tagged: Path, trained: str, boundary: dict) -> None:
    loaded = load(str(tagged), *TAGGED)
    network = replace_head(loaded.model, 3, loaded.parameters)
    names = [name for name in network.parameters if name.startswith((trained, "head"))]
    assert names
    parts = split(network, names)
    assert {spec.shape: spec.dtype for spec in parts.features} == boundary
    graphs = [part.graph for part in (parts.backbone, parts.trainable) if part is not None]
    samples = draw(loaded.inputs, 4, seed=3)
    found, expected = (
        sessions.open_session(model.SerializeToString()).run(None, samples)[0]
        for model in (make_model(join(graphs, "joined")), network.model)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_files_with_other_inputs_are_refused(tagged: Path) -> None:
    with pytest.raises(
        ModelError, match=r"takes, for one sample, float32 \[6, 16\]; int64 \[\].*, not float32 \[6, 9\]"
    ):
        load(str(tagged), TensorSpec("signal", (6, 9)))
    with pytest.raises(ModelError, match="has 3 inputs; a picture classifier has one"):
        load(str(tagged))
    with pytest.raises(ModelError, match="takes pictures"):
        load("timm:resnet18", SIGNAL)
