"""The settings of `prepare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from edgetl import defaults
from edgetl.declaration import MOST, REQUIRED, Range, declared
from edgetl.losses.registry import LOSSES
from edgetl.shared_settings import BACKBONE_PRECISIONS, DATA, MODALITIES, DeviceSettings, LabelColumns, Listening
from edgetl.tasks.names import TASKS

LABELS, NETWORK, PICTURES, OTHERS = "Labels", "Network", "Pictures", "Recordings, texts and arrays"
"""Sections of the command's help."""

WHOLE = Range(1, MOST)

AUTO = "auto"
"""The policy that takes the largest share of the network that fits."""


@dataclass(frozen=True, kw_only=True)
class PreprocessingSettings:
    """How pictures enter the network, where that is not as the model has it."""

    size: tuple[int, int] | None = declared(
        None,
        "Input height and width in pixels: one number, or two such as 48,192 or 48x192.",
        group=PICTURES,
        kind="height and width",
        metavar="PIXELS|H,W",
        default_text="the model's",
    )
    channels: int | None = declared(
        None,
        "Channels that the network takes: 3, or 1 for grey. Pictures are turned into that.",
        group=PICTURES,
        range=WHOLE,
        default_text="the model's",
    )
    resize: str | None = declared(
        None,
        "crop scales the shorter side and crops the centre; squash scales both sides; squash_crop does that and crops.",
        group=PICTURES,
        choices=("crop", "squash", "squash_crop"),
        default_text="the model's",
    )
    crop_pct: float | None = declared(
        None,
        "Share of the resized picture that the crop keeps.",
        group=PICTURES,
        range=Range(2.0**-126, 1.0),
        default_text="the model's",
    )
    interpolation: str | None = declared(
        None,
        "How pictures are resized.",
        group=PICTURES,
        choices=("bilinear", "bicubic", "nearest"),
        default_text="the model's",
    )
    mean: Sequence[float] | None = declared(
        None,
        "Mean per channel, for values in 0..1.",
        group=PICTURES,
        kind="numbers",
        metavar="M[,M,M]",
        default_text="the model's",
    )
    std: Sequence[float] | None = declared(
        None,
        "Standard deviation per channel.",
        group=PICTURES,
        kind="numbers",
        metavar="S[,S,S]",
        default_text="the model's",
    )
    channel_order: str | None = declared(
        None,
        "Order of the colours that the network takes.",
        group=PICTURES,
        choices=("rgb", "bgr"),
        default_text="the model's",
    )


@dataclass(frozen=True)
class PrepareSettings(LabelColumns, DeviceSettings, Listening):
    """What `prepare` takes.

    Attributes:
        source: `timm:NAME`, `torchvision:NAME[@WEIGHTS]`, `hf:ID_OR_DIR`, `FILE.py:callable` or
            `module:callable` returning an `nn.Module`, or a file `MODEL.onnx`, `PROGRAM.pt2` or `MODEL.keras`.
        preprocessing: fields of `PreprocessingSettings`, or of `edgetl.artifacts.Preprocessing`, that replace the
            model's own.
    """

    source: str
    _: KW_ONLY
    out: str | Path = declared(REQUIRED, "Directory to write.", kind="path")
    labels: Sequence[str] | None = declared(
        None,
        "Names of the classes, labels or numbers. Exactly one of labels, labels_from and classes is needed.",
        group=LABELS,
        kind="names",
    )
    labels_from: str | Path | None = declared(
        None, "Data that name the classes.", group=LABELS, kind="path", metavar="DATA"
    )
    classes: int | None = declared(
        None,
        "Number of classes, labels or numbers. finetune takes the names from its data.",
        group=LABELS,
        range=WHOLE,
    )
    weights: str | Path | None = declared(
        None, "Weights: .safetensors, or a .pt/.pth state dict.", group=NETWORK, kind="path", metavar="FILE"
    )
    model_args: Mapping[str, Any] | None = declared(
        None, "Argument for the model's constructor.", group=NETWORK, kind="literals", option="--model-arg"
    )
    train: Sequence[str] = declared(
        ("head",),
        "Policy that says which parameters train: head, last:K, all, bias, norm, or a glob over parameter names. "
        "Or auto: the largest of head, last:K and all that fits --device. The new head always trains.",
        group=NETWORK,
        kind="repeated",
        metavar="POLICY",
    )
    head: str | None = declared(
        None, "The classifier's name, where the network alone does not tell.", group=NETWORK, metavar="NAME"
    )
    append_head: bool = declared(
        False,
        "Add the new head after the network's output, which gives features, instead of replacing the last layer.",
        group=NETWORK,
    )
    task: str = declared(
        "classification",
        "What a sample has: one class, any number of classes, or numbers.",
        group=NETWORK,
        choices=TASKS,
    )
    loss: str | None = declared(
        None, "Loss that training minimises.", group=NETWORK, choices=tuple(LOSSES), default_text="the task's"
    )
    backbone: str = declared(
        "float32",
        "Precision of the frozen part. int8 quantises it before training, so that the head is trained on the features "
        "it will be deployed with.",
        group=NETWORK,
        choices=BACKBONE_PRECISIONS,
    )
    calibration: str | Path | None = declared(
        None,
        "With --backbone int8: samples, labelled or not, that show the ranges of activations.",
        group=NETWORK,
        kind="path",
        metavar="DATA",
        default_text="--labels-from",
    )
    preprocessing: Mapping[str, Any] | None = None
    modality: str | None = declared(
        None,
        "What a sample is: a picture, a recording (the network gets its log-mel spectrogram), a text, or numbers.",
        group=DATA,
        choices=MODALITIES,
        default_text="text for a language model of hf:, else what --labels-from holds, else image",
    )
    max_length: int | None = declared(
        None,
        "Maximum number of tokens per text.",
        group=OTHERS,
        range=Range(4, MOST),
        metavar="N",
        default_text=f"{defaults.MAX_LENGTH}, or what the network takes",
    )
    dynamic_length: bool = declared(False, "Texts keep their own length, instead of being filled up.", group=OTHERS)
    input_shape: Sequence[int] | None = declared(
        None,
        "Shape of one array.",
        group=OTHERS,
        kind="whole numbers",
        metavar="N[,N]",
        default_text="that of --labels-from",
    )
    audio: Mapping[str, Any] | None = declared(
        None,
        "With --modality audio: sample_rate, seconds, n_fft, hop_length, mels, ... (docs/data.md).",
        group=OTHERS,
        kind="literals",
        option="--audio-arg",
    )
    force: bool = declared(False, "Replace a prepared directory at --out.")
