"""The prepared directory: the one contract between workstation and device.

`manifest.json` describes everything and holds the SHA-256 of every other file; nothing in the
directory is used before its hash has been checked, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgetl import defaults, schema, storage
from edgetl.choices import BACKBONE_PRECISIONS, LOSSES, MODALITIES, OPTIMIZERS, TASKS
from edgetl.errors import ArtifactsError, first_line
from edgetl.kinds import MANIFEST as MANIFEST
from edgetl.kinds import PREPARED, mistaken
from edgetl.seal import SealError, seal_json, unseal_json

SCHEMA_VERSION = 1

TOKENIZER = "tokenizer.json"
PREPROCESS = "preprocess.onnx"
BACKBONE = "backbone.onnx"
TRAINABLE = "trainable.onnx"
ORT_TRAINING_MODEL = "ort/training_model.onnx"
ORT_EVAL_MODEL = "ort/eval_model.onnx"
ORT_OPTIMIZER_MODEL = "ort/optimizer_model.onnx"
ORT_CHECKPOINT = "ort/checkpoint"
PORTABLE_TRAIN_STEP = "portable/train_step.onnx"
PORTABLE_EVAL_STEP = "portable/eval_step.onnx"
PORTABLE_PARAMETERS = "portable/parameters.npz"
FILES = (
    *(MANIFEST, TOKENIZER, PREPROCESS, BACKBONE, TRAINABLE),
    *(ORT_TRAINING_MODEL, ORT_EVAL_MODEL, ORT_OPTIMIZER_MODEL, ORT_CHECKPOINT),
    *(PORTABLE_TRAIN_STEP, PORTABLE_EVAL_STEP, PORTABLE_PARAMETERS),
)
"""All that this version writes into a prepared directory."""

BATCH_LOGITS = "batch_logits"
"""The output of `trainable.onnx`, `[N, outputs]`."""

TARGETS = "targets"
SAMPLE_WEIGHTS = "sample_weights"
"""Inputs of every training graph beside the features: `[N, outputs]` and `[N]`, float32."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, its shape for one sample (without the batch axis) and its numpy type name.

    Of a network's inputs a size is -1 where it differs from sample to sample, as a text's length may.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def elements(self) -> int:
        """Number of elements for one sample."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes for one sample."""
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input; `preparation/preprocess.py` writes it as a graph.

    Attributes:
        height, width: size of the network's input in pixels.
        channels: 3 (RGB) or 1 (luminance, ITU-R 601-2 as Pillow computes it).
        resize: `crop` scales the shorter side to `resize_size` pixels and takes the centre;
            `squash` scales both sides to the input size, whatever the aspect ratio; `squash_crop`
            scales both sides to `resize_size` and takes the centre.
        resize_size: in pixels; used by `crop` and `squash_crop`.
        interpolation: `bilinear` or `bicubic`, both antialiased, or `nearest`.
        mean, std: per channel, for values in 0..1, in the order of the network's channels.
        channel_order: `rgb` or `bgr`, for networks that take blue first.
        crop_corner: where the centre lies between two pixels, its corner is rounded half to even
            (`even`, as torchvision does) or down (`down`, as Transformers does).
    """

    height: int = 224
    width: int = 224
    channels: int = 3
    resize: str = "crop"
    resize_size: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channel_order: str = "rgb"
    crop_corner: str = "even"

    @property
    def enough(self) -> int | None:
        """Pixels that a side needs, and more would not show: twice what it is resized to, so that antialiasing decides.

        None where nothing is antialiased.
        """
        if self.interpolation == "nearest":
            return None
        return 2 * (max(self.height, self.width) if self.resize == "squash" else self.resize_size)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a network takes of a picture so prepared; its graph may use another name."""
        return (TensorSpec("pixels", (self.channels, self.height, self.width)),)


SPECTROGRAM = "spectrogram"
"""Name of a network's input that is one."""


@dataclass(frozen=True)
class AudioPreprocessing:
    """How a recording becomes a log-mel spectrogram `[channels, frames, mels]` or its transpose.

    Attributes:
        sample_rate: in Hz; recordings of other rates are resampled.
        seconds: length of what the network sees; longer recordings lose both ends, shorter ones get
            silence on both sides.
        scale: what samples of full scale ±1 are multiplied by; 32768 for a network that takes 16-bit values.
        n_fft: length of a frame, in samples.
        win_length: length of the Hann window in the middle of a frame, in samples; 0 for all of it.
        hop_length: distance of two frames, in samples.
        center: whether the first frame is centred on the first sample, and the ends reflected; else frames lie
            within the recording.
        mels: number of mel bands between `f_min` and `f_max` Hz.
        mel_scale: `htk`, triangles of height 1 (torchaudio's default), or `slaney`, of area 1 in Hz
            (librosa's default).
        power: 2 for the power spectrum, 1 for magnitudes.
        log_offset: what is added before the logarithm.
        log: `natural` or `decibel` (ten times the common logarithm).
        top_db: of `decibel`: how far below the largest value the smallest may lie; 0 for no limit.
        mean, std: what the result is standardised with.
        channels: how many times it is given to the network, 1 or 3.
        time_first: frames before mels.
        channels_last: `[frames, mels, channels]` or its transpose, as TensorFlow has it.
    """

    sample_rate: int = 16000
    seconds: float = 1.0
    n_fft: int = 400
    hop_length: int = 160
    mels: int = 64
    f_min: float = 0.0
    f_max: float = 8000.0
    mel_scale: str = "htk"
    power: float = 2.0
    log_offset: float = 1e-6
    log: str = "natural"
    mean: float = 0.0
    std: float = 1.0
    channels: int = 1
    time_first: bool = False
    channels_last: bool = False
    scale: float = 1.0
    win_length: int = 0
    center: bool = True
    top_db: float = 0.0

    @property
    def samples(self) -> int:
        """Length of what the network sees, in samples."""
        return round(self.seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """Number of frames, as torch.stft has them."""
        return 1 + (self.samples if self.center else self.samples - self.n_fft) // self.hop_length

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the spectrogram."""
        size = (self.frames, self.mels) if self.time_first else (self.mels, self.frames)
        return (*size, self.channels) if self.channels_last else (self.channels, *size)


@dataclass(frozen=True)
class TextPreprocessing:
    """How a text becomes token ids; `tokenizer.json`, of the library `tokenizers`, says into which tokens.

    Attributes:
        tokenizer: the name of the model that the tokenizer came with.
        max_length: the largest number of tokens, special ones included; what is longer loses its end.
        padding: `fixed` fills every text up to `max_length` behind its end; `dynamic` leaves each its
            own length.
        pad_id: the token id that fills.
        token_type_ids: whether the network takes these, too, besides ids and mask.
    """

    tokenizer: str
    max_length: int = defaults.MAX_LENGTH
    padding: str = "fixed"
    pad_id: int = 0
    token_type_ids: bool = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a network takes of a text so prepared."""
        length = self.max_length if self.padding == "fixed" else -1
        names = ("input_ids", "attention_mask", *(("token_type_ids",) if self.token_type_ids else ()))
        return tuple(TensorSpec(name, (length,), "int64") for name in names)


@dataclass(frozen=True)
class Source:
    """Where the pretrained model came from: what was asked for, and the hash of the weights if they were a file."""

    spec: str
    weights_sha256: str | None = None
    model_args: dict[str, str] | None = None


@dataclass(frozen=True)
class Optimizer:
    """An optimizer and its settings; `edgetl/engines/update.py` has the formulas.

    Attributes:
        name: `adamw` or `sgd`.
        betas, epsilon: of AdamW.
        momentum: of SGD.
        weight_decay: decoupled from the gradient in both (Loshchilov & Hutter 2019).
        clip_norm: largest norm of all gradients together; what is longer is scaled down to it.
    """

    name: str = "adamw"
    betas: tuple[float, float] = defaults.ADAMW_BETAS
    epsilon: float = defaults.ADAMW_EPSILON
    momentum: float = defaults.SGD_MOMENTUM
    weight_decay: float = defaults.WEIGHT_DECAY
    clip_norm: float | None = None


@dataclass(frozen=True)
class Head:
    """The new head where it is one linear layer that ends the network: `logits = input · weightᵀ + bias`.

    Attributes:
        weight, bias: names of its parameters, `[K, D]` and `[K]`.
        input: name of the value in `trainable.onnx` that enters it, `[N, D]`; it may be a feature.
    """

    weight: str
    bias: str
    input: str


@dataclass(frozen=True)
class GraphMemory:
    """What a graph holds at once at most for a batch of N, 10^6 bytes: `fixed_mb + N·per_sample_mb`; and its nodes."""

    fixed_mb: float
    per_sample_mb: float
    nodes: int = 0


@dataclass(frozen=True)
class ShareSize:
    """How large a share of the network is, to tell which smaller one would fit where the prepared one does not.

    Attributes:
        policy: as `prepare --train` takes it, or several with commas between.
        trainable_mb: of its parameters, 10^6 bytes.
        values_mb: of all values that a forward pass makes of one sample behind the share's boundary.
        nodes: that make them.
    """

    policy: str
    trainable_mb: float
    values_mb: float
    nodes: int


@dataclass(frozen=True)
class Manifest:
    """What a prepared directory says of itself; see docs/artifacts.md for each field.

    Attributes:
        labels: names of the outputs in the order of the logits; empty if only their number was known,
            and then the names come from the data.
        task: `classification` (one class each), `multilabel` (any number of classes) or `regression`.
        outputs: number of logits: of classes, or of numbers.
        loss: `cross_entropy`, `binary_cross_entropy`, `mean_squared_error` or `l1`.
        optimizer: what the training artifacts hold; finetune may choose another.
        modality: what a sample is: `image`, `audio`, `text` or `array`.
        preprocessing: of an image; None for other modalities.
        audio: of a recording; None for other modalities.
        text: of a text; None for other modalities.
        inputs: the network's inputs, for one sample.
        features: the tensors at the freeze boundary, for one sample; the training graph's inputs.
        trainable: the parameters that train, by name; `frozen` are all others.
        backbone_macs, trainable_macs: multiply-accumulates of a forward pass for one sample, before
            and behind the boundary.
        engines: those that can train it.
        head: None if it is not a single linear layer.
        step_memory: of a step of the portable engine: parameters, state, gradients, and the values kept for the
            way back; None where it cannot train.
        shares: the smaller ones of head, last:1, last:2 …, the smallest first, and at the end the one prepared.
        ort_step_memory: of onnxruntime-training's step, without the optimizer.
        backbone_memory: of the frozen part: its weights and the values that live at once.
        backbone_precision: `float32`, or `int8` where prepare quantised the frozen part.
        files: SHA-256 of every other file, by path relative to the directory.
    """

    schema_version: int
    edgetl_version: str
    source: Source
    task: str
    labels: tuple[str, ...]
    outputs: int
    modality: str
    preprocessing: Preprocessing | None
    inputs: tuple[TensorSpec, ...]
    features: tuple[TensorSpec, ...]
    policy: tuple[str, ...]
    trainable: tuple[TensorSpec, ...]
    frozen: tuple[TensorSpec, ...]
    backbone_macs: int
    trainable_macs: int
    loss: str
    optimizer: Optimizer
    engines: tuple[str, ...]
    opset: int
    ir_version: int
    files: dict[str, str]
    head: Head | None = None
    step_memory: GraphMemory | None = None
    audio: AudioPreprocessing | None = None
    text: TextPreprocessing | None = None
    backbone_precision: str = "float32"
    backbone_memory: GraphMemory | None = None
    ort_step_memory: GraphMemory | None = None
    shares: tuple[ShareSize, ...] = ()

    @property
    def trains_pretrained(self) -> bool:
        """Whether more than the new head trains."""
        return any(policy != "head" for policy in self.policy)


@dataclass(frozen=True)
class Artifacts:
    """A prepared directory whose hashes have been checked."""

    path: Path
    manifest: Manifest
    sha256: str
    """Hash of the manifest, and through it of everything."""

    root: Path | None = None
    """Where `path` led when it was read: a symbolic link, as `edgetl push` makes one, may lead elsewhere later."""

    def file(self, name: str) -> Path:
        """Return the path of one of the files that the manifest lists."""
        return (self.root or self.path) / name

    @property
    def has_backbone(self) -> bool:
        """Whether anything lies before the freeze boundary (false when every layer trains)."""
        return BACKBONE in self.manifest.files


def load_artifacts(path: Path) -> Artifacts:
    """Read a prepared directory and check every file against its hash.

    Raises:
        ArtifactsError: it is not a prepared directory, is from a newer edgetl, or a file is missing
            or altered.
    """
    path = Path(path)
    try:
        root = path.resolve()
        manifest_file = root / MANIFEST
        is_prepared = manifest_file.is_file()
    except (OSError, ValueError) as error:
        raise ArtifactsError(
            f"{str(path)!r} cannot be read ({first_line(error)}): give a directory that 'edgetl prepare' made"
        ) from None
    if not is_prepared:
        raise ArtifactsError(mistaken(path, PREPARED))
    text = manifest_file.read_bytes()
    manifest = _parse(manifest_file, text)
    for name, digest in manifest.files.items():
        _check_name(manifest_file, name)
        file = root / name
        if not file.is_file():
            raise ArtifactsError(f"{file} is missing: copy the whole directory again, or prepare it anew")
        if storage.sha256_file(file) != digest:
            raise ArtifactsError(
                f"{file} is not the file that was prepared (its SHA-256 differs from {MANIFEST}): "
                "copy the directory again, or prepare it anew"
            )
    return Artifacts(path, manifest, hashlib.sha256(text).hexdigest(), root)


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json`; last, because a directory with a manifest is a finished one."""
    sealed = seal_json(schema.to_json(manifest))
    storage.write_text(directory / MANIFEST, schema.json_text(sealed, indent=2) + "\n")


def _parse(file: Path, text: bytes) -> Manifest:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactsError(
            f"{file} is not valid JSON ({error}): copy the directory again, or prepare it anew"
        ) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ArtifactsError(
            f"{file} has schema version {version}, and this edgetl reads up to {SCHEMA_VERSION}: "
            "update edgetl on this machine, or prepare with the version that runs here"
        )
    try:
        manifest = schema.from_json(Manifest, unseal_json(data))
        _check(manifest)
    except (schema.SchemaError, SealError, _Wrong) as error:
        raise ArtifactsError(f"{file}: {error}: copy the directory again, or prepare it anew") from None
    return manifest


class _Wrong(ValueError):
    """A manifest of the right types has a value that none can have, or that contradicts another."""


def _check(manifest: Manifest) -> None:
    """Refuse what no `prepare` writes, so that nothing behind this has to expect it.

    Raises:
        _Wrong: it names the field.
    """
    _check_choices(manifest)
    for name, specs in (
        ("inputs", manifest.inputs),
        ("features", manifest.features),
        ("trainable", manifest.trainable),
    ):
        _check_tensors(name, specs, smallest=-1 if name == "inputs" else 1)
    names = {spec.name for spec in manifest.trainable}
    if manifest.head is not None and not {manifest.head.weight, manifest.head.bias} <= names:
        raise _Wrong("field 'head' names parameters that do not train")
    if not 1 <= manifest.outputs <= _MOST_OUTPUTS:
        raise _Wrong(f"field 'outputs' is {manifest.outputs}")
    if manifest.labels and (len(manifest.labels) != manifest.outputs or len(set(manifest.labels)) != manifest.outputs):
        raise _Wrong(f"field 'labels' has not one name for each of {manifest.outputs} outputs")
    _check_numbers(schema.to_json(manifest))
    wanted = {PREPROCESS, TRAINABLE, *(_ENGINE_FILES[name] for name in manifest.engines)}
    if manifest.modality == "text":
        wanted.add(TOKENIZER)
    if missing := sorted(wanted - set(manifest.files)):
        raise _Wrong(f"field 'files' lists no {missing[0]}")


def _check_choices(manifest: Manifest) -> None:
    optimizer = manifest.optimizer
    for name, value, some in (
        ("task", manifest.task, TASKS),
        ("loss", manifest.loss, LOSSES),
        ("modality", manifest.modality, MODALITIES),
        ("backbone_precision", manifest.backbone_precision, BACKBONE_PRECISIONS),
        ("optimizer.name", optimizer.name, OPTIMIZERS),
        *(("engines", engine, _ENGINE_FILES) for engine in manifest.engines),
    ):
        if value not in some:
            raise _Wrong(f"field '{name}' is {value!r}, where one of {', '.join(some)} was expected")
    if not manifest.engines:
        raise _Wrong("field 'engines' is empty")
    if manifest.modality in ("image", "audio", "text"):
        name = "preprocessing" if manifest.modality == "image" else manifest.modality
        if getattr(manifest, name) is None:
            raise _Wrong(f"field '{name}' is missing, which the modality {manifest.modality} needs")
    check_preprocessing(manifest.audio, manifest.text)
    if not all(0 <= share < 1 for share in (*optimizer.betas, optimizer.momentum)):
        raise _Wrong("field 'optimizer' has a share of the past that does not lie in 0..1")


def check_preprocessing(audio: AudioPreprocessing | None, text: TextPreprocessing | None) -> None:
    """Refuse a sample rate or length that nothing could be prepared with.

    Raises:
        ValueError: it names the field.
    """
    if audio is not None and not 1 <= audio.sample_rate <= 1_000_000:
        raise _Wrong(f"field 'audio.sample_rate' is {audio.sample_rate}")
    if text is not None and not 1 <= text.max_length <= 1_000_000:
        raise _Wrong(f"field 'text.max_length' is {text.max_length}")


def _check_tensors(where: str, specs: tuple[TensorSpec, ...], *, smallest: int) -> None:
    if not specs or len({spec.name for spec in specs}) != len(specs):
        raise _Wrong(f"field '{where}' lists nothing, or a name twice")
    for spec in specs:
        if spec.dtype not in _DTYPES:
            raise _Wrong(f"field '{where}': {spec.name!r} has the type {spec.dtype!r}")
        if any(size < smallest or size == 0 for size in spec.shape) or abs(spec.nbytes) > _MOST_BYTES:
            raise _Wrong(f"field '{where}': {spec.name!r} has the shape {list(spec.shape)}")


def _check_numbers(value: Any, where: str = "") -> None:
    """Refuse numbers that are not finite, and sizes below zero (-1 stands for any size)."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_numbers(item, f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, where)
    elif isinstance(value, int | float):
        lowest = -1 if isinstance(value, int) else -math.inf
        if not (lowest <= value <= _MOST and math.isfinite(value)):
            raise _Wrong(f"field '{where}' is {value}")


_DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
_MOST_OUTPUTS = 1_000_000
_MOST_BYTES = 1 << 40
_MOST = 1 << 53
_ENGINE_FILES = {"ort-training": ORT_TRAINING_MODEL, "portable": PORTABLE_TRAIN_STEP}


def _check_name(manifest_file: Path, name: str) -> None:
    """Refuse names that would lead out of the prepared directory."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
        raise ArtifactsError(f"{manifest_file} lists the file {name!r}, which lies outside of its directory")
