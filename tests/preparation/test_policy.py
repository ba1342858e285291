import pytest
import torch
from torch import nn

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.heads import Network, replace_head
from edgetl.preparation.policy import _block_of, blocks, trainable_parameters
from edgetl.preparation.sources.export import export
from edgetl.preparation.sources.onnx_file import find_parameters

SMALL = Preprocessing(8, 8, resize_size=8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.last_norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last_norm(self.blocks(self.stem(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> Network:
    model, parameters = export(Net(), SMALL.inputs)
    return replace_head(model, 3, parameters)


HEAD = {"head.weight", "head.bias"}
NORM = {"last_norm.weight", "last_norm.bias"}


def block(number: int) -> set[str]:
    return {f"blocks.{number}.{name}" for name in ("conv.weight", "conv.bias", "bn.weight", "bn.bias")}


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        (["head"], HEAD),
        (["last:1"], HEAD | NORM | block(2)),
        (["last:2"], HEAD | NORM | block(2) | block(1)),
        (["all"], HEAD | NORM | block(0) | block(1) | block(2) | {"stem.weight"}),
        (["bias"], HEAD | {"last_norm.bias"} | {f"blocks.{i}.{n}.bias" for i in range(3) for n in ("conv", "bn")}),
        (["norm"], HEAD | NORM | {f"blocks.{i}.bn.{n}" for i in range(3) for n in ("weight", "bias")}),
        (["stem.*"], HEAD | {"stem.weight"}),
        (["*.1.conv.*", "last_norm.bias"], HEAD | {"last_norm.bias", "blocks.1.conv.weight", "blocks.1.conv.bias"}),
        (["head", "stem.weight"], HEAD | {"stem.weight"}),
    ],
)
def test_policies(network: Network, policies: list[str], expected: set[str]) -> None:
    found = trainable_parameters(network, policies)
    assert set(found) == expected
    assert list(found) == [name for name in network.parameters if name in expected]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("last:0", "choose 1 to 3"),
        ("last:4", "choose 1 to 3"),
        ("most", "neither a policy"),
        ("*.gamma", "stem.weight"),
    ],
)
def test_what_cannot_be_meant(network: Network, policy: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        trainable_parameters(network, [policy])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.6.0.conv_pw.weight", "blocks.6.0"),
        ("blocks.11.attn.qkv.weight", "blocks.11"),
        ("stages.3.blocks.2.mlp.fc1.weight", "stages.3.blocks.2"),
        ("layers.2.blocks.1.norm1.weight", "layers.2.blocks.1"),
        ("layer4.1.conv1.weight", "layer4.1"),
        ("features.12.conv.0.0.weight", "features.12"),
        ("features.denseblock4.denselayer16.conv1.weight", "features.denseblock4.denselayer16"),
        ("encoder.layers.encoder_layer_11.mlp.0.weight", "encoder.layers.encoder_layer_11"),
        ("vit.encoder.layer.5.attention.output.dense.bias", "vit.encoder.layer.5"),
        ("features.18.0.weight", "features.18"),
        ("features.6.3.block.0.0.weight", "features.6.3"),
        ("features.28.weight", "features.28"),
        ("stages.3.blocks.1.layer_scale1.scale", "stages.3.blocks.1"),
        ("blocks.5.gamma_1", "blocks.5"),
        ("conv5.0.weight", None),
        ("conv_head.weight", None),
        ("norm.weight", None),
        ("val_3", None),
    ],
)
def test_names_tell_the_block(name: str, expected: str | None) -> None:
    assert _block_of(name) == expected


def test_a_graph_without_names_is_divided_into_layers() -> None:
    model, parameters = export(Net(), SMALL.inputs)
    renamed = {name: f"w{i}" for i, name in enumerate(parameters)}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for tensor in model.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    network = replace_head(model, 3, find_parameters(model.graph))
    assert network.head == ("head.weight", "head.bias")
    stem, *convolutions = blocks(network)
    assert stem == [renamed["stem.weight"]]
    assert len(convolutions) == 3
    # the last layer, and the norms that follow it
    assert set(convolutions[2]) == {renamed[name] for name in block(2) | NORM}
