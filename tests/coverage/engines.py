"""Both engines on one cell: their gradients, and the course of a training."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import edgetl
from edgetl import defaults
from edgetl.artifacts import (
    ORT_TRAINING_MODEL,
    PORTABLE_TRAIN_STEP,
    SAMPLE_WEIGHTS,
    SCHEMA_VERSION,
    TARGETS,
    Artifacts,
    Manifest,
    Preprocessing,
    Source,
)
from edgetl.engines.names import GRADIENT
from edgetl.engines.registry import open_engine
from edgetl.engines.update import gradients_of
from edgetl.files.npz import npz_bytes
from edgetl.gradients.lower.lower import write_portable
from edgetl.optimizers.registry import Optimizer
from edgetl.preparation.split import Parts
from edgetl.runtime.providers import Provider, open_placed

Arrays = dict[str, np.ndarray]
Batch = tuple[list[np.ndarray], np.ndarray, np.ndarray]
"""Features, targets and weights; see `edgetl.engines.base.Engine`."""

THREADS = 2


def prepared(parts: Parts, image: Preprocessing, classes: int, optimizer: Optimizer, directory: Path) -> Artifacts:
    """Add the portable engine's files to a directory that holds onnxruntime-training's, and describe both.

    Raises:
        ModelError: operators have no lowering rule.
    """
    training = onnx.load(directory / ORT_TRAINING_MODEL)
    write_portable(directory, training, parts.trainable, parts.parameters, "cross_entropy", optimizer)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        edgetl_version=edgetl.__version__,
        source=Source("coverage"),
        task="classification",
        labels=(),
        outputs=classes,
        preprocessing=image,
        modality="image",
        inputs=parts.inputs,
        features=parts.features,
        policy=(),
        trainable=parts.parameters,
        frozen=parts.frozen,
        backbone_macs=0,
        trainable_macs=0,
        loss="cross_entropy",
        optimizer=optimizer,
        engines=("ort-training", "portable"),
        opset=defaults.OPSET,
        ir_version=defaults.IR_VERSION,
        files={},
    )
    return Artifacts(directory, manifest, "")


def gradients(artifacts: Artifacts, batch: Batch, parameters: Mapping[str, np.ndarray]) -> Arrays:
    """The portable engine's gradients by the parameters' names, in a session like the one it opens."""
    manifest = artifacts.manifest
    model = gradients_of(onnx.load(artifacts.file(PORTABLE_TRAIN_STEP)), manifest.trainable)
    session = open_placed(model.SerializeToString(), Provider(), threads=THREADS, training=True, what="the gradients")
    features, targets, weights = batch
    named = {spec.name: feature for spec, feature in zip(manifest.features, features, strict=True)}
    values = {**named, TARGETS: targets, SAMPLE_WEIGHTS: weights, **parameters}
    binding = session.io_binding()
    for value in model.graph.input:
        binding.bind_cpu_input(value.name, values[value.name])
    for spec in manifest.trainable:
        binding.bind_output(spec.name + GRADIENT)
    session.run_with_iobinding(binding)
    found = (value.numpy() for value in binding.get_outputs())
    return {spec.name: gradient for spec, gradient in zip(manifest.trainable, found, strict=True)}


def length(arrays: Mapping[str, np.ndarray]) -> float:
    """The Euclidean norm of all arrays together."""
    return math.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in arrays.values()))


def difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The relative difference of all arrays together."""
    return length({name: found[name].astype(np.float64) - expected[name] for name in expected}) / length(expected)


@dataclass(frozen=True)
class Course:
    """What a training gave: each step's loss, and afterwards the loss of `known` and the logits of `other` pictures."""

    losses: np.ndarray
    last_loss: float
    logits: np.ndarray


def train(
    name: str,
    artifacts: Artifacts,
    batches: Sequence[Batch],
    known_and_other: tuple[Batch, Batch],
    rate: float,
    state: bytes | None = None,
) -> Course:
    engine = open_engine(name, artifacts, state, threads=THREADS)
    losses = [engine.train_step(*batch, rate) for batch in batches]
    known, other = known_and_other
    return Course(np.array(losses), engine.evaluate(*known)[0], engine.evaluate(*other)[1])


def nudged(artifacts: Artifacts, seed: int) -> bytes:
    """The portable engine's initial state with the last bit of every parameter changed, up or down."""
    engine = open_engine("portable", artifacts, threads=THREADS)
    rng = np.random.default_rng(seed)
    with np.load(io.BytesIO(engine.state()), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for name in engine.parameters():
        towards = rng.choice(np.array([-np.inf, np.inf], np.float32), arrays[name].shape)
        arrays[name] = np.nextafter(arrays[name], towards)
    return npz_bytes(arrays.items())
