"""Execution providers: which one was asked for, sessions on it, and what really ran where."""

from __future__ import annotations

import contextlib
import json
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.errors import EngineError, OutOfMemoryError, first_line
from edgetl.events import Note, OnEvent, ignore
from edgetl.files import storage
from edgetl.runtime.process import return_memory
from edgetl.runtime.sessions import (
    failed,
    import_onnxruntime,
    installed_distributions,
    session_options,
    session_source,
    utf8_path,
)
from edgetl.suggest import did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

CPU = "CPUExecutionProvider"

PROVIDERS = {
    "cpu": CPU,
    "acl": "ACLExecutionProvider",
    "armnn": "ArmNNExecutionProvider",
    "cann": "CANNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "dml": "DmlExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "rknpu": "RknpuExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "vitisai": "VitisAIExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Short names; ONNX Runtime's own are taken too."""


@dataclass(frozen=True)
class Provider:
    """An execution provider by ONNX Runtime's name, its options, and whether the CPU may take its place."""

    name: str = CPU
    options: tuple[tuple[str, str], ...] = ()
    allow_fallback: bool = False

    @property
    def is_cpu(self) -> bool:
        """Whether it is ONNX Runtime's own CPU provider."""
        return self.name == CPU


def resolve_provider(
    name: str | None,
    options: Mapping[str, str] | None = None,
    *,
    allow_fallback: bool = False,
    on_event: OnEvent = ignore,
) -> Provider:
    """Return the provider of that name, short or ONNX Runtime's; the CPU for None, or where it is missing and may be.

    Raises:
        EngineError: there is no such provider, or the installed onnxruntime lacks it.
    """
    name = name or "cpu"
    full = PROVIDERS.get(name.lower(), name)
    if full not in PROVIDERS.values():
        hint = did_you_mean(name, PROVIDERS) or f": choose one of {', '.join(PROVIDERS)}"
        raise EngineError(f"there is no provider {name!r}{hint}")
    available = import_onnxruntime().get_available_providers()
    if full not in available:
        problem = f"{' and '.join(installed_distributions())} has no {full}, only {', '.join(available)}"
        if not allow_fallback:
            raise EngineError(
                f"{problem}: install the onnxruntime package that has it, or give --allow-fallback to use the CPU"
            )
        on_event(Note(f"{problem}; the CPU is used"))
        return Provider()
    return Provider(full, tuple(sorted((options or {}).items())), allow_fallback)


class PlacedSession:
    """An inference session that looks, at its first run, where its nodes ran.

    Args:
        what: what the model is, for messages.
        arena: keep the memory of a run for the next; without it what a large input took is given back.

    Attributes:
        placement: each provider's share of the time of that run, in 0..1; None before it.

    Raises:
        EngineError: the provider refuses the model.
    """

    def __init__(
        self,
        model: Path | bytes,
        provider: Provider,
        *,
        threads: int,
        what: str,
        training: bool = False,
        arena: bool = True,
    ) -> None:
        ort = import_onnxruntime()
        self._what = what
        options = session_options(threads, training=training)
        options.enable_cpu_mem_arena = arena
        self.placement: dict[str, float] | None = None
        self._provider = provider
        self._lock = threading.Lock()
        if not provider.is_cpu:
            stack = contextlib.ExitStack()
            directory = stack.enter_context(storage.temporary_directory())
            weakref.finalize(self, stack.close)
            options.enable_profiling = True
            options.profile_file_prefix = str(directory / "profile")
        if not isinstance(model, bytes) and _is_ort_format(model):
            options.add_session_config_entry("session.load_model_format", "ORT")
            source: str | bytes = utf8_path(model)
        else:
            source = session_source(model)
        wanted: list[Any] = [CPU] if provider.is_cpu else [(provider.name, dict(provider.options)), CPU]
        try:
            self._session = ort.InferenceSession(source, options, providers=wanted, enable_fallback=0)
        except Exception as error:  # onnxruntime's exceptions have no common base
            refused = failed(what, error)
            if not isinstance(refused, OutOfMemoryError):
                refused = EngineError(f"{provider.name} refuses the model ({first_line(error)})")
            raise refused from None
        return_memory()  # opening took the weights several times
        if provider.name not in self._session.get_providers():
            raise EngineError(f"{provider.name} cannot be started here; onnxruntime put the CPU in its place")

    @property
    def metadata(self) -> dict[str, str]:
        """The model's own metadata."""
        found: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found

    @property
    def inputs(self) -> Sequence[Any]:
        """The model's inputs, each with `name`, `type` and `shape`."""
        found: Sequence[Any] = self._session.get_inputs()
        return found

    @property
    def outputs(self) -> Sequence[Any]:
        """The model's outputs, likewise."""
        found: Sequence[Any] = self._session.get_outputs()
        return found

    def run(
        self, outputs: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]], *, give_back: bool = False
    ) -> list[NDArray[Any]]:
        """Run as `InferenceSession.run` does.

        Args:
            give_back: the memory that the run took, to the system; the next one is slower.

        Raises:
            EngineError: the model cannot be run on these.
        """
        try:
            found: list[NDArray[Any]] = self._session.run(outputs, feeds, _giving_back() if give_back else None)
        except Exception as error:
            raise failed(self._what, error) from None
        self._look()
        return found

    def run_with_iobinding(self, binding: Any) -> None:
        """Run as `InferenceSession.run_with_iobinding` does.

        Raises:
            EngineError: the model cannot be run on these.
        """
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise failed(self._what, error) from None
        self._look()

    def io_binding(self) -> Any:
        """Return a new binding for `run_with_iobinding`."""
        return self._session.io_binding()

    def _look(self) -> None:
        if self.placement is not None:
            return
        with self._lock:
            if self._provider.is_cpu:
                self.placement = {CPU: 1.0}
            elif self.placement is None:
                self.placement = _shares(Path(self._session.end_profiling()))
        if self._provider.name not in self.placement and not self._provider.allow_fallback:
            raise EngineError(
                f"{self._provider.name} took no part of the model, so that the CPU ran all of it: "
                "give --allow-fallback if that will do"
            )


def open_placed(
    model: Path | bytes,
    provider: Provider,
    *,
    threads: int,
    what: str,
    training: bool = False,
    arena: bool = True,
    on_event: OnEvent = ignore,
) -> PlacedSession:
    """Open a session on the provider, or on the CPU where it refuses and may.

    Raises:
        EngineError: the provider refuses, and the CPU must not take its place.
    """
    try:
        return PlacedSession(model, provider, threads=threads, what=what, training=training, arena=arena)
    except OutOfMemoryError:
        raise
    except EngineError as error:
        if provider.is_cpu or not provider.allow_fallback:
            hint = "" if provider.is_cpu else "; give --allow-fallback to use the CPU"
            named = "" if str(error).startswith(what) else f"{what}: "
            raise EngineError(f"{named}{error}{hint}") from None
        on_event(Note(f"{what} runs on the CPU: {error}"))
        return PlacedSession(model, Provider(), threads=threads, what=what, training=training, arena=arena)


def _giving_back() -> Any:
    options = import_onnxruntime().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _shares(profile: Path) -> dict[str, float]:
    """Read where the nodes of a profile ran, each provider's share of their time."""
    times: dict[str, float] = {}
    for event in json.loads(profile.read_text(encoding="utf-8")):
        provider = event.get("args", {}).get("provider") if event.get("cat") == "Node" else None
        if provider:
            # a node that takes less than the clock's microsecond counts, too
            times[provider] = times.get(provider, 0.0) + max(event.get("dur", 0), 0.5)
    total = sum(times.values())
    return {name: spent / total for name, spent in sorted(times.items(), key=lambda item: -item[1])}


def _is_ort_format(file: Path) -> bool:
    """Whether a file is one of ONNX Runtime Mobile, whatever its name: a flatbuffer with the identifier ORTM."""
    try:
        with file.open("rb") as content:
            return content.read(8)[4:] == b"ORTM"
    except OSError:
        return False
