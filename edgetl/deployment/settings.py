"""The settings of `deploy`, and of what uses a deployed file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from edgetl import defaults
from edgetl.declaration import MOST, REQUIRED, Range, declared
from edgetl.errors import DeployError
from edgetl.shared_settings import (
    PRECISIONS,
    InputColumns,
    LabelColumns,
    Listening,
    ProviderSettings,
    ThreadSettings,
    WindowSettings,
    decode_setting,
)

INPUTS = ("raw", "tensor")
FORMATS = ("onnx", "ort")


@dataclass(frozen=True, kw_only=True)
class FormSettings:
    """What the deployed file is to be like."""

    precision: str = declared(
        "float32",
        "Precision of the file: int8 quantises weights and activations, by the run's training samples; float16 halves "
        "the file.",
        choices=PRECISIONS,
    )
    quantize_head: bool = declared(False, "With --precision int8, quantise the classifier as well.")
    max_drop: float = declared(
        defaults.MAX_DROP,
        "Points of the validation metric that the file may lose by lower precision. A file that loses more, and more "
        "than chance explains, is not written.",
        range=Range(0.0, 100.0),
        metavar="POINTS",
    )
    input: str = declared(
        "raw", "What the file takes: one sample as it comes, or a batch of preprocessed tensors.", choices=INPUTS
    )
    batch: int | None = declared(
        None,
        "Fixed number of samples per call with --input tensor.",
        range=Range(1, 2**31),
        metavar="N",
        default_text="any number",
    )
    format: str | None = declared(
        None,
        "Format of the file: onnx, or ort for ONNX Runtime Mobile.",
        choices=FORMATS,
        default_text="by the ending of --out",
    )

    def check_together(self) -> None:
        """Refuse values that do not go together.

        Raises:
            DeployError: it says which.
        """
        if self.batch is not None and self.input == "raw":
            raise DeployError("--batch fixes the batch of --input tensor; a file of --input raw takes one sample")
        if self.quantize_head and self.precision != "int8":
            raise DeployError("--quantize-head is for --precision int8")


@dataclass(frozen=True)
class DeploySettings(FormSettings, ThreadSettings, Listening):
    """What `deploy` takes.

    Attributes:
        run: a run directory.
    """

    run: str | Path
    _: KW_ONLY
    out: str | Path = declared(REQUIRED, "ONNX file to write.", kind="path")
    artifacts: str | Path | None = declared(
        None,
        "Directory where the prepared artifacts lie now.",
        kind="path",
        metavar="DIR",
        default_text="where they lay during training",
    )


@dataclass(frozen=True)
class EvaluateSettings(LabelColumns, InputColumns, WindowSettings, ProviderSettings, ThreadSettings, Listening):
    """What `evaluate` takes.

    Attributes:
        model: a deployed file.
        data: labelled data in any of the forms of docs/data.md.
    """

    model: str | Path
    data: str | Path
    _: KW_ONLY
    decode: str | None = decode_setting(None)


@dataclass(frozen=True)
class PredictSettings(InputColumns, WindowSettings, ProviderSettings, ThreadSettings, Listening):
    """What `predict` takes.

    Attributes:
        model: a deployed file.
        inputs: files, folders of them, tables, archives of arrays, or texts.
    """

    model: str | Path
    inputs: Sequence[str | Path]
    _: KW_ONLY
    top: int = declared(defaults.TOP, "Number of classes to show per sample.", range=Range(1, MOST))
    decode: str | None = decode_setting(None)


@dataclass(frozen=True)
class BenchmarkSettings(ProviderSettings, ThreadSettings):
    """What `benchmark` takes.

    Attributes:
        model: an ONNX file.
    """

    model: str | Path
    _: KW_ONLY
    seconds: float = declared(
        defaults.BENCHMARK_SECONDS,
        "Seconds for which each number of samples at once is measured.",
        range=Range(0.0, 3600.0),
    )
