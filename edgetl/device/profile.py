"""Device profiles: what a board or machine has, and how much of it a training may take. Data in `devices/*.toml`."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl import defaults
from edgetl.errors import DeviceError
from edgetl.files import schema
from edgetl.runtime import process
from edgetl.runtime.machine import memory_mb, this_machine
from edgetl.shared_settings import CACHE_PRECISIONS, ENGINES, PRECISIONS, THIS
from edgetl.suggest import did_you_mean, similar_path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class ProfileProvider:
    """An execution provider that runs there, by edgetl's short name, and the distribution that brings it, or ""."""

    name: str
    options: dict[str, str]
    package: str


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        architecture: as `uname -m` says it.
        cores: how many it has; `threads` of them compute.
        memory_mb: as the system shows it, 10^6 bytes; a training may take `training_memory_mb` of it.
        storage_mb: what prepared directories, features and runs may take, 10^6 bytes.
        python: versions that its systems bring; empty if none does.
        engines: those that train there, the preferred first; empty if none does.
        batch_size, cache_precision: what `finetune` takes there unless told otherwise.
        deploy_precision: what `deploy` should take.
        providers: the preferred first, and the CPU last.
        sources: where each figure is from.
    """

    title: str
    architecture: str
    cores: int
    threads: int
    memory_mb: float
    training_memory_mb: float
    storage_mb: float
    python: tuple[str, ...]
    engines: tuple[str, ...]
    batch_size: int
    cache_precision: str
    deploy_precision: str
    providers: tuple[ProfileProvider, ...]
    sources: dict[str, str]


def device_names() -> tuple[str, ...]:
    """Return the names of the profiles that come with edgetl, and `this`."""
    return (*sorted(file.stem for file in _shipped().glob("*.toml")), THIS)


def load_device(name: str) -> Device:
    """Return a profile by its name, or from a file, or of this machine.

    Raises:
        DeviceError: there is no such profile, or it is wrong; the message names the field.
    """
    if name == THIS:
        return this_device()
    file = Path(name) if name.endswith(".toml") or "/" in name else _shipped() / f"{name}.toml"
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        known = device_names()
        hint = similar_path(Path(name)) if Path(name) == file else did_you_mean(name, known)
        choose = f"choose one of {', '.join(known)}, or give a file such as ./mine.toml"
        raise DeviceError(f"there is no device {name!r}{hint or ':'} {choose}") from None
    except OSError as error:
        raise DeviceError(f"{file} cannot be read: {error.strerror}") from None
    return _parsed(file, content)


def this_device() -> Device:
    """Measure this machine: training may take four fifths of what memory is free."""
    machine = this_machine()
    memory = memory_mb() or 0.0
    free = process.available_memory_mb() or memory
    engine = _installed_engine()
    return Device(
        title=machine.processor,
        architecture=machine.architecture,
        cores=machine.cores,
        threads=machine.cores,
        memory_mb=memory,
        training_memory_mb=0.8 * free,
        storage_mb=shutil.disk_usage(Path.cwd()).free / 1e6,
        python=(".".join(platform.python_version_tuple()[:2]),),
        engines=(engine,) if engine else (),
        batch_size=defaults.BATCH_SIZE,
        cache_precision="float32",
        deploy_precision="float32",
        providers=(ProfileProvider("cpu", {}, machine.onnxruntime.partition(" ")[0]),),
        sources={field.name: "measured" for field in dataclasses.fields(Device) if field.name != "sources"},
    )


def _installed_engine() -> str | None:
    from edgetl.engines.registry import resolve_engine
    from edgetl.errors import EngineError

    try:
        return resolve_engine("auto")
    except EngineError:
        return None


def _parsed(file: Path, content: bytes) -> Device:
    try:
        data: dict[str, Any] = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # a number of very many digits is no TOMLDecodeError
        raise DeviceError(f"{file} is not TOML ({error})") from None
    known = {field.name for field in dataclasses.fields(Device)}
    if unknown := sorted(set(data) - known):
        raise DeviceError(f"{file}: there is no field {unknown[0]!r}: the fields are {', '.join(sorted(known))}")
    try:
        device = schema.from_json(Device, data)
        problem = _problem(device)
    except (ValueError, OverflowError) as error:  # SchemaError, or a number too large to convert or print
        raise DeviceError(f"{file}: {error}") from None
    if problem:
        raise DeviceError(f"{file}: {problem}")
    return device


def _problem(device: Device) -> str | None:
    """Say what is wrong with the values of a profile, if anything."""
    positive = ("cores", "threads", "memory_mb", "training_memory_mb", "storage_mb", "batch_size")
    for name in positive:
        if not 0 < getattr(device, name) < 1e12:
            return f"{name} must be a positive number, not {getattr(device, name)}"
    if device.threads > device.cores:
        return f"threads ({device.threads}) are more than cores ({device.cores})"
    if device.training_memory_mb > device.memory_mb:
        return f"training_memory_mb ({device.training_memory_mb:g}) is more than memory_mb ({device.memory_mb:g})"
    allowed = (
        ("engines", device.engines, ENGINES[1:]),
        ("cache_precision", (device.cache_precision,), CACHE_PRECISIONS),
        ("deploy_precision", (device.deploy_precision,), PRECISIONS),
    )
    for name, values, some in allowed:
        for value in values:
            if value not in some:
                return f"{name}: there is no {value!r}, only {', '.join(some)}"
    if not device.providers or device.providers[-1].name != "cpu":
        return "the last of the providers must be cpu, which runs what no other takes"
    missing = [f.name for f in dataclasses.fields(Device) if f.name != "sources" and f.name not in device.sources]
    if missing:
        return f"[sources] says nothing of {missing[0]}: write where the figure is from"
    return None


def _shipped() -> Path:
    here = Path(__file__).parents[1]
    # in the wheel, or in the checkout
    return next((place for place in (here / "device_profiles", here.parent / "devices") if place.is_dir()), here)
