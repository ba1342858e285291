"""prepare(): a pretrained classifier to a directory that a device can train. Workstation only."""

from __future__ import annotations

import gc
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgetl
from edgetl import defaults
from edgetl.artifacts import (
    ARRAY,
    AUDIO,
    BACKBONE,
    IMAGE,
    MANIFEST,
    PREPROCESS,
    SCHEMA_VERSION,
    SPECTROGRAM,
    TEXT,
    TOKENIZER,
    TRAINABLE,
    Artifacts,
    AudioPreprocessing,
    Manifest,
    Preprocessing,
    TensorSpec,
    save_manifest,
)
from edgetl.data.dataset import Sample, Wanted, label_names, open_inputs
from edgetl.data.decode import enough_pixels, open_decoder
from edgetl.data.depth import find_pixel_range
from edgetl.data.kind import Kind, kind_of
from edgetl.declaration import takes
from edgetl.device.planning import plan_for
from edgetl.device.profile import Device, load_device
from edgetl.errors import DeviceError, EdgetlError, ModelError
from edgetl.events import Note, OnEvent, Stage
from edgetl.files import storage
from edgetl.losses.registry import losses_of
from edgetl.optimizers.registry import Optimizer
from edgetl.preparation.settings import AUTO, PrepareSettings
from edgetl.runs.belongings import refuse_others
from edgetl.runtime import process
from edgetl.shared_settings import THIS
from edgetl.tasks.targets import OUTPUTS_ARE

if TYPE_CHECKING:
    import onnx

    from edgetl.preparation.heads import Network
    from edgetl.preparation.share import Share
    from edgetl.preparation.sources.resolve import LoadedModel
    from edgetl.preparation.split import Parts


@dataclass(frozen=True)
class PrepareResult:
    """The directory that was written, and what trains in it.

    Attributes:
        labels: class names; empty if only their number is known.
        features: the boundary's tensors with their shape per sample.
        feature_kb_per_image: what the cache keeps for each sample, 10^3 bytes.
        trainable_parameters, frozen_parameters: numbers of elements.
        backbone_macs, trainable_macs: multiply-accumulates for one image, before and behind the
            boundary.
    """

    artifacts: str
    labels: tuple[str, ...]
    task: str
    loss: str
    outputs: int
    features: tuple[TensorSpec, ...]
    feature_kb_per_image: float
    trainable_parameters: int
    frozen_parameters: int
    backbone_macs: int
    trainable_macs: int
    modality: str
    preprocessing: Preprocessing | None
    audio: AudioPreprocessing | None
    size_mb: float
    seconds: float
    peak_rss_mb: float


@takes(PrepareSettings)
def prepare(settings: PrepareSettings) -> PrepareResult:
    """Load a pretrained classifier, give it a new head, cut it, and write everything a device needs.

    Raises:
        EdgetlError: with one sentence for each thing a user can cause.
    """
    started = time.monotonic()
    _require_workstation()
    target = Path(settings.out)
    storage.refuse_existing(target, force=settings.force, marker=MANIFEST)
    refuse_others(target)
    asked = _asked(settings)
    with storage.temporary_directory() as aside:
        loaded = _loaded(settings, asked, aside)
        network, chosen = _cut(settings, asked, loaded)
        manifest, size = _written(settings, asked, loaded, network, chosen, target)
    return PrepareResult(
        artifacts=str(target),
        labels=manifest.labels,
        task=manifest.task,
        loss=manifest.loss,
        outputs=manifest.outputs,
        features=manifest.features,
        feature_kb_per_image=sum(spec.nbytes for spec in manifest.features) / 1e3,
        trainable_parameters=sum(spec.elements for spec in manifest.trainable),
        frozen_parameters=sum(spec.elements for spec in manifest.frozen),
        backbone_macs=manifest.backbone_macs,
        trainable_macs=manifest.trainable_macs,
        modality=manifest.modality,
        preprocessing=manifest.preprocessing,
        audio=manifest.audio,
        size_mb=size / 1e6,
        seconds=time.monotonic() - started,
        peak_rss_mb=process.peak_rss_mb(),
    )


@dataclass(frozen=True)
class _Asked:
    """What the settings and the data of `labels_from` say, before a network is loaded.

    Attributes:
        labels: names of the outputs; empty if only their number, `outputs`, is known.
        profile: the device that will train; None if none was named and none is needed.
        calibration: samples that show the ranges of activations; None if nothing is quantised.
        data: what the data of `labels_from` are.
        shapes: input shapes to try, the likeliest first; None where the source knows.
    """

    labels: tuple[str, ...]
    outputs: int
    loss: str
    profile: Device | None
    calibration: str | Path | None
    data: Kind
    modality: str
    shapes: Sequence[Sequence[int] | None]
    spectrogram: AudioPreprocessing | None


def _asked(settings: PrepareSettings) -> _Asked:
    """Settle what can be known without the network, and refuse what does not go together."""
    from edgetl.preparation.audio import audio_preprocessing
    from edgetl.preparation.sources.resolve import modality_of

    labels_from, source = settings.labels_from, settings.source
    loss = _loss(settings.task, settings.loss)
    calibration = settings.calibration or labels_from
    if settings.backbone == "int8" and calibration is None:
        raise EdgetlError("--backbone int8 takes the ranges of activations from samples: give --calibration DATA")
    needs_device = settings.device or settings.memory_mb or tuple(settings.train) == (AUTO,)
    profile = load_device(settings.device or THIS) if needs_device else None
    if profile is not None and settings.memory_mb is not None:
        profile = replace(profile, training_memory_mb=settings.memory_mb)
    names, count = _labels(settings)
    data = kind_of(Path(labels_from), settings.label_column) if labels_from is not None else Kind(None)
    implied = settings.modality or _implied(settings.input_shape, settings.audio)
    modality = implied or modality_of(source, data.modality)
    shapes: Sequence[Sequence[int] | None] = [settings.input_shape]
    if modality == ARRAY and settings.input_shape is None:
        shapes = data.shapes or [None]
    if data.modality not in (None, modality):
        how = "of networks for texts, hf:ID_OR_DIR can be prepared" if data.modality == TEXT else "let --modality agree"
        raise EdgetlError(f"{labels_from} holds {data.what}, but {source} is prepared for {Kind(modality).what}: {how}")
    if modality != TEXT and (settings.max_length is not None or settings.dynamic_length):
        raise EdgetlError("--max-length and --dynamic-length are of texts, and of no other modality")
    spectrogram = audio_preprocessing(settings.audio or {}) if modality == AUDIO else None
    return _Asked(names, count, loss, profile, calibration, data, modality, shapes, spectrogram)


def _loaded(settings: PrepareSettings, asked: _Asked, aside: Path) -> LoadedModel:
    """Load the network and say what was assumed of it; its weights lie in `aside` from then on."""
    from edgetl.graph.aside import set_aside
    from edgetl.preparation.sources.assumed import settle
    from edgetl.preparation.sources.resolve import load_source

    on_event, data, modality = settings.on_event, asked.data, asked.modality
    on_event(Stage("loading and exporting"))
    load = partial(
        load_source,
        settings.source,
        weights=settings.weights,
        model_args=settings.model_args or {},
        overrides=settings.preprocessing or {},
        modality=modality,
        max_length=settings.max_length,
        dynamic_length=settings.dynamic_length,
        on_event=on_event,
        aside=aside,
    )
    loaded, taken = _first_that_loads(load, [_inputs(modality, shape, asked.spectrogram) for shape in asked.shapes])
    loaded = replace(loaded, model=set_aside(loaded.model, loaded.parameters, aside))
    gc.collect()  # torch's exporter leaves cycles that hold the network
    process.return_memory()
    if data.modality == modality and settings.modality is None and modality in (ARRAY, AUDIO):
        how = _options(modality, taken[0].shape if modality == ARRAY and settings.input_shape is None else None)
        on_event(Note(f"{settings.labels_from} holds {data.what}, so the network is prepared with {how}"))
    if loaded.preprocessing is not None and not loaded.stated:
        pixels = settle(settings.source, loaded.model, loaded.preprocessing, settings.preprocessing or {}, on_event)
        loaded = replace(loaded, preprocessing=pixels)
    return loaded


def _cut(settings: PrepareSettings, asked: _Asked, loaded: LoadedModel) -> tuple[Network, Share]:
    """Give the network its new head, and cut it before the first parameter that trains."""
    from edgetl.preparation import heads, share

    on_event = settings.on_event
    on_event(Stage("cutting"))
    append_head, head = settings.append_head, settings.head
    if not append_head and head is None and (name := heads.features_output(loaded.model)) is not None:
        append_head = True
        on_event(Note(f"no classifier is at the network's end: the head is a new linear layer on its output {name!r}"))
    give = heads.append_head if append_head else heads.replace_head
    network = give(loaded.model, asked.outputs, loaded.parameters, head)
    if loaded.fit is not None:
        for text in loaded.fit.check({tensor.name for tensor in network.model.graph.initializer}, network.head):
            on_event(Note(text))
    length = loaded.text.max_length if loaded.text is not None else 1
    if tuple(settings.train) == (AUTO,):
        assert asked.profile is not None, "it was read for this"
        device = settings.device or THIS
        chosen = share.largest(network, asked.loss, asked.profile, device, length=length, on_event=on_event)
    else:
        chosen = share.cut(network, settings.train, length=length)
    if settings.backbone == "int8" and chosen.parts.backbone is None:
        raise ModelError("nothing is frozen before the first layer that trains, so --backbone int8 has no backbone")
    return network, chosen


def _written(
    settings: PrepareSettings, asked: _Asked, loaded: LoadedModel, network: Network, chosen: Share, target: Path
) -> tuple[Manifest, int]:
    """Write the directory, the manifest last; return the manifest and the size of all other files in bytes."""
    from edgetl.gradients import ort_artifacts
    from edgetl.graph.aside import write_model
    from edgetl.graph.memory import graph_memory
    from edgetl.preparation import heads, share

    parts, on_event = chosen.parts, settings.on_event
    length = loaded.text.max_length if loaded.text is not None else 1
    with storage.directory_built_aside(target, force=settings.force, marker=MANIFEST) as directory:
        _write_entrance(loaded, asked, parts, directory)
        if parts.backbone is not None:
            frozen = parts.backbone
            if settings.backbone == "int8":
                on_event(Stage("quantising the backbone"))
                shape = parts.inputs[0].shape if loaded.modality == ARRAY else None
                samples = open_inputs(asked.calibration or "", Wanted(loaded.modality, settings.task, shape=shape))
                frozen = _in_int8(frozen, parts, loaded, asked.spectrogram, samples, directory, on_event)
            write_model(frozen, directory / BACKBONE)
        write_model(parts.trainable, directory / TRAINABLE)
        on_event(Stage("generating gradients"))
        optimizer = Optimizer()
        ort_artifacts.generate(parts.trainable, chosen.trainable, asked.loss, optimizer, directory)
        steps = share.add_portable(parts, asked.loss, optimizer, directory, on_event)
        files = sorted(file for file in directory.rglob("*") if file.is_file())
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            edgetl_version=edgetl.__version__,
            source=loaded.source,
            task=settings.task,
            labels=asked.labels,
            outputs=asked.outputs,
            modality=loaded.modality,
            preprocessing=loaded.preprocessing,
            inputs=parts.inputs,
            features=parts.features,
            policy=chosen.policy,
            trainable=parts.parameters,
            frozen=parts.frozen,
            backbone_macs=parts.backbone_macs,
            trainable_macs=parts.trainable_macs,
            step_memory=steps.get("portable"),
            ort_step_memory=steps["ort-training"],
            shares=share.sizes(network, chosen),
            head=heads.linear_head(network, parts.trainable),
            loss=asked.loss,
            optimizer=optimizer,
            engines=tuple(steps),
            opset=defaults.OPSET,
            ir_version=defaults.IR_VERSION,
            audio=asked.spectrogram,
            text=loaded.text,
            backbone_precision=settings.backbone,
            backbone_memory=None if parts.backbone is None else graph_memory(parts.backbone, length=length),
            files={file.relative_to(directory).as_posix(): storage.sha256_file(file) for file in files},
        )
        save_manifest(directory, manifest)
        if asked.profile is not None:
            planned = plan_for(Artifacts(directory, manifest, ""), asked.profile, name=settings.device or THIS)
            if not planned.fits:
                raise DeviceError("; ".join(planned.problems))
        size = sum(file.stat().st_size for file in files)
        refuse_others(target)  # files may have come meanwhile
    return manifest, size


def _write_entrance(loaded: LoadedModel, asked: _Asked, parts: Parts, directory: Path) -> None:
    """Write `preprocess.onnx`, and the tokenizer of a network for texts."""
    from edgetl.preparation.audio import build_audio
    from edgetl.preparation.preprocess import build_array, build_preprocess, build_unchanged

    entrance, file = parts.inputs[0], directory / PREPROCESS
    if loaded.preprocessing is not None:
        build_preprocess(loaded.preprocessing, entrance.name, file)
    elif asked.spectrogram is not None:
        build_audio(asked.spectrogram, entrance.name, file)
    elif loaded.text is not None:
        build_unchanged(loaded.text.inputs, [spec.name for spec in parts.inputs], file)
        storage.write_text(directory / TOKENIZER, loaded.tokenizer)
    else:
        build_array(entrance.shape, entrance.name, file)


def _require_workstation() -> None:
    for package, name in (("torch", "PyTorch"), ("onnx", "onnx"), ("onnxscript", "onnxscript")):
        if importlib.util.find_spec(package) is None:
            raise EdgetlError(f"prepare needs {name}: run it on a workstation, pip install 'edgetl[prepare]'")


def _in_int8(
    backbone: onnx.ModelProto,
    parts: Parts,
    loaded: LoadedModel,
    audio: AudioPreprocessing | None,
    samples: Sequence[Sample],
    directory: Path,
    on_event: OnEvent,
) -> onnx.ModelProto:
    from edgetl.quantization.quantize import calibration, to_int8

    values = find_pixel_range(samples, threads=process.available_cores()) if loaded.modality == IMAGE else None
    at_least = enough_pixels(loaded.preprocessing, defaults.DECODE)
    decode = open_decoder(loaded.modality, parts.inputs, audio, loaded.text, loaded.tokenizer, values, at_least)
    names = [spec.name for spec in parts.inputs]
    feeds = partial(calibration, samples, decode, directory / PREPROCESS, names, seed=defaults.SEED)
    return to_int8(backbone, feeds, on_event=on_event)


def _implied(shape: Sequence[int] | None, audio: Mapping[str, Any] | None) -> str | None:
    """Return the modality that options of one modality alone belong to."""
    return ARRAY if shape is not None else AUDIO if audio else None


def _options(modality: str, shape: Sequence[int] | None) -> str:
    given = f" --input-shape {','.join(map(str, shape))}" if shape else ""
    return f"--modality {modality}{given}"


def _first_that_loads(
    load: Callable[..., LoadedModel], inputs: Sequence[tuple[TensorSpec, ...]]
) -> tuple[LoadedModel, tuple[TensorSpec, ...]]:
    """Load a network for the first of several inputs that it takes; return these, too.

    Raises:
        ModelError: it takes none; the message is of the first.
    """
    refused: ModelError | None = None
    for each in inputs:
        try:
            return load(inputs=each), each
        except ModelError as error:
            refused = refused or error
    assert refused is not None, "there is at least one"
    raise refused


def _inputs(modality: str, shape: Sequence[int] | None, audio: AudioPreprocessing | None) -> tuple[TensorSpec, ...]:
    """What the network takes for one sample; empty for pictures, whose source says it."""
    if modality == ARRAY and shape is None:
        raise EdgetlError("--modality array needs --input-shape, the shape of one sample, such as --input-shape 6,128")
    if shape is not None and modality != ARRAY:
        raise EdgetlError(f"--input-shape belongs to --modality array, not to {modality}")
    if shape is not None and not (shape and min(shape) > 0):
        raise EdgetlError(f"--input-shape must be positive sizes such as 6,128, not {','.join(map(str, shape))}")
    if audio is not None:
        return (TensorSpec(SPECTROGRAM, audio.shape),)
    return () if shape is None else (TensorSpec("values", tuple(shape)),)


def _loss(task: str, loss: str | None) -> str:
    known = losses_of(task)
    if loss is not None and loss not in known:
        raise EdgetlError(f"{task} cannot be trained with the loss {loss!r}, only with {' or '.join(known)}")
    return loss or known[0]


def _labels(settings: PrepareSettings) -> tuple[tuple[str, ...], int]:
    """Return the names of the outputs, if they are known, and their number."""
    labels, labels_from, classes, task = settings.labels, settings.labels_from, settings.classes, settings.task
    given = [value is not None for value in (labels, labels_from, classes)]
    if sum(given) != 1:
        raise EdgetlError("give exactly one of --labels, --labels-from and --classes")
    if labels_from is not None:
        names = label_names(Path(labels_from), task, tuple(settings.label_column), settings.on_event)
    else:
        names = tuple(name.strip() for name in labels or ())
    if any(not name for name in names) or len(set(names)) != len(names):
        raise ModelError(f"--labels holds an empty or repeated name: {', '.join(names)}")
    count = classes if classes is not None else len(names)
    if count < (fewest := 2 if task == "classification" else 1):
        raise ModelError(f"{task} needs at least {fewest} {OUTPUTS_ARE[task]}, not {count}")
    return names, count


__all__ = ["PrepareResult", "prepare"]
