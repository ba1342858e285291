"""The portable engine: a training step in standard operators, run by any onnxruntime."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.artifacts import BATCH_LOGITS, PORTABLE_EVAL_STEP, PORTABLE_PARAMETERS, PORTABLE_TRAIN_STEP, Artifacts
from edgetl.engines.base import check_batch
from edgetl.errors import EngineError
from edgetl.runtime import import_onnxruntime

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST_MOMENT = "/first_moment"
SECOND_MOMENT = "/second_moment"
NEW = "/new"
_STEP = "step"


@dataclass
class _Side:
    """One of two sets of tensors in the runtime, and the step that reads it and writes the other."""

    values: dict[str, Any]
    step: Any


class PortableEngine:
    """See `edgetl.engines.base.Engine`.

    Parameters and moments stay in the runtime, twice: a step reads one set and writes the other.
    """

    name = "portable"
    provider = "CPUExecutionProvider"

    def __init__(self, artifacts: Artifacts, state: bytes | None, *, threads: int) -> None:
        self._manifest = artifacts.manifest
        self._ort = import_onnxruntime()
        self._train = self._open(artifacts, PORTABLE_TRAIN_STEP, threads)
        self._eval = self._open(artifacts, PORTABLE_EVAL_STEP, threads)
        self._names = [
            spec.name + suffix for spec in self._manifest.trainable for suffix in ("", FIRST_MOMENT, SECOND_MOMENT)
        ]
        self._step, arrays = self._initial(artifacts) if state is None else self._restored(state)
        self._current, self._other = self._sides(arrays)

    def train_step(self, features: Sequence[NDArray[Any]], targets: NDArray[np.int64], learning_rate: float) -> float:
        """One AdamW step; see `Engine.train_step`."""
        check_batch(self._manifest, features, targets)
        binding = self._current.step
        rates: dict[str, NDArray[Any]] = {
            "learning_rate": np.array(learning_rate, np.float32),
            _STEP: np.array(self._step + 1, np.int64),
        }
        self._run(self._train, binding, {**self._batch(features, targets), **rates})
        self._step += 1
        self._current, self._other = self._other, self._current
        return float(binding.get_outputs()[0].numpy())

    def evaluate(
        self, features: Sequence[NDArray[Any]], targets: NDArray[np.int64]
    ) -> tuple[float, NDArray[np.float32]]:
        """See `Engine.evaluate`."""
        check_batch(self._manifest, features, targets)
        binding = self._eval.io_binding()
        for spec in self._manifest.trainable:
            binding.bind_ortvalue_input(spec.name, self._current.values[spec.name])
        binding.bind_output("loss")
        binding.bind_output(BATCH_LOGITS)
        self._run(self._eval, binding, self._batch(features, targets))
        loss, logits = binding.copy_outputs_to_cpu()
        return float(loss), logits

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """See `Engine.parameters`."""
        return {spec.name: self._array(spec.name) for spec in self._manifest.trainable}

    def state(self) -> bytes:
        """An npz file of the parameters, their moments and the number of steps; no pickle."""
        arrays: dict[str, NDArray[Any]] = {name: self._array(name) for name in self._names}
        return npz_bytes({_STEP: np.array(self._step, np.int64), **arrays})

    def _open(self, artifacts: Artifacts, name: str, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.use_deterministic_compute = True
        # a plan of all buffers in one piece, made anew for each size of batch, takes a third to a half more memory
        options.enable_mem_pattern = False
        file = artifacts.file(name)
        if not file.is_file():
            raise EngineError(
                f"{artifacts.path} holds no {name}, so that only the engine 'ort-training' trains it: "
                "prepare it anew, or install onnxruntime-training"
            )
        try:
            return self._ort.InferenceSession(file.read_bytes(), options, providers=[self.provider])
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise EngineError(f"onnxruntime cannot open {file}: {error}") from None

    def _initial(self, artifacts: Artifacts) -> tuple[int, dict[str, NDArray[Any]]]:
        arrays = _read_npz(artifacts.file(PORTABLE_PARAMETERS).read_bytes(), PORTABLE_PARAMETERS)
        zeros = {
            spec.name + suffix: np.zeros(spec.shape, np.float32)
            for spec in self._manifest.trainable
            for suffix in (FIRST_MOMENT, SECOND_MOMENT)
        }
        return 0, self._checked({**arrays, **zeros}, PORTABLE_PARAMETERS)

    def _restored(self, state: bytes) -> tuple[int, dict[str, NDArray[Any]]]:
        arrays = _read_npz(state, "the state")
        step = arrays.pop(_STEP, None)
        if step is None or step.shape != () or step.dtype != np.int64 or step < 0:
            raise EngineError("the state holds no number of steps: it is damaged, or from another engine")
        return int(step), self._checked(arrays, "the state")

    def _checked(self, arrays: Mapping[str, NDArray[Any]], what: str) -> dict[str, NDArray[Any]]:
        for spec in self._manifest.trainable:
            for name in (spec.name, spec.name + FIRST_MOMENT, spec.name + SECOND_MOMENT):
                array = arrays.get(name)
                if array is None or array.shape != spec.shape or array.dtype != np.float32:
                    raise EngineError(
                        f"{what} does not fit these artifacts: it holds no {name!r} of shape {list(spec.shape)}"
                    )
        if len(arrays) != len(self._names):
            raise EngineError(f"{what} does not fit these artifacts: it holds more than their parameters")
        return dict(arrays)

    def _sides(self, arrays: Mapping[str, NDArray[Any]]) -> tuple[_Side, _Side]:
        """Put the values into the runtime and bind a step in each direction."""
        one, two = ({name: self._empty(arrays[name].shape) for name in self._names} for _ in range(2))
        for name in self._names:
            one[name].update_inplace(np.ascontiguousarray(arrays[name]))
        return self._side(one, two), self._side(two, one)

    def _side(self, values: dict[str, Any], after: Mapping[str, Any]) -> _Side:
        binding = self._train.io_binding()
        binding.bind_output("loss")
        for name in self._names:
            binding.bind_ortvalue_input(name, values[name])
            binding.bind_ortvalue_output(name + NEW, after[name])
        return _Side(values, binding)

    def _empty(self, shape: tuple[int, ...]) -> Any:
        return self._ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.float32, "cpu", 0)

    def _array(self, name: str) -> NDArray[np.float32]:
        return np.array(self._current.values[name].numpy(), np.float32)

    def _batch(self, features: Sequence[NDArray[Any]], targets: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        arrays = {spec.name: array for spec, array in zip(self._manifest.features, features, strict=True)}
        return {name: np.ascontiguousarray(array) for name, array in {**arrays, "labels": targets}.items()}

    def _run(self, session: Any, binding: Any, feeds: Mapping[str, NDArray[Any]]) -> None:
        # the runtime reads the arrays where they lie: they must live until it has run
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise EngineError(f"onnxruntime cannot run this step: {error}") from None


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return an npz file: the same arrays always give the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, array in arrays.items():
            # not numpy.savez, whose keyword arguments take names of their own; a fixed date, as it writes
            with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
    return content.getvalue()


def _read_npz(data: bytes, what: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise EngineError(f"{what} is damaged ({error}): start anew, or copy it again") from None
