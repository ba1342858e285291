"""Channels that share a scale: made alike in size before quantisation, without a change of what the network computes.

A convolution's channel may be divided by any positive number, where everything that reads it multiplies by the same
number again; Relu, LeakyRelu, pooling and sums of equally scaled maps let it through. Eight bits with one scale for
the whole map then serve small channels as well as large ones (Nagel et al. 2019, "Data-Free Quantization through
Weight Equalization and Bias Correction", section 4.1; here with ranges that samples show, as weights have a scale of
their own for each output channel).

What Clip bounds (ReLU6) stays as it is: its bound would have to differ by channel, for which there is no kernel in
eight bits. Folding the bound into the channel's own range was tried: values beyond those of the samples are cut, and
the error of EfficientNet-Lite0's features on `recycling` rose from 6.5 % to between 6.7 and 9.1 %.

A matrix product reads what a normalisation or a gate gives, and a residual sum reads it too. A multiplication of its
own divides the channels for the product alone (Xiao et al. 2023, "SmoothQuant"): transformers have a few channels that
are ten times as large as all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.graph.observe import Feeds, Reduction, observe

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_STRENGTH = 0.5
"""Power of a channel's size by which it is divided: half evens out maps as much as the weights that read them."""

_LEAST = 1 / 256
"""Channels that are smaller than this share of the largest one are scaled as if they were so large."""

_OF_PRODUCTS = "edgetl/equal/"
"""What the names of the multiplications before matrix products begin with."""

_UNARY = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool")


@dataclass
class Group:
    """Maps whose channels can only be scaled together.

    Attributes:
        maps: names of the tensors, `[N, C, …]`.
        writers: convolutions that write one of them.
        readers: convolutions that read one of them.
    """

    maps: list[str] = field(default_factory=list)
    writers: list[onnx.NodeProto] = field(default_factory=list)
    readers: list[onnx.NodeProto] = field(default_factory=list)


def groups(graph: onnx.GraphProto) -> list[Group]:
    """Return the groups that convolutions alone write and read, so that their weights can take the scales."""
    from edgetl.graph.build import node_inputs

    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            name = parents[name]
        return name

    fixed = {value.name for value in (*graph.input, *graph.output)}
    convolutions = [node for node in graph.node if _is_scalable(node, weights)]
    # weights, or a bias, that two of them share cannot take two scales
    uses = Counter(name for node in graph.node for name in node_inputs(node) if name in weights)
    convolutions = [node for node in convolutions if all(uses[name] == 1 for name in node.input[1:] if name)]
    own = {node.name for node in convolutions}
    for node in graph.node:
        maps = [name for name in (*node.input, *node.output) if name and name not in weights]
        added = node.op_type == "Add" and not any(name in weights for name in node.input)
        if node.name in own:
            continue
        if node.op_type in _UNARY or added:
            for name in maps[1:]:
                parents[root(name)] = root(maps[0])
        else:
            fixed.update(maps)
            fixed.update(node_inputs(node))  # and what the graphs within it read
    found: dict[str, Group] = {}
    for node in convolutions:
        for name, role in ((node.output[0], "writers"), (node.input[0], "readers")):
            getattr(found.setdefault(root(name), Group()), role).append(node)
    for name in list(parents):
        if root(name) in found:
            found[root(name)].maps.append(name)
    closed = {root(name) for name in fixed}
    return [group for name, group in found.items() if name not in closed and group.writers and group.readers]


def products(model: onnx.ModelProto, keep: Collection[str] = ()) -> dict[str, tuple[int, list[onnx.NodeProto]]]:
    """Return what matrix products with weights of their own read: its rank, and the products, by its name."""
    import onnx

    from edgetl.graph.build import node_inputs

    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*inferred.value_info, *inferred.input)}
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    uses = Counter(name for node in model.graph.node for name in node_inputs(node) if name in matrices)
    found: dict[str, tuple[int, list[onnx.NodeProto]]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and uses[node.input[1]] == 1 and node.name not in keep:
            rank = len(shapes.get(node.input[0], ()))
            if rank > 1:
                found.setdefault(node.input[0], (rank, []))[1].append(node)
    return found


def equalize(model: onnx.ModelProto, feeds: Iterable[Feeds], keep: Collection[str] = ()) -> onnx.ModelProto:
    """Return the same function with channels of more equal size; of a network where none can be scaled a copy.

    Args:
        feeds: inputs of samples, whose maps show how large channels are; a few are enough.
        keep: names of matrix products that stay in float32 and need no scales.
    """
    import onnx
    from onnx import numpy_helper

    equal = onnx.ModelProto()
    equal.CopyFrom(model)
    found, read = groups(equal.graph), products(equal, keep)
    if not found and not read:
        return equal
    # what a Relu cuts off does not count
    ends = {id(group): _after_relu(equal.graph, group) for group in found}
    tensors = {tensor.name: tensor for tensor in equal.graph.initializer}
    reductions = [
        Reduction(name, operator, rank=len(tensors[group.writers[0].input[1]].dims))
        for group in found
        for name in ends[id(group)]
        for operator in ("ReduceMin", "ReduceMax")
    ]
    reductions += [
        Reduction(name, operator, rank, channels=-1)
        for name, (rank, _) in read.items()
        for operator in ("ReduceMin", "ReduceMax")
    ]
    sizes: dict[str, NDArray[np.float32]] = {}
    for reduced in observe(equal, reductions, feeds):
        for reduction, value in zip(reductions, reduced, strict=True):
            sizes[reduction.tensor] = np.maximum(sizes.get(reduction.tensor, 0), np.abs(value))
    values: dict[str, NDArray[Any]] = {}

    def scale(name: str, factors: NDArray[Any], axis: int) -> None:
        value = values.get(name, numpy_helper.to_array(tensors[name]))
        values[name] = value * factors.reshape([-1 if i == axis else 1 for i in range(value.ndim)])

    for group in found:
        each = [sizes[name] for name in ends[id(group)]]
        if len({len(size) for size in each}) > 1:  # one is repeated along the channels of another
            continue
        size = np.max(each, axis=0)
        if not size.max() > 0:
            continue
        factors = _factors(size)
        for node in group.writers:
            for name in filter(None, node.input[1:3]):
                scale(name, 1 / factors, 0)
        for node in group.readers:
            scale(node.input[1], factors, 1 if _groups(node) == 1 else 0)
    before: dict[str, onnx.NodeProto] = {}  # the multiplication, by the product that it has to stand before
    for name, (_, readers) in read.items():
        if not sizes[name].max() > 0:
            continue
        factors, scaled = _factors(sizes[name]), f"{_OF_PRODUCTS}{name}"
        equal.graph.initializer.append(numpy_helper.from_array(1 / factors, f"{scaled}/scale"))
        node = onnx.helper.make_node("Mul", [name, f"{scaled}/scale"], [scaled], name=scaled)
        before[readers[0].name] = node
        for reader in readers:
            scale(reader.input[1], factors, 0)
            reader.input[0] = scaled
    for name, value in values.items():
        tensors[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    for index, node in reversed(list(enumerate(equal.graph.node))):
        if node.name in before:
            equal.graph.node.insert(index, before[node.name])
    return equal


def _factors(size: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return by what channels of this size are divided, the largest by 1: `[C]`."""
    powers = np.where(size > 0, np.maximum(size / size.max(), _LEAST), 1) ** _STRENGTH
    return np.asarray(powers, np.float32)


def _groups(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _is_scalable(node: onnx.NodeProto, weights: Mapping[str, tuple[int, ...]]) -> bool:
    """A convolution with constant weights over all channels, or over one each with as many outputs."""
    if node.op_type != "Conv" or any(name and name not in weights for name in node.input[1:]):
        return False
    outputs, inputs = weights[node.input[1]][:2]
    return _groups(node) == 1 or (inputs == 1 and _groups(node) == outputs)


def _after_relu(graph: onnx.GraphProto, group: Group) -> list[str]:
    """The group's maps that something other than a Relu reads."""
    cut = {node.input[0] for node in graph.node if node.op_type == "Relu"}
    return [name for name in group.maps if name not in cut] or group.maps
