"""The portable engine: a training step in standard operators, run by any onnxruntime."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.artifacts import (
    BATCH_LOGITS,
    PORTABLE_EVAL_STEP,
    PORTABLE_PARAMETERS,
    PORTABLE_TRAIN_STEP,
    SAMPLE_WEIGHTS,
    TARGETS,
    Artifacts,
    GraphMemory,
    Manifest,
)
from edgetl.engines.base import Engine, check_batch, micro_batches, sums_to_number
from edgetl.engines.names import GRADIENT, LOSS, NEW, SUM
from edgetl.engines.spec import EngineSpec, ProcessMemory
from edgetl.errors import EngineError, one_sentence
from edgetl.events import OnEvent
from edgetl.files.npz import npz_bytes, read_npz
from edgetl.files.storage import UNREADABLE_NPZ
from edgetl.optimizers.registry import Optimizer
from edgetl.optimizers.rule import LEARNING_RATE, STEP
from edgetl.runtime import sessions
from edgetl.runtime.providers import PlacedSession, Provider, open_placed
from edgetl.runtime.sessions import import_onnxruntime

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PortableEngine:
    """See `edgetl.engines.base.Engine`.

    Parameters and optimizer state stay in the runtime, twice: a step reads one set and writes the other.
    With micro-batches they, and the sums of gradients, are written over.
    """

    name = "portable"

    def __init__(
        self,
        artifacts: Artifacts,
        state: bytes | None,
        *,
        threads: int,
        initial: Mapping[str, NDArray[np.float32]],
        optimizer: Optimizer,
        micro_batch: int | None,
        provider: Provider,
        on_event: OnEvent,
    ) -> None:
        self._manifest = artifacts.manifest
        self._ort = import_onnxruntime()
        self._micro_batch = micro_batch
        self._parameter_names = [spec.name for spec in self._manifest.trainable]
        self._suffixes = ("", *optimizer.rule.state)
        self._shapes = {s.name + suffix: s.shape for s in self._manifest.trainable for suffix in self._suffixes}
        open_step = partial(open_placed, threads=threads, training=True, on_event=on_event)
        self._update = None
        if micro_batch is None:
            step = _step_file(artifacts, optimizer)
        else:
            step, update = _accumulating_files(artifacts, optimizer)
            self._update = open_step(update, Provider(), what="the optimizer's update")
            self._sums = self._zeros({s.name + SUM: s.shape for s in self._manifest.trainable})
        self._train = open_step(step, replace(provider, allow_fallback=True), what="the training step")
        self._eval = open_step(_file(artifacts, PORTABLE_EVAL_STEP), Provider(), what="validation")
        self._step, arrays = self._initial(artifacts, initial) if state is None else self._restored(state)
        self._current = self._zeros(self._shapes)
        # a whole step still reads parameters, for the gradients before them, when it writes new ones;
        # the optimizer alone reads each element for the last time where it writes it
        self._other = self._zeros(self._shapes) if self._update is None else self._current
        for name, array in arrays.items():
            self._current[name].update_inplace(np.ascontiguousarray(array))

    @property
    def placement(self) -> dict[str, float]:
        """See `Engine.placement`."""
        return self._train.placement or {}

    def train_step(
        self,
        features: Sequence[NDArray[Any]],
        targets: NDArray[np.float32],
        weights: NDArray[np.float32],
        learning_rate: float,
    ) -> float:
        """See `Engine.train_step`."""
        check_batch(self._manifest, features, targets, weights)
        rates: dict[str, NDArray[Any]] = {
            LEARNING_RATE: np.array(learning_rate, np.float32),
            STEP: np.array(self._step + 1, np.int64),
        }
        into = {name + NEW: value for name, value in self._other.items()}
        if self._update is None:
            feeds = {**self._batch(features, targets, weights), **rates}
            loss = float(self._run(self._train, feeds, self._current, into, LOSS)[0])
        else:
            loss = self._accumulate(features, targets, weights)
            gradients = {name + GRADIENT: self._sums[name + SUM] for name in self._parameter_names}
            self._run(self._update, rates, {**self._current, **gradients}, into)
        self._step += 1
        self._current, self._other = self._other, self._current
        return loss

    def evaluate(
        self, features: Sequence[NDArray[Any]], targets: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32]]:
        """See `Engine.evaluate`."""
        check_batch(self._manifest, features, targets, weights)
        feeds = self._batch(features, targets, weights)
        loss, logits = self._run(self._eval, feeds, self._parameters(), {}, LOSS, BATCH_LOGITS)
        return float(loss), logits

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """See `Engine.parameters`."""
        return {name: self._array(name) for name in self._parameter_names}

    def is_finite(self) -> bool:
        """See `Engine.is_finite`."""
        return all(sums_to_number(self._current[name].numpy()) for name in self._parameter_names)

    def state(self) -> bytes:
        """An npz file of the parameters, the optimizer's state and the number of steps; no pickle."""
        arrays = ((name, self._array(name)) for name in self._shapes)
        return npz_bytes(itertools.chain([(STEP, np.array(self._step, np.int64))], arrays))

    def _accumulate(
        self, features: Sequence[NDArray[Any]], targets: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> float:
        """Leave the gradients of the whole batch in `self._sums`; return its loss."""
        for value in self._sums.values():
            value.update_inplace(np.zeros(value.shape(), np.float32))
        loss = 0.0
        for part in micro_batches(len(targets), self._micro_batch):
            feeds = self._batch([array[part] for array in features], targets[part], weights[part])
            into = {name + NEW: value for name, value in self._sums.items()}
            loss += float(self._run(self._train, feeds, {**self._parameters(), **self._sums}, into, LOSS)[0])
        return loss

    def _initial(
        self, artifacts: Artifacts, given: Mapping[str, NDArray[np.float32]]
    ) -> tuple[int, dict[str, NDArray[Any]]]:
        arrays = _read_npz(_file(artifacts, PORTABLE_PARAMETERS).read_bytes(), PORTABLE_PARAMETERS)
        state = {n: np.zeros(shape, np.float32) for n, shape in self._shapes.items() if n not in self._parameter_names}
        return 0, self._checked({**arrays, **given, **state}, PORTABLE_PARAMETERS)

    def _restored(self, state: bytes) -> tuple[int, dict[str, NDArray[Any]]]:
        arrays = _read_npz(state, "the state")
        step = arrays.pop(STEP, None)
        if step is None or step.shape != () or step.dtype != np.int64 or step < 0:
            raise EngineError("the state holds no number of steps: it is damaged, or from another engine")
        return int(step), self._checked(arrays, "the state")

    def _checked(self, arrays: Mapping[str, NDArray[Any]], what: str) -> dict[str, NDArray[Any]]:
        for name, shape in self._shapes.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype != np.float32:
                raise EngineError(f"{what} does not fit these artifacts: it holds no {name!r} of shape {list(shape)}")
        if len(arrays) != len(self._shapes):
            raise EngineError(f"{what} does not fit these artifacts: it holds more than their parameters")
        return dict(arrays)

    def _zeros(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        return {n: self._ort.OrtValue.ortvalue_from_numpy(np.zeros(s, np.float32), "cpu") for n, s in shapes.items()}

    def _parameters(self) -> dict[str, Any]:
        return {name: self._current[name] for name in self._parameter_names}

    def _array(self, name: str) -> NDArray[np.float32]:
        return np.array(self._current[name].numpy(), np.float32)

    def _batch(
        self, features: Sequence[NDArray[Any]], targets: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> dict[str, NDArray[Any]]:
        arrays = {spec.name: array for spec, array in zip(self._manifest.features, features, strict=True)}
        return {**arrays, TARGETS: targets, SAMPLE_WEIGHTS: weights}

    def _run(
        self,
        session: PlacedSession,
        feeds: Mapping[str, NDArray[Any]],
        values: Mapping[str, Any],
        into: Mapping[str, Any],
        *outputs: str,
    ) -> list[NDArray[Any]]:
        """Run on arrays and on values in the runtime, into such values; return the other outputs."""
        binding = session.io_binding()
        # the runtime reads the arrays where they lie: they must live until it has run
        arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in feeds.items()}
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name)
        for name, value in into.items():
            binding.bind_ortvalue_output(name, value)
        session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()[: len(outputs)]]


def _file(artifacts: Artifacts, name: str) -> Path:
    file = artifacts.file(name)
    if not file.is_file():
        raise EngineError(
            f"{artifacts.path} holds no {name}, so that only the engine 'ort-training' trains it: "
            "prepare it anew, or install onnxruntime-training"
        )
    return file


def _step_file(artifacts: Artifacts, optimizer: Optimizer) -> Path | bytes:
    """Return a whole step with this optimizer: the prepared file, or another made from it."""
    file = _file(artifacts, PORTABLE_TRAIN_STEP)
    if optimizer == artifacts.manifest.optimizer:
        return file
    import onnx

    from edgetl.engines.update import gradients_of, with_update

    trainable = artifacts.manifest.trainable
    with _changing(artifacts):
        gradients = gradients_of(onnx.load(file, load_external_data=False), trainable)
        return bytes(with_update(gradients, trainable, optimizer).SerializeToString())


def _accumulating_files(artifacts: Artifacts, optimizer: Optimizer) -> tuple[bytes, bytes]:
    """Return the two halves of a step: adding up gradients, and the optimizer."""
    import onnx

    from edgetl.engines.update import accumulating, update_step

    trainable = artifacts.manifest.trainable
    with _changing(artifacts):
        step = accumulating(onnx.load(_file(artifacts, PORTABLE_TRAIN_STEP), load_external_data=False), trainable)
        return step.SerializeToString(), update_step(trainable, optimizer).SerializeToString()


def _changing(artifacts: Artifacts) -> AbstractContextManager[None]:
    return one_sentence(EngineError, f"the training step of {artifacts.path} cannot be changed, prepare it anew")


def _read_npz(data: bytes, what: str) -> dict[str, NDArray[Any]]:
    try:
        return read_npz(io.BytesIO(data))
    except UNREADABLE_NPZ as error:
        raise EngineError(f"{what} is damaged ({error}): start anew, or copy it again") from None


@dataclass(frozen=True)
class Portable(EngineSpec):
    """See `EngineSpec`; it runs on any onnxruntime."""

    def why_missing(self) -> None:
        """See `EngineSpec.why_missing`: `import_onnxruntime` says so where there is none."""
        return

    def why_installed(self) -> str:
        """See `EngineSpec.why_installed`."""
        return f"{' and '.join(sessions.installed_distributions())} is installed, without onnxruntime-training"

    def lacks(self, optimizer: Optimizer) -> None:
        """See `EngineSpec.lacks`: every rule is written in operators that it runs."""
        return

    def step_memory(self, manifest: Manifest) -> GraphMemory | None:
        """See `EngineSpec.step_memory`."""
        return manifest.step_memory

    def open(
        self,
        artifacts: Artifacts,
        state: bytes | None,
        *,
        threads: int,
        initial: Mapping[str, NDArray[np.float32]],
        optimizer: Optimizer,
        micro_batch: int | None,
        provider: Provider,
        on_event: OnEvent,
    ) -> Engine:
        """See `EngineSpec.open`."""
        return PortableEngine(
            artifacts,
            state,
            threads=threads,
            initial=initial,
            optimizer=optimizer,
            micro_batch=micro_batch,
            provider=provider,
            on_event=on_event,
        )


PORTABLE = Portable(
    name=PortableEngine.name,
    features=ProcessMemory(92, 2.5, 2.9),
    training=ProcessMemory(139, 11.2, 1.26, 0.0, 8.4),
)
