"""Settings that several commands have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetl.declaration import SMALLEST, Range, declared
from edgetl.events import OnEvent, ignore

DATA, TRAINING, OPTIMIZER, MACHINE = "Data", "Training", "Optimizer", "Machine"
"""Sections of a command's help."""

THIS = "this"
"""The device that edgetl runs on."""

WINDOW_SECONDS = Range(SMALLEST, 1e6)
MEMORY_MB = Range(1.0, 1e12)
BATCH_SIZE = Range(1, 2**53)
ENGINES = ("auto", "ort-training", "portable")
MODALITIES = ("image", "audio", "text", "array")
PRECISIONS = ("float32", "float16", "int8")
BACKBONE_PRECISIONS = ("float32", "int8")
DECODINGS = ("scaled", "full")
CACHE_PRECISIONS = ("float32", "float16")


@dataclass(frozen=True, kw_only=True)
class LabelColumns:
    """Columns of tables, and names in archives of arrays, that hold labels."""

    label_column: Sequence[str] = declared(
        (),
        "Table column of the labels or numbers, where it has an unusual name.",
        group=DATA,
        kind="columns",
    )


@dataclass(frozen=True, kw_only=True)
class InputColumns:
    """Columns of tables, and names in archives of arrays, that hold samples."""

    input_column: Sequence[str] = declared(
        (),
        "Table column of paths, texts or numbers, where it has an unusual name.",
        group=DATA,
        kind="columns",
    )


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Windows of recordings."""

    window: float | None = declared(
        None,
        "Length in seconds of the windows into which recordings are cut; each window is a sample.",
        group=DATA,
        range=WINDOW_SECONDS,
        metavar="SECONDS",
        default_text="the network's input length with --hop; otherwise one sample per recording, its middle",
    )
    hop: float | None = declared(
        None,
        "Seconds from the start of a window to the start of the next.",
        group=DATA,
        range=WINDOW_SECONDS,
        metavar="SECONDS",
        default_text="--window",
    )


def decode_setting(default: str | None) -> Any:
    """The setting `decode`, with a default of its own."""
    return declared(
        default,
        "Decoding of JPEG pictures: scaled decodes at a half, a quarter or an eighth of the size where that is large "
        "enough; full decodes all of it.",
        group=DATA,
        choices=DECODINGS,
        default_text=None if default else "as in training",
    )


@dataclass(frozen=True, kw_only=True)
class ProviderSettings:
    """Where ONNX Runtime computes."""

    provider: str | None = declared(
        None,
        "Execution provider of ONNX Runtime: cpu, openvino, cuda, webgpu, coreml, qnn, ...",
        group=MACHINE,
        metavar="NAME",
        default_text="cpu",
    )
    provider_options: Mapping[str, str] | None = declared(
        None,
        "Option of the execution provider.",
        group=MACHINE,
        kind="pairs",
        option="--provider-option",
    )
    allow_fallback: bool = declared(
        False, "Use the CPU where the execution provider is missing or refuses the network.", group=MACHINE
    )


@dataclass(frozen=True, kw_only=True)
class ThreadSettings:
    """Cores."""

    threads: int | None = declared(
        None,
        "Number of cores to use.",
        group=MACHINE,
        range=Range(1, 2**16),
        default_text="all available",
    )


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """The device that will train."""

    device: str | None = declared(
        None,
        "Device that trains: a name that `edgetl devices` lists, or a file with a profile. Training must fit its "
        "memory; options that are not given suit it.",
        group=MACHINE,
        metavar="NAME|FILE",
    )
    memory_mb: float | None = declared(
        None,
        "Memory that the training process may take, in 10^6 bytes.",
        group=MACHINE,
        range=MEMORY_MB,
        option="--memory",
        metavar="MB",
        default_text="the device's",
    )


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Who is told of progress.

    Attributes:
        on_event: receives progress and notes (`edgetl.events`).
    """

    on_event: OnEvent = ignore
