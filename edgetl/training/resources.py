"""What a run computes with: engine, provider, cores and memory, as asked for, or as the device has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from edgetl import defaults
from edgetl.artifacts import Artifacts
from edgetl.device.planning import plan_for
from edgetl.device.profile import Device, load_device, this_device
from edgetl.engines.registry import resolve_engine, specs
from edgetl.errors import DeviceError, EngineError
from edgetl.events import Note, OnEvent
from edgetl.optimizers.registry import Optimizer
from edgetl.runtime import process, sessions
from edgetl.runtime.providers import PROVIDERS, Provider, resolve_provider
from edgetl.shared_settings import THIS
from edgetl.training.settings import FinetuneSettings


@dataclass(frozen=True)
class Resources:
    """What a run computes with: as it was asked for, or else as the device has it, or else by default.

    Attributes:
        device: None if none was named and no memory settings.
        memory_mb: what the process may take, 10^6 bytes; None for no limit.
        decoding_mb: what decoding samples may take of it; None for no limit.
    """

    engine: str
    provider: Provider
    threads: int
    batch_size: int
    cache_precision: str
    device: Device | None
    device_name: str
    memory_mb: float | None
    decoding_mb: float | None = None


def choose_resources(settings: FinetuneSettings, optimizer: Optimizer) -> Resources:
    """Settle what the settings leave to the device.

    Raises:
        DeviceError: there is no such device, or nothing trains on it.
        EngineError: the engine or provider is not installed.
    """
    on_event = settings.on_event
    name = settings.device or THIS
    device = load_device(name) if settings.device or settings.memory_mb else None
    if device is not None and not device.engines:
        raise DeviceError(f"no engine of edgetl runs on {name}: train elsewhere and deploy for it")
    engine, provider, options = settings.engine, settings.provider, settings.provider_options
    if device is not None and name != THIS:
        engine = _first_installed(device.engines, optimizer) if engine == "auto" else engine
        if provider is None:
            provider, options = _first_available(device, on_event)
    return Resources(
        engine=resolve_engine(engine, optimizer),
        provider=resolve_provider(provider, options, allow_fallback=settings.allow_fallback, on_event=on_event),
        threads=process.usable_threads(settings.threads or (device.threads if device else None), on_event),
        batch_size=settings.batch_size or (device.batch_size if device else defaults.BATCH_SIZE),
        cache_precision=settings.cache_precision or (device.cache_precision if device else "float32"),
        device=device,
        device_name=name,
        memory_mb=settings.memory_mb or (device.training_memory_mb if device else None),
    )


def _first_installed(engines: Sequence[str], optimizer: Optimizer) -> str:
    """Return the first engine that is installed and has the optimizer; the first of all, which says why, if none is."""
    for engine in engines:
        try:
            return resolve_engine(engine, optimizer)
        except EngineError:
            continue
    return engines[0]


def _first_available(device: Device, on_event: OnEvent) -> tuple[str, Mapping[str, str]]:
    available = sessions.import_onnxruntime().get_available_providers()
    for wanted in device.providers:
        if PROVIDERS.get(wanted.name) in available:
            if wanted is not device.providers[0]:
                lacking = device.providers[0]
                on_event(Note(f"this onnxruntime has no {lacking.name}, so {wanted.name} computes"))
            return wanted.name, wanted.options
    return "cpu", {}


def fit_memory(
    resources: Resources, prepared: Artifacts, micro_batch: int | None, decoding_mb: float, validated: int
) -> tuple[Resources, int | None]:
    """Keep a run within the memory it may take; return fewer threads where they must be, and the largest micro-batch.

    Where no device and no memory were named, a control group's limit is kept to, which would end the process without
    a word.

    Args:
        decoding_mb: what decoding one of the samples takes, 10^6 bytes.
        validated: how many samples validate.

    Raises:
        DeviceError: it does not fit; the message says what would.
    """
    unasked = resources.device is None
    if unasked:
        limit, manifest = process.memory_limit_mb(), prepared.manifest
        step = specs()[resources.engine].step_memory(manifest)
        if limit is None or step is None:
            return resources, None
        resources = replace(resources, device=this_device(), device_name="this control group", memory_mb=limit)
    assert resources.device is not None
    plan = partial(
        plan_for,
        prepared,
        replace(resources.device, engines=(resources.engine,), threads=resources.threads),
        name=resources.device_name,
        batch_size=resources.batch_size,
        decoding_mb=decoding_mb,
        validated=validated,
    )
    planned = plan(memory_mb=resources.memory_mb)
    if not planned.fits and unasked:
        # nobody asked for a reserve; what does not fit even without one would be killed
        planned = plan(memory_mb=resources.memory_mb, reserve=1.0)
    if not planned.fits:
        otherwise = "; or name another limit with --memory" if unasked else ""
        raise DeviceError("; ".join(planned.problems) + otherwise)
    if micro_batch is not None and micro_batch > planned.largest_micro_batch:
        raise DeviceError(
            f"--micro-batch {micro_batch} takes more than the {planned.budget_mb:.0f} MB of {resources.device_name}: "
            f"{planned.largest_micro_batch} fit"
        )
    return replace(resources, threads=planned.threads, decoding_mb=planned.decoding_mb), planned.largest_micro_batch
