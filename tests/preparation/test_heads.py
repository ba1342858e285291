from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgetl import runtime
from edgetl.artifacts import BATCH_LOGITS, Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.heads import replace_head
from edgetl.preparation.sources.export import export

SMALL = Preprocessing(8, 8, resize_size=8)


def body() -> list[nn.Module]:
    return [nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]


def _with_classes(exported: tuple[onnx.ModelProto, tuple[str, ...]]) -> tuple[onnx.ModelProto, int, tuple[str, ...]]:
    return exported[0], 3, exported[1]


MODULES = {
    "linear": nn.Sequential(*body(), nn.Flatten(), nn.Linear(5, 7)),
    "linear without bias": nn.Sequential(*body(), nn.Flatten(), nn.Linear(5, 7, bias=False)),
    "behind dropout": nn.Sequential(*body(), nn.Flatten(), nn.Dropout(), nn.Linear(5, 7)),
    "softmax at the end": nn.Sequential(*body(), nn.Flatten(), nn.Linear(5, 7), nn.Softmax(1)),
    "1×1 convolution": nn.Sequential(*body(), nn.Conv2d(5, 7, 1), nn.Flatten()),
    "1×1 convolution without bias": nn.Sequential(*body(), nn.Conv2d(5, 7, 1, bias=False), nn.Flatten()),
    "two layers": nn.Sequential(*body(), nn.Flatten(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 7)),
}


@pytest.mark.parametrize("name", MODULES)
def test_the_classifier_of_a_module_is_replaced(name: str) -> None:
    torch.manual_seed(0)
    module = MODULES[name]
    network = replace_head(*_with_classes(export(module, SMALL.inputs)))
    weight, bias = network.head
    last = max(i for i, layer in enumerate(module) if isinstance(layer, nn.Linear | nn.Conv2d))
    assert (weight, bias) == (f"{last}.weight", f"{last}.bias")

    # with the old weights in the first three rows, the new logits are the old ones
    pictures = torch.randn(2, 3, 8, 8)
    raw = nn.Sequential(*[layer for layer in module if not isinstance(layer, nn.Softmax)])
    old = {t.name: t for t in network.model.graph.initializer}
    layer = module[last]
    values = layer.weight.detach().numpy().reshape(7, 5)[:3].copy()
    offset = layer.bias.detach().numpy()[:3].copy() if layer.bias is not None else np.zeros(3, np.float32)
    old[weight].CopyFrom(numpy_helper.from_array(values, weight))
    old[bias].CopyFrom(numpy_helper.from_array(offset, bias))
    session = runtime.open_session(network.model.SerializeToString())
    (found,) = session.run([BATCH_LOGITS], {network.model.graph.input[0].name: pictures.numpy()})
    np.testing.assert_allclose(found, raw(pictures).detach().numpy()[:, :3], rtol=1e-4, atol=1e-5)


def test_a_new_head_knows_nothing_yet() -> None:
    network = replace_head(*_with_classes(export(MODULES["linear"], SMALL.inputs)))
    session = runtime.open_session(network.model.SerializeToString())
    (found,) = session.run(None, {network.model.graph.input[0].name: np.ones((2, 3, 8, 8), np.float32)})
    assert found.shape == (2, 3)
    assert (found == 0).all()


def graph(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            initializer=[numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )


W, B = np.ones((4, 3), np.float32), np.ones(3, np.float32)


def test_matmul_and_add_are_a_classifier() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["b", "m"], ["y"])]
    network = replace_head(graph(nodes, ["y"], {"w": W, "b": B}), 5)
    assert network.head == ("head.weight", "head.bias")
    assert {t.name: tuple(t.dims) for t in network.model.graph.initializer} == {
        "head.weight": (5, 4),
        "head.bias": (5,),
    }


def test_no_classifier_is_an_error_that_says_what_was_found() -> None:
    with pytest.raises(ModelError, match="made by Relu"):
        replace_head(graph([helper.make_node("Relu", ["x"], ["y"])], ["y"], {}), 5)


def test_several_outputs_are_ambiguous() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    with pytest.raises(ModelError, match=r"2 outputs \(a, y\)"):
        replace_head(graph(nodes, ["a", "y"], {"w": W}), 5)


class Forms(nn.Module):
    """A body with heads of the forms that need more than the last layer."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(3, 5, 3)
        self.first = nn.Linear(5, 7)
        self.second = nn.Linear(5, 7)
        self.scores = nn.Conv2d(5, 7, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.conv(x))
        pooled = features.mean((2, 3))
        if self.form == "averaged":
            return (self.first(pooled) + self.second(features.amax((2, 3)))) / 2
        if self.form == "pooled scores":
            return torch.relu(self.scores(features)).mean((2, 3))
        if self.form == "tokens":
            return self.first(features.flatten(2).transpose(1, 2)).mean(1)
        if self.form == "side by side":
            return torch.cat([self.first(pooled), self.second(pooled)], 1)
        return self.first(pooled), self.second(pooled)


def scores_with_old_weights(module: Forms, head: str | None = None) -> tuple[np.ndarray, torch.Tensor, tuple[str, ...]]:
    model, parameters = export(module, SMALL.inputs)
    network = replace_head(model, 3, parameters, head)
    tensors = {tensor.name: tensor for tensor in network.model.graph.initializer}
    for name in network.head:
        value = module.get_parameter(name).detach().numpy()[:3].copy()
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    pictures = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    session = runtime.open_session(network.model.SerializeToString())
    (found,) = session.run([BATCH_LOGITS], {network.model.graph.input[0].name: pictures.numpy()})
    return found, pictures, network.head


@pytest.mark.parametrize(
    ("form", "head"),
    [
        ("averaged", ("first.weight", "first.bias", "second.weight", "second.bias")),
        ("pooled scores", ("scores.weight", "scores.bias")),
        ("tokens", ("first.weight", "first.bias")),
    ],
)
def test_what_follows_the_classifier_is_kept(form: str, head: tuple[str, ...]) -> None:
    module = Forms(form).eval()
    found, pictures, names = scores_with_old_weights(module)
    assert set(names) == set(head)
    np.testing.assert_allclose(found, module(pictures).detach().numpy()[:, :3], rtol=1e-4, atol=1e-5)


def test_of_two_outputs_one_is_chosen_by_name() -> None:
    module = Forms("two outputs").eval()
    with pytest.raises(ModelError, match=r"choose with --head, one of 'first', 'second'"):
        scores_with_old_weights(module)
    for i, name in enumerate(("first", "second")):
        found, pictures, names = scores_with_old_weights(module, head=name)
        assert names == (f"{name}.weight", f"{name}.bias")
        np.testing.assert_allclose(found, module(pictures)[i].detach().numpy()[:, :3], rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match=r"'third' names no classifier.*'first', 'second'"):
        scores_with_old_weights(module, head="third")


def test_scores_side_by_side_are_no_classifier() -> None:
    with pytest.raises(ModelError, match="made by Concat"):
        scores_with_old_weights(Forms("side by side").eval())
