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
from edgetl import defaults, runtime, storage
from edgetl.artifacts import (
    BACKBONE,
    MANIFEST,
    PREPROCESS,
    SCHEMA_VERSION,
    SPECTROGRAM,
    TOKENIZER,
    TRAINABLE,
    Artifacts,
    AudioPreprocessing,
    Manifest,
    Optimizer,
    Preprocessing,
    TensorSpec,
    save_manifest,
)
from edgetl.belongings import refuse_others
from edgetl.choices import BACKBONE_PRECISIONS, MODALITIES, TASKS, check_choice, check_number
from edgetl.data import Sample, Wanted, label_names, open_inputs
from edgetl.data.decode import ARRAY, AUDIO, IMAGE, TEXT, enough_pixels, open_decoder
from edgetl.data.depth import find_pixel_range
from edgetl.data.kind import Kind, kind_of
from edgetl.devices import THIS, load_device
from edgetl.errors import DeviceError, EdgetlError, ModelError
from edgetl.events import Note, OnEvent, Stage, ignore
from edgetl.planning import plan_for
from edgetl.targets import OUTPUTS_ARE

if TYPE_CHECKING:
    import onnx

    from edgetl.preparation.sources import LoadedModel
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


def prepare(
    source: str,
    *,
    out: str | Path,
    labels: Sequence[str] | None = None,
    labels_from: str | Path | None = None,
    label_column: Sequence[str] = (),
    classes: int | None = None,
    weights: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    train: Sequence[str] = ("head",),
    head: str | None = None,
    append_head: bool = False,
    preprocessing: Mapping[str, Any] | None = None,
    modality: str | None = None,
    max_length: int | None = None,
    dynamic_length: bool = False,
    input_shape: Sequence[int] | None = None,
    audio: Mapping[str, Any] | None = None,
    task: str = "classification",
    loss: str | None = None,
    backbone: str = "float32",
    calibration: str | Path | None = None,
    device: str | None = None,
    memory_mb: float | None = None,
    force: bool = False,
    on_event: OnEvent = ignore,
) -> PrepareResult:
    """Load a pretrained classifier, give it a new head, cut it, and write everything a device needs.

    Args:
        source: `timm:NAME`, `torchvision:NAME[@WEIGHTS]`, `hf:ID_OR_DIR`, `FILE.py:callable` or
            `module:callable` returning an `nn.Module`, or a file `MODEL.onnx`, `PROGRAM.pt2` or
            `MODEL.keras`.
        out: the directory to write.
        labels: names of the classes, labels or numbers; or `labels_from`, data that name them (in a table
            the column `label_column`); or `classes`, how many there are. Exactly one of the three.
        weights: a `.safetensors` file, or a `.pt`/`.pth` state dict (read without executing pickle).
        model_args: keyword arguments for the function that makes the model.
        train: which share trains, united: `head`, `last:K`, `all`, `bias`, `norm`, or globs over
            parameter names. The new head always does.
        head: the classifier's name where the graph alone does not tell.
        append_head: the head is a new linear layer behind the network's output (`head`, if there are several),
            and replaces none. So it is, too, where no classifier is at the end and the output is a vector.
        preprocessing: fields of `edgetl.artifacts.Preprocessing` that replace the model's own, and
            `size` (pixels, or height and width) and `crop_pct` for convenience.
        modality: what a sample is: `image`, `audio` (a recording, of which the network gets a log-mel
            spectrogram), `text` (of which it gets token ids) or `array` (numbers of any shape); default
            `text` for a language model of `hf:`, else what the data of `labels_from` are, else `image`.
        max_length: most tokens of a text; default 128, or what the network takes.
        dynamic_length: whether texts keep their own length, where nothing before the boundary depends on
            it; else they are filled up.
        input_shape: of an array; default that of the samples of `labels_from`.
        audio: fields of `edgetl.artifacts.AudioPreprocessing` that replace its defaults.
        task: `classification` (each sample has one class), `multilabel` (any number of them) or
            `regression` (one or more numbers).
        loss: default cross-entropy, binary cross-entropy or mean squared error; `l1` for regression.
        backbone: `int8` quantises the frozen part before any training, so that the head is trained on just the
            features that the deployed backbone will give; with ranges from `calibration`, samples that need
            no labels (default `labels_from`).
        device: a profile (`edgetl.devices`) of what will train; what does not fit it is refused, and `train` may
            be `auto`, the largest share of the network that fits. Default for `auto`: this machine.
        memory_mb: what training may take there, 10^6 bytes, in place of the profile's.
        force: replace a prepared directory at `out`.

    Raises:
        EdgetlError: with one sentence for each thing a user can cause.
    """
    started = time.monotonic()
    _require_workstation()
    target = Path(out)
    loss = _loss(task, loss)
    check_choice("backbone precision", backbone, BACKBONE_PRECISIONS)
    calibration = calibration or labels_from
    if backbone == "int8" and calibration is None:
        raise EdgetlError("--backbone int8 takes the ranges of activations from samples: give --calibration DATA")
    profile = load_device(device or THIS) if device or memory_mb or tuple(train) == ("auto",) else None
    if profile is not None and memory_mb is not None:
        check_number("memory_mb", memory_mb)
        profile = replace(profile, training_memory_mb=memory_mb)
    names, count = _labels(task, labels, labels_from, label_column, classes, on_event)
    storage.refuse_existing(target, force=force, marker=MANIFEST)
    refuse_others(target)

    from edgetl.preparation import gradients, heads, share
    from edgetl.preparation.aside import set_aside, write_model
    from edgetl.preparation.audio import audio_preprocessing, build_audio
    from edgetl.preparation.memory import graph_memory
    from edgetl.preparation.preprocess import build_array, build_preprocess, build_unchanged
    from edgetl.preparation.sources import load_source, modality_of
    from edgetl.preparation.sources.assumed import settle

    data = kind_of(Path(labels_from), label_column) if labels_from is not None else Kind(None)
    asked, modality = modality, modality or _implied(input_shape, audio) or modality_of(source, data.modality)
    check_choice("modality", modality, MODALITIES)
    shapes: Sequence[Sequence[int] | None] = [input_shape]
    if modality == ARRAY and input_shape is None:
        shapes = data.shapes or [None]
    if data.modality not in (None, modality):
        how = "of networks for texts, hf:ID_OR_DIR can be prepared" if data.modality == TEXT else "let --modality agree"
        raise EdgetlError(f"{labels_from} holds {data.what}, but {source} is prepared for {Kind(modality).what}: {how}")
    if modality != TEXT and (max_length is not None or dynamic_length):
        raise EdgetlError("--max-length and --dynamic-length are of texts, and of no other modality")
    spectrogram = audio_preprocessing(audio or {}) if modality == AUDIO else None
    with storage.temporary_directory() as aside:
        on_event(Stage("loading and exporting"))
        load = partial(
            load_source,
            source,
            weights=weights,
            model_args=model_args or {},
            overrides=preprocessing or {},
            modality=modality,
            max_length=max_length,
            dynamic_length=dynamic_length,
            on_event=on_event,
            aside=aside,
        )
        loaded, taken = _first_that_loads(load, [_inputs(modality, shape, spectrogram) for shape in shapes])
        loaded = replace(loaded, model=set_aside(loaded.model, loaded.parameters, aside))
        gc.collect()  # torch's exporter leaves cycles that hold the network
        runtime.return_memory()
        if data.modality == modality and asked is None and modality in (ARRAY, AUDIO):
            how = _options(modality, taken[0].shape if modality == ARRAY and input_shape is None else None)
            on_event(Note(f"{labels_from} holds {data.what}, so the network is prepared with {how}"))
        if loaded.preprocessing is not None and not loaded.stated:
            pixels = settle(source, loaded.model, loaded.preprocessing, preprocessing or {}, on_event)
            loaded = replace(loaded, preprocessing=pixels)
        length = loaded.text.max_length if loaded.text is not None else 1
        on_event(Stage("cutting"))
        if not append_head and head is None and (name := heads.features_output(loaded.model)) is not None:
            append_head = True
            on_event(
                Note(f"no classifier is at the network's end: the head is a new linear layer on its output {name!r}")
            )
        give = heads.append_head if append_head else heads.replace_head
        network = give(loaded.model, count, loaded.parameters, head)
        if loaded.fit is not None:
            for text in loaded.fit.check({tensor.name for tensor in network.model.graph.initializer}, network.head):
                on_event(Note(text))
        if tuple(train) == (share.AUTO,):
            assert profile is not None, "it was asked for above"
            chosen = share.largest(network, loss, profile, device or THIS, length=length, on_event=on_event)
        else:
            chosen = share.cut(network, train, length=length)
        parts = chosen.parts
        if backbone == "int8" and parts.backbone is None:
            raise ModelError("nothing is frozen before the first layer that trains, so --backbone int8 has no backbone")

        with storage.directory_built_aside(target, force=force, marker=MANIFEST) as directory:
            entrance = parts.inputs[0]
            if loaded.preprocessing is not None:
                build_preprocess(loaded.preprocessing, entrance.name, directory / PREPROCESS)
            elif spectrogram is not None:
                build_audio(spectrogram, entrance.name, directory / PREPROCESS)
            elif loaded.text is not None:
                build_unchanged(loaded.text.inputs, [spec.name for spec in parts.inputs], directory / PREPROCESS)
                storage.write_text(directory / TOKENIZER, loaded.tokenizer)
            else:
                build_array(entrance.shape, entrance.name, directory / PREPROCESS)
            if parts.backbone is not None:
                frozen = parts.backbone
                if backbone == "int8":
                    on_event(Stage("quantising the backbone"))
                    wanted = Wanted(loaded.modality, task, shape=entrance.shape if loaded.modality == ARRAY else None)
                    samples = open_inputs(calibration or "", wanted)
                    frozen = _in_int8(frozen, parts, loaded, spectrogram, samples, directory, on_event)
                write_model(frozen, directory / BACKBONE)
            write_model(parts.trainable, directory / TRAINABLE)
            on_event(Stage("generating gradients"))
            optimizer = Optimizer()
            gradients.generate(parts.trainable, chosen.trainable, loss, optimizer, directory)
            steps = share.add_portable(parts, loss, optimizer, directory, on_event)
            files = sorted(file for file in directory.rglob("*") if file.is_file())
            manifest = Manifest(
                schema_version=SCHEMA_VERSION,
                edgetl_version=edgetl.__version__,
                source=loaded.source,
                task=task,
                labels=names,
                outputs=count,
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
                loss=loss,
                optimizer=optimizer,
                engines=tuple(steps),
                opset=defaults.OPSET,
                ir_version=defaults.IR_VERSION,
                audio=spectrogram,
                text=loaded.text,
                backbone_precision=backbone,
                backbone_memory=None if parts.backbone is None else graph_memory(parts.backbone, length=length),
                files={file.relative_to(directory).as_posix(): storage.sha256_file(file) for file in files},
            )
            save_manifest(directory, manifest)
            if profile is not None:
                planned = plan_for(Artifacts(directory, manifest, ""), profile, name=device or THIS)
                if not planned.fits:
                    raise DeviceError("; ".join(planned.problems))
            size = sum(file.stat().st_size for file in files)
            refuse_others(target)  # files may have come meanwhile
        return PrepareResult(
            artifacts=str(target),
            labels=names,
            task=task,
            loss=loss,
            outputs=count,
            features=parts.features,
            feature_kb_per_image=sum(spec.nbytes for spec in parts.features) / 1e3,
            trainable_parameters=sum(spec.elements for spec in parts.parameters),
            frozen_parameters=sum(spec.elements for spec in parts.frozen),
            backbone_macs=parts.backbone_macs,
            trainable_macs=parts.trainable_macs,
            modality=loaded.modality,
            preprocessing=loaded.preprocessing,
            audio=spectrogram,
            size_mb=size / 1e6,
            seconds=time.monotonic() - started,
            peak_rss_mb=runtime.peak_rss_mb(),
        )


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
    from edgetl.quantization import calibration, to_int8

    values = find_pixel_range(samples, threads=runtime.available_cores()) if loaded.modality == IMAGE else None
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
    check_choice("task", task, TASKS)
    if loss is not None and loss not in TASKS[task]:
        raise EdgetlError(f"{task} cannot be trained with the loss {loss!r}, only with {' or '.join(TASKS[task])}")
    return loss or TASKS[task][0]


def _labels(
    task: str,
    labels: Sequence[str] | None,
    labels_from: str | Path | None,
    label_column: Sequence[str],
    classes: int | None,
    on_event: OnEvent,
) -> tuple[tuple[str, ...], int]:
    given = [value is not None for value in (labels, labels_from, classes)]
    if sum(given) != 1:
        raise EdgetlError("give exactly one of --labels, --labels-from and --classes")
    if labels_from is not None:
        names = label_names(Path(labels_from), task, tuple(label_column), on_event)
    else:
        names = tuple(name.strip() for name in labels or ())
    if any(not name for name in names) or len(set(names)) != len(names):
        raise ModelError(f"--labels holds an empty or repeated name: {', '.join(names)}")
    count = classes if classes is not None else len(names)
    if count < (fewest := 2 if task == "classification" else 1):
        raise ModelError(f"{task} needs at least {fewest} {OUTPUTS_ARE[task]}, not {count}")
    return names, count


__all__ = ["PrepareResult", "prepare"]
