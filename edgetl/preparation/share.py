"""Which share of a network trains: as asked for, or the largest that fits a device (`--train auto`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgetl.artifacts import ORT_TRAINING_MODEL, PORTABLE_TRAIN_STEP, GraphMemory, ShareSize
from edgetl.device.planning import RESERVE, memory_of
from edgetl.device.profile import Device
from edgetl.engines.base import FEWEST_AT_ONCE
from edgetl.errors import DeviceError, ModelError
from edgetl.events import Note, OnEvent, ignore
from edgetl.files import storage
from edgetl.gradients import ort_artifacts
from edgetl.gradients.decompose.decompose import obstacles
from edgetl.gradients.lower.lower import missing, write_portable
from edgetl.graph.build import node_inputs
from edgetl.graph.memory import graph_memory, nbytes
from edgetl.graph.values import observe
from edgetl.optimizers.registry import Optimizer
from edgetl.preparation import policy, split
from edgetl.preparation.heads import Network
from edgetl.preparation.split import Parts


@dataclass(frozen=True)
class Share:
    """A network cut for a policy.

    Attributes:
        policy: as the manifest records it.
        trainable: names of the parameters that train.
    """

    policy: tuple[str, ...]
    trainable: tuple[str, ...]
    parts: Parts


def cut(network: Network, train: Sequence[str], *, length: int) -> Share:
    """Cut the network for the policies, united.

    Raises:
        ModelError: a policy is unknown, or operators behind the boundary cannot be trained through.
    """
    trainable = policy.trainable_parameters(network, train)
    parts = split.split(network, trainable, length=length)
    if found := obstacles(parts.trainable, trainable):
        listed = "; ".join(f"{item.op_type} {item.node!r} ({item.reason})" for item in found)
        raise ModelError(
            f"this share of the network cannot be trained because of {listed}. What can: "
            f"{', '.join(_possible(network))}"
        )
    return Share(tuple(train), trainable, parts)


def largest(network: Network, loss: str, device: Device, name: str, *, length: int, on_event: OnEvent) -> Share:
    """Cut the network for the largest of head, last:1, last:2 … all whose training fits the device.

    It fits if `FEWEST_AT_ONCE` samples can be computed at once in the device's memory for training, with the
    reserve that `plan` keeps.

    Raises:
        DeviceError: not even the head does.
    """
    policies = ["head", *(f"last:{count}" for count in range(1, len(policy.blocks(network)) + 1)), "all"]
    found: dict[str, Share] = {}
    needs: dict[str, float] = {}

    def fits(candidate: str) -> bool:
        try:
            share = cut(network, [candidate], length=length)
            needs[candidate] = _needed(share, loss, device, length)
        except (ModelError, DeviceError):
            return False  # not trainable, or by no engine of the device
        found[candidate] = share
        on_event(Note(f"--train {candidate} takes {needs[candidate]:.0f} MB of {device.training_memory_mb:.0f}"))
        return RESERVE * needs[candidate] <= device.training_memory_mb

    best = _last(policies, fits)
    if best is None:
        took = f"takes {needs['head']:.0f} MB" if "head" in needs else "cannot be trained"
        raise DeviceError(
            f"not even the head of this network fits {name}: it {took}, and {device.training_memory_mb:.0f} MB are "
            "there for training"
        )
    on_event(Note(f"--train auto: {best} is the largest share that fits {device.title}"))
    return found[best]


def _last(candidates: Sequence[str], fits: Callable[[str], bool]) -> str | None:
    """Return the last that fits, if those that do come first; found by halving."""
    low, high = -1, len(candidates)  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(candidates[middle]) else (low, middle)
    return candidates[low] if low >= 0 else None


def _needed(share: Share, loss: str, device: Device, length: int) -> float:
    """Return the memory that training the share takes on a device, 10^6 bytes.

    Raises:
        DeviceError: no engine of the device trains it.
    """
    with storage.temporary_directory(for_libraries=True) as directory:
        ort_artifacts.generate(share.parts.trainable, share.trainable, loss, Optimizer(), directory)
        steps = add_portable(share.parts, loss, Optimizer(), directory)
    engine = next((engine for engine in device.engines if engine in steps), None)
    if engine is None:
        raise DeviceError("no engine of the device trains this share")
    frozen = None if share.parts.backbone is None else graph_memory(share.parts.backbone, length=length)
    return memory_of(engine, steps[engine], frozen, _trainable_mb(share.parts), 1, FEWEST_AT_ONCE).peak_mb


def _trainable_mb(parts: Parts) -> float:
    return sum(spec.nbytes for spec in parts.parameters) / 1e6


def sizes(network: Network, chosen: Share) -> tuple[ShareSize, ...]:
    """Return the size of each smaller share of head, last:1, last:2 …, and at the end of the one that was cut."""
    graph = chosen.parts.trainable.graph
    values = observe(chosen.parts.trainable)
    initializers = {tensor.name: tensor for tensor in graph.initializer}

    def size(name: str, trainable: Sequence[str]) -> ShareSize:
        behind = set(trainable)
        nodes = [node for node in graph.node if _reaches(node, behind)]
        made = [values[output] for node in nodes for output in node.output if output]
        return ShareSize(
            policy=name,
            trainable_mb=4e-6 * sum(math.prod(initializers[parameter].dims) for parameter in trainable),
            values_mb=sum(nbytes(value, 2) - nbytes(value, 1) for value in made) / 1e6,
            nodes=len(nodes),
        )

    smaller = []
    for name in ("head", *(f"last:{count}" for count in range(1, len(policy.blocks(network)) + 1))):
        trainable = policy.trainable_parameters(network, [name])
        if not set(trainable) < set(chosen.trainable):
            break
        smaller.append(size(name, trainable))
    return (*smaller, size(",".join(chosen.policy), chosen.trainable))


def _reaches(node: onnx.NodeProto, behind: set[str]) -> bool:
    """Tell whether a node reads one of the names, and add its outputs to them."""
    if behind.isdisjoint(node_inputs(node)):
        return False
    behind.update(node.output)
    return True


def add_portable(
    parts: Parts, loss: str, optimizer: Optimizer, directory: Path, on_event: OnEvent = ignore
) -> dict[str, GraphMemory]:
    """Write what the portable engine needs beside the other engine's files, if every operator can be lowered.

    Returns:
        The engines that can train, and what a step takes.
    """
    training = onnx.load(directory / ORT_TRAINING_MODEL)
    steps = {"ort-training": graph_memory(training)}
    if lacking := missing(training):
        on_event(Note(f"only onnxruntime-training can train this, for want of rules for: {', '.join(lacking)}"))
        return steps
    write_portable(directory, training, parts.trainable, parts.parameters, loss, optimizer)
    return {**steps, "portable": graph_memory(onnx.load(directory / PORTABLE_TRAIN_STEP))}


def _possible(network: Network) -> list[str]:
    """Return the policies that can be trained."""
    found = ["head"]
    for name in ("norm", "bias", *(f"last:{count}" for count in range(1, len(policy.blocks(network)) + 1))):
        try:
            trainable = policy.trainable_parameters(network, [name])
            if obstacles(split.split(network, trainable).trainable, trainable):
                raise ModelError(name)
        except ModelError:
            if name.startswith("last"):
                break
            continue
        found.append(name)
    return found
