from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgetl.artifacts import BATCH_LOGITS, Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.heads import append_head, features_output, replace_head
from edgetl.preparation.sources.export import export
from edgetl.runtime import sessions

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
    tensors = {t.name: t for t in network.model.graph.initializer}
    layer = module[last]
    values = layer.weight.detach().numpy().reshape(7, 5)[:3].copy()
    offset = layer.bias.detach().numpy()[:3].copy() if layer.bias is not None else np.zeros(3, np.float32)
    tensors[weight].CopyFrom(numpy_helper.from_array(values, weight))
    tensors[bias].CopyFrom(numpy_helper.from_array(offset, bias))
    session = sessions.open_session(network.model.SerializeToString())
    (found,) = session.run([BATCH_LOGITS], {network.model.graph.input[0].name: pictures.numpy()})
    np.testing.assert_allclose(found, raw(pictures).detach().numpy()[:, :3], rtol=1e-4, atol=1e-5)


def test_a_new_head_knows_nothing_yet() -> None:
    network = replace_head(*_with_classes(export(MODULES["linear"], SMALL.inputs)))
    session = sessions.open_session(network.model.SerializeToString())
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
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["x", "v"], ["y"])]
    with pytest.raises(ModelError, match=r"2 outputs \(a, y\).*one of 'w', 'v'"):
        replace_head(graph(nodes, ["a", "y"], {"w": W, "v": W}), 5)
    assert replace_head(graph(nodes, ["a", "y"], {"w": W, "v": W}), 5, head="v").head == ("head.weight", "head.bias")


def test_outputs_of_one_classifier_are_not_ambiguous() -> None:
    """Scores, probabilities, the label, and the features before them."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["features"]),
        helper.make_node("Gemm", ["features", "w", "b"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1),
    ]
    weights = {"first": np.ones((4, 4), np.float32), "w": W, "b": B}
    network = replace_head(graph(nodes, ["features", "scores", "probabilities", "label"], weights), 5)
    assert [node.op_type for node in network.model.graph.node] == ["MatMul", "Relu", "Flatten", "Gemm"]


class Forms(nn.Module):
    """A body with heads of the forms that need more than the last layer."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(3, 5, 3)
        self.first = nn.Linear(5, 7)
        self.second = nn.Linear(5, 7)
        self.scores = nn.Conv2d(5, 7, 1)
        self.covering = nn.Conv2d(5, 7, 6)
        self.again = nn.Linear(7, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.conv(x))
        pooled = features.mean((2, 3))
        if self.form == "averaged":
            return (self.first(pooled) + self.second(features.amax((2, 3)))) / 2
        if self.form == "averaged, same features":
            return (self.first(pooled) + self.second(pooled)) / 2
        if self.form == "multiplied":
            return self.first(pooled) * self.second(pooled)
        if self.form == "gated":
            return self.first(pooled) * torch.sigmoid(self.second(pooled))
        if self.form == "pooled scores":
            return self.scores(features).mean((2, 3))
        if self.form == "covering kernel":
            return self.covering(features).flatten(1)
        if self.form == "tokens":
            return self.first(features.flatten(2).transpose(1, 2)).mean(1)
        if self.form == "a map of scores":
            return self.scores(features)
        if self.form == "side by side":
            return torch.cat([self.first(pooled), self.second(pooled)], 1)
        if self.form == "residual":
            hidden = self.first(pooled)
            return hidden + self.again(torch.relu(hidden))
        return self.first(pooled), self.second(pooled)


def scores_with(
    values: dict[str, np.ndarray], module: Forms, head: str | None = None
) -> tuple[np.ndarray, torch.Tensor]:
    """Return the network's logits for two pictures with these parameters, and the pictures."""
    model, parameters = export(module, SMALL.inputs)
    network = replace_head(model, 3, parameters, head)
    tensors = {tensor.name: tensor for tensor in network.model.graph.initializer}
    assert values.keys() == set(network.head)
    for name, value in values.items():
        assert tuple(tensors[name].dims) == value.shape
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    pictures = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    session = sessions.open_session(network.model.SerializeToString())
    (found,) = session.run([BATCH_LOGITS], {network.model.graph.input[0].name: pictures.numpy()})
    return found, pictures


def old(module: Forms, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the first three rows of a layer's weight, as a matrix, and of its bias."""
    layer = module.get_submodule(name)
    weight, bias = (layer.get_parameter(kind).detach().numpy()[:3] for kind in ("weight", "bias"))
    return weight.reshape(3, -1).copy(), bias.copy()


@pytest.mark.parametrize(
    ("form", "layer"), [("pooled scores", "scores"), ("tokens", "first"), ("covering kernel", "covering")]
)
def test_positions_are_pooled_before_the_new_layer(form: str, layer: str) -> None:
    module = Forms(form).eval()
    weight, bias = old(module, layer)
    found, pictures = scores_with({f"{layer}.weight": weight, f"{layer}.bias": bias}, module)
    np.testing.assert_allclose(found, module(pictures).detach().numpy()[:, :3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["averaged", "averaged, same features"])
def test_one_layer_takes_the_place_of_several(form: str) -> None:
    module = Forms(form).eval()
    (first, b), (second, c) = old(module, "first"), old(module, "second")
    weight = (first + second) / 2 if "same" in form else np.concatenate([first, second], 1) / 2
    found, pictures = scores_with({"first.weight": weight, "first.bias": (b + c) / 2}, module)
    np.testing.assert_allclose(found, module(pictures).detach().numpy()[:, :3], rtol=1e-4, atol=1e-5)


ENDS = {
    "ReLU": nn.ReLU(),
    "ReLU6": nn.ReLU6(),
    "hard sigmoid": nn.Hardsigmoid(),
    "hard swish": nn.Hardswish(),
    "swish": nn.SiLU(),
    "log of softmax": nn.LogSoftmax(1),
    "sigmoid": nn.Sigmoid(),
    "normalised": nn.BatchNorm1d(7),
}


@pytest.mark.parametrize("name", [*ENDS, "multiplied", "gated", "ReLU of a map", "pooled, then ReLU"])
def test_a_new_head_moves_with_the_first_step(name: str) -> None:
    """The gradient of its weight at zero, by central differences, is that of a linear layer on the features."""
    torch.manual_seed(0)
    module: nn.Module
    if name in ENDS:
        module = nn.Sequential(*body(), nn.Flatten(), nn.Linear(5, 7), ENDS[name])
    elif name == "ReLU of a map":
        module = nn.Sequential(*body()[:2], nn.Conv2d(5, 7, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    elif name == "pooled, then ReLU":
        module = nn.Sequential(*body()[:2], nn.Conv2d(5, 7, 1), nn.AdaptiveAvgPool2d(1), nn.ReLU6(), nn.Flatten())
    else:
        module = Forms(name)
    model, parameters = export(module.eval(), SMALL.inputs)
    network = replace_head(model, 3, parameters)
    convolution = module.conv if isinstance(module, Forms) else module[0]
    pictures = torch.randn(2, 3, 8, 8)
    features = torch.relu(convolution(pictures)).mean((2, 3)).detach().numpy()
    feeds = {network.model.graph.input[0].name: pictures.numpy()}
    weight = next(tensor for tensor in network.model.graph.initializer if tensor.name == network.head[0])
    step = np.zeros((3, 5), np.float32)
    for i in range(5):
        step[1, i] = 1
        weight.CopyFrom(numpy_helper.from_array(step, weight.name))
        (found,) = sessions.open_session(network.model.SerializeToString()).run(None, feeds)
        np.testing.assert_allclose(found[:, 1], features[:, i], rtol=1e-4, atol=1e-5)
        step[1, i] = 0


def test_of_two_outputs_one_is_chosen_by_name() -> None:
    module = Forms("two outputs").eval()
    with pytest.raises(ModelError, match=r"choose with --head, one of 'first', 'second'"):
        scores_with({}, module)
    for i, name in enumerate(("first", "second")):
        weight, bias = old(module, name)
        found, pictures = scores_with({f"{name}.weight": weight, f"{name}.bias": bias}, module, head=name)
        np.testing.assert_allclose(found, module(pictures)[i].detach().numpy()[:, :3], rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match=r"'third' names no linear layer.*'second', 'first'"):
        scores_with({}, module, head="third")


@pytest.mark.parametrize(("form", "what"), [("side by side", "Concat"), ("residual", "Add")])
def test_what_is_no_classifier_names_the_layers_that_there_are(form: str, what: str) -> None:
    module = Forms(form).eval()
    with pytest.raises(ModelError, match=rf"made by {what} .*with --head, for example .*'first'"):
        scores_with({}, module)
    weight, bias = old(module, "first")
    scores_with({"first.weight": weight, "first.bias": bias}, module, head="first")


def test_scores_of_positions_are_averaged_where_the_layer_is_named() -> None:
    module = Forms("a map of scores").eval()
    with pytest.raises(ModelError, match=r"'scores' gives scores for each of 36 positions"):
        scores_with({}, module)
    weight, bias = old(module, "scores")
    found, pictures = scores_with({"scores.weight": weight, "scores.bias": bias}, module, head="scores")
    np.testing.assert_allclose(found, module(pictures).mean((2, 3)).detach().numpy()[:, :3], rtol=1e-4, atol=1e-5)


def test_layers_in_sequence_end_with_the_last_one() -> None:
    """Thousands of operators behind the scores, and ways that branch at each, are passed over at once."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y0"])]
    nodes += [helper.make_node("Mul", [f"y{i}", f"y{i}"], [f"y{i + 1}"]) for i in range(3000)]
    assert replace_head(graph(nodes, ["y3000"], {"w": W}), 5).head == ("head.weight", "head.bias")


def extractor(*end: nn.Module) -> tuple[onnx.ModelProto, nn.Module, tuple[str, ...]]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.LeakyReLU(), *end).eval()
    return (*export(module, SMALL.inputs)[:1], module, export(module, SMALL.inputs)[1])


@pytest.mark.parametrize(
    "end", [(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (nn.AdaptiveMaxPool2d(1),), (nn.Flatten(), nn.Linear(180, 5))]
)
def test_a_head_is_put_behind_features(end: tuple[nn.Module, ...]) -> None:
    model, module, parameters = extractor(*end)
    network = append_head(model, 5, parameters)
    assert network.head == ("head.weight", "head.bias")
    assert network.parameters == (*parameters, *network.head)
    for tensor in network.model.graph.initializer:
        if tensor.name == "head.weight":
            assert not numpy_helper.to_array(tensor).any()
            tensor.CopyFrom(numpy_helper.from_array(np.eye(5, dtype=np.float32), tensor.name))
    pictures = torch.randn(2, 3, 8, 8)
    session = sessions.open_session(network.model.SerializeToString())
    (found,) = session.run([BATCH_LOGITS], {network.model.graph.input[0].name: pictures.numpy()})
    np.testing.assert_allclose(found, module(pictures).detach().numpy().reshape(2, 5), rtol=1e-4, atol=1e-5)


def test_what_features_are() -> None:
    normalised = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(5))
    assert features_output(extractor(normalised)[0]) is not None
    assert features_output(extractor(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7))[0]) is None
    model, _, parameters = extractor()
    assert features_output(model) is None
    with pytest.raises(ModelError, match="not one vector of numbers for each sample"):
        append_head(model, 3, parameters)
    with pytest.raises(ModelError, match="is not an output of the network"):
        append_head(model, 3, parameters, "elsewhere")
