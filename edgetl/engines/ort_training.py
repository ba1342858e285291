"""onnxruntime-training: ONNX Runtime's own Module and Optimizer over its own training artifacts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.artifacts import (
    ORT_CHECKPOINT,
    ORT_EVAL_MODEL,
    ORT_OPTIMIZER_MODEL,
    ORT_TRAINING_MODEL,
    Artifacts,
    GraphMemory,
    Manifest,
)
from edgetl.engines.base import Engine, check_batch, micro_batches, sums_to_number
from edgetl.engines.spec import EngineSpec, ProcessMemory
from edgetl.errors import EngineError, one_sentence
from edgetl.events import OnEvent
from edgetl.files import storage
from edgetl.optimizers.registry import Optimizer
from edgetl.runtime import sessions
from edgetl.runtime.providers import CPU, Provider
from edgetl.runtime.sessions import (
    failed,
    import_onnxruntime,
    session_options,
    session_source,
    without_training_package,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def import_training_api() -> Any:
    """Import `onnxruntime.training.api` without its parent package, whose import pulls in torch."""
    ort = import_onnxruntime()
    with without_training_package([str(Path(ort.__file__).parent / "training")]):
        import onnxruntime.training.api as api
    return api


class OrtTrainingEngine:
    """See `edgetl.engines.base.Engine`."""

    name = "ort-training"

    def __init__(
        self,
        artifacts: Artifacts,
        state: bytes | None,
        *,
        threads: int,
        initial: Mapping[str, NDArray[np.float32]],
        optimizer: Optimizer,
        micro_batch: int | None,
    ) -> None:
        self._manifest = artifacts.manifest
        self._trainable = [spec.name for spec in artifacts.manifest.trainable]
        self._settings = optimizer
        self._micro_batch = micro_batch
        self._api = import_training_api()
        options = session_options(threads)
        with one_sentence(EngineError, f"onnxruntime-training cannot open {artifacts.path}, prepare it anew"):
            self._checkpoint = self._load(artifacts, state)
            self._module = self._api.Module(
                session_source(artifacts.file(ORT_TRAINING_MODEL)),
                self._checkpoint,
                session_source(artifacts.file(ORT_EVAL_MODEL)),
                session_options=options,
            )
            # before there is a module, the parameters cannot be set: the process would die
            for name, value in initial.items():
                self._checkpoint.parameters[name] = np.ascontiguousarray(value)
            self._optimizer = self._open_optimizer(artifacts.file(ORT_OPTIMIZER_MODEL))
        if missing := set(self._trainable) - {name for name, _ in self._checkpoint.parameters}:
            raise EngineError(
                f"{artifacts.path} holds no parameter {min(missing)!r}, which should train: prepare it anew"
            )

    @property
    def placement(self) -> dict[str, float]:
        """See `Engine.placement`: onnxruntime-training's package has the CPU alone."""
        return {CPU: 1.0}

    def train_step(
        self,
        features: Sequence[NDArray[Any]],
        targets: NDArray[np.float32],
        weights: NDArray[np.float32],
        learning_rate: float,
    ) -> float:
        """See `Engine.train_step`."""
        check_batch(self._manifest, features, targets, weights)
        self._module.train()
        loss = 0.0
        for part in micro_batches(len(targets), self._micro_batch):
            # the module adds each part's gradients to those before
            loss += float(self._run([array[part] for array in features], targets[part], weights[part])[0])
        # set at every step: a checkpoint restores the moments, but resets the rate to 0.001
        rate = self._settings.rule.ort_rate(learning_rate, self._settings.hyperparameters)
        self._optimizer.set_learning_rate(rate)
        self._optimizer.step()
        self._module.lazy_reset_grad()
        return loss

    def evaluate(
        self, features: Sequence[NDArray[Any]], targets: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32]]:
        """See `Engine.evaluate`."""
        check_batch(self._manifest, features, targets, weights)
        self._module.eval()
        loss, logits = self._run(features, targets, weights)
        return float(loss), logits

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """See `Engine.parameters`."""
        return {name: self._checkpoint.parameters[name].data.copy() for name in self._trainable}

    def is_finite(self) -> bool:
        """See `Engine.is_finite`."""
        return all(sums_to_number(self._checkpoint.parameters[name].data) for name in self._trainable)

    def state(self) -> bytes:
        """The bytes of an ONNX Runtime checkpoint with its optimizer state."""
        with storage.temporary_directory() as directory:
            file = directory / "checkpoint"
            try:
                self._api.CheckpointState.save_checkpoint(self._checkpoint, os.fspath(file), True)
            except RuntimeError as error:
                raise EngineError(
                    f"the optimizer's state cannot be written to {directory}: make space there ({error})"
                ) from None
            return file.read_bytes()

    def _run(self, features: Sequence[NDArray[Any]], targets: NDArray[np.float32], weights: NDArray[np.float32]) -> Any:
        try:
            return self._module(*features, targets, weights)
        except RuntimeError as error:
            raise failed("the training step", error) from None

    def _open_optimizer(self, file: Path) -> Any:
        if self._settings == self._manifest.optimizer:
            return self._api.Optimizer(session_source(file), self._module)
        import onnx

        from edgetl.engines.update import set_ort_optimizer

        model = onnx.load(file, load_external_data=False)
        set_ort_optimizer(model, self._settings)
        with storage.temporary_directory() as directory:
            changed = directory / file.name
            changed.write_bytes(model.SerializeToString())
            return self._api.Optimizer(os.fspath(changed), self._module)

    def _load(self, artifacts: Artifacts, state: bytes | None) -> Any:
        load = self._api.CheckpointState.load_checkpoint
        if state is None:
            return load(os.fspath(artifacts.file(ORT_CHECKPOINT)))
        with storage.temporary_directory() as directory:
            file = directory / "checkpoint"
            file.write_bytes(state)
            return load(os.fspath(file))


@dataclass(frozen=True)
class OrtTraining(EngineSpec):
    """See `EngineSpec`; it has the CPU alone."""

    def why_missing(self) -> str | None:
        """See `EngineSpec.why_missing`."""
        found = sessions.installed_distributions()
        if any(name.startswith("onnxruntime-training") for name in found):
            return None
        return (
            f"onnxruntime-training is not installed ({', '.join(found)} is): use --engine portable, "
            "or, in a fresh environment, pip install 'edgetl[ort-training]'"
        )

    def why_installed(self) -> str:
        """See `EngineSpec.why_installed`."""
        return "onnxruntime-training is installed"

    def lacks(self, optimizer: Optimizer) -> str | None:
        """See `EngineSpec.lacks`."""
        if optimizer.rule.ort_attributes(optimizer.hyperparameters, optimizer.weight_decay) is not None:
            return None
        return f"onnxruntime-training has no optimizer {optimizer.name}: use --engine portable"

    def step_memory(self, manifest: Manifest) -> GraphMemory | None:
        """See `EngineSpec.step_memory`."""
        return manifest.ort_step_memory

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
        return OrtTrainingEngine(
            artifacts, state, threads=threads, initial=initial, optimizer=optimizer, micro_batch=micro_batch
        )


ORT_TRAINING = OrtTraining(
    name=OrtTrainingEngine.name,
    features=ProcessMemory(106, 1.8, 1.7),
    training=ProcessMemory(132, 9.6, 1.36, 1.8, 13.4),
)
