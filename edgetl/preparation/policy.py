"""Which parameters train.

A new head always does. `last:K` adds the last K blocks of the network as its authors divide it,
which their names tell: `blocks.11`, `layer4.1`, `stages.3.blocks.2`, `encoder.layer.5` … A graph
whose names tell nothing is divided into its layers with weights.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

import onnx

from edgetl.errors import ModelError
from edgetl.graph.build import node_inputs
from edgetl.graph.index import GraphIndex
from edgetl.preparation.heads import Network
from edgetl.suggest import did_you_mean

POLICIES = ("head", "last:K", "all", "bias", "norm", "a glob over parameter names")

_WORDS = ("head", "last:1", "last:2", "last:3", "all", "bias", "norm", "auto")
_NORM_OPERATORS = {"BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization"}
_NORM_NAME = re.compile(
    r"(^|[._])((batch|layer|group|instance)_?)?(norm|bn|ln|gn)\w*\.(weight|bias|gamma|beta|scale)$", re.I
)
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# a step of a name that counts: 3, layer4, denseblock2, encoder_layer_11, stage3 …
_INDEXED = re.compile(r"^([a-z_]*(block|layer|stage|cell|unit|mixed|level)[a-z_]*)?\d+[a-z]?$", re.I)
_NESTED = re.compile(r"^(blocks|layers|units|cells)$", re.I)
_CONTAINER = re.compile(r"^(blocks?|layers?|stages?|units?|cells?|features)$", re.I)


def trainable_parameters(network: Network, policies: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the parameters that the policies, united, train, in the network's order.

    Raises:
        ModelError: a policy is not known, matches nothing, or asks for more blocks than there are.
    """
    chosen = set(network.head)
    for policy in policies:
        chosen |= _select(network, policy)
    return tuple(name for name in network.parameters if name in chosen)


def blocks(network: Network) -> list[list[str]]:
    """Return the network's blocks, first to last, each as the names of its parameters, the head's left out."""
    position = _positions(network.model.graph)
    body = [name for name in network.parameters if name not in network.head and name in position]
    named: dict[str, list[str]] = {}
    for name in body:
        if (key := _block_of(name)) is not None:
            named.setdefault(key, []).append(name)
    if len(named) < 2:
        named = _layers(network.model.graph, body, position)
    return sorted(named.values(), key=lambda names: min(position[name] for name in names))


def _select(network: Network, policy: str) -> set[str]:
    if policy == "head":
        return set(network.head)
    if policy == "all":
        return set(network.parameters)
    if policy == "bias":
        return _biases(network)
    if policy == "norm":
        found = _norms(network)
        if not found:
            raise ModelError("--train norm: the network has no normalisation layers with parameters")
        return found
    if match := re.fullmatch(r"last:(\d+)", policy):
        return _last(network, int(match[1]))
    matched = set(fnmatch.filter(network.parameters, policy))
    if not matched:
        names = ", ".join(network.parameters[:3])
        hint = did_you_mean(policy, [*_WORDS, *network.parameters])
        forms = f"is neither a policy ({', '.join(POLICIES[:-1])}) nor matches a parameter's name ({names}, …)"
        raise ModelError(f"--train {policy!r} {forms}{hint}")
    return matched


def _last(network: Network, count: int) -> set[str]:
    divided = blocks(network)
    if not 1 <= count <= len(divided):
        raise ModelError(f"--train last:{count}: the network has {len(divided)} blocks, so choose 1 to {len(divided)}")
    position = _positions(network.model.graph)
    chosen = {name for block in divided[-count:] for name in block}
    start = min(position[name] for name in chosen)
    in_blocks = {name for block in divided for name in block}
    # what belongs to no block but comes later (a last norm, a last convolution) trains with them
    loose = {n for n in network.parameters if n not in in_blocks and position.get(n, -1) >= start}
    return chosen | loose


def _block_of(name: str) -> str | None:
    """Return the prefix of a parameter's name that names its block; None if it belongs to none.

    The first step that counts, and further ones while they follow at once or inside of a container,
    but not the module that holds the parameter: `blocks.6.0.conv.weight` → `blocks.6.0`,
    `stages.3.blocks.2.mlp.fc1.weight` → `stages.3.blocks.2`, `features.18.0.weight` → `features.18`.
    """
    steps = name.split(".")[:-1]
    end = next((i for i, step in enumerate(steps) if _INDEXED.match(step)), None)
    if end is None:
        return None
    last = len(steps) - 1
    if end == last and end > 0 and steps[end].isdigit() and not _CONTAINER.match(steps[end - 1]):
        return None  # the convolution in `conv5.0`, say, is a part of no block
    while True:
        if end + 1 < last and _INDEXED.match(steps[end + 1]):
            end += 1
        elif end + 2 < last and _NESTED.match(steps[end + 1]) and _INDEXED.match(steps[end + 2]):
            end += 2
        else:
            return ".".join(steps[: end + 1])


def _layers(graph: onnx.GraphProto, body: list[str], position: dict[str, int]) -> dict[str, list[str]]:
    """Group parameters by the latest layer with weights at or before the place of their first use."""
    starts = sorted({position[name] for name in body if graph.node[position[name]].op_type in _LAYERS})
    groups: dict[str, list[str]] = {}
    for name in body:
        start = max((s for s in starts if s <= position[name]), default=-1)
        groups.setdefault(str(start), []).append(name)
    return groups


def _positions(graph: onnx.GraphProto) -> dict[str, int]:
    """Return for each initializer the index of the first node that uses it with other data.

    Operators that only prepare a parameter (Transpose, Reshape … of it alone) are looked through.
    """
    from_input = {value.name for value in graph.input}
    carries: dict[str, set[str]] = {tensor.name: {tensor.name} for tensor in graph.initializer}
    found: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        inputs = [name for name in node_inputs(node) if name]
        prepared = set().union(*(carries.get(name, set()) for name in inputs))
        if from_input.intersection(inputs):
            from_input.update(node.output)
            for name in prepared:
                found.setdefault(name, i)
        else:
            for output in node.output:
                carries[output] = prepared
    return found


def _biases(network: Network) -> set[str]:
    index = GraphIndex(network.model.graph)
    found = {name for name in network.parameters if name.split(".")[-1] in ("bias", "beta")}
    for node in network.model.graph.node:
        if node.op_type in _LAYERS | _NORM_OPERATORS and len(node.input) > 2:
            found.add(node.input[2])
        elif node.op_type == "Add":
            for value, other in (node.input, reversed(node.input)):
                maker = index.producer.get(value)
                if maker is not None and maker.op_type == "MatMul" and other in index.initializers:
                    found.add(other)
    return found & set(network.parameters)


def _norms(network: Network) -> set[str]:
    found = {name for name in network.parameters if _NORM_NAME.search(name)}
    for node in network.model.graph.node:
        if node.op_type in _NORM_OPERATORS:
            found.update(node.input[1:3])
    return found & set(network.parameters)
