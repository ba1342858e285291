"""From a name, a Python function or a file to a classifier graph and its preprocessing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.artifacts import Preprocessing, Source, TensorSpec, TextPreprocessing
from edgetl.errors import ModelError, one_sentence
from edgetl.events import OnEvent, ignore
from edgetl.kinds import NETWORK, WEIGHTS, mistaken
from edgetl.runtime import lacks_memory
from edgetl.seal import is_sealed_model
from edgetl.storage import sha256_file
from edgetl.suggest import similar

if TYPE_CHECKING:
    import onnx

    from edgetl.preparation.sources.weights import Fit

# each in a module of its own here, imported when it is asked for
_LIBRARIES = {"timm": "timm_model", "torchvision": "torchvision_model", "hf": "transformers_model"}
_FILES = {".onnx": "onnx_file", ".pt2": "program_file", ".keras": "keras_file"}
_FUNCTION = "factory"


@dataclass(frozen=True)
class LoadedModel:
    """A pretrained classifier as a graph → scores, and how samples enter it.

    Attributes:
        model: its inputs are those of a batch of samples, `[batch, C, H, W]` float32 for pictures.
        parameters: the names of the initializers that could train, in the source's order.
        modality: as in `edgetl.artifacts.Manifest`.
        preprocessing: of pictures; None for other modalities.
        text, tokenizer: of texts, and the content of `tokenizer.json`; None and empty for others.
        fit: how weights from elsewhere fit the network; None where it brings its own.
        stated: whether the source says how it takes pictures; else the preprocessing is assumed.
    """

    model: onnx.ModelProto
    parameters: tuple[str, ...]
    source: Source
    modality: str = "image"
    preprocessing: Preprocessing | None = None
    text: TextPreprocessing | None = None
    tokenizer: str = ""
    fit: Fit | None = None
    stated: bool = True

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the network takes for one sample."""
        from edgetl.preparation.graph import graph_inputs

        return graph_inputs(self.model.graph)


def load_source(
    spec: str,
    *,
    weights: str | Path | None,
    model_args: Mapping[str, Any],
    overrides: Mapping[str, Any],
    modality: str = "image",
    inputs: Sequence[TensorSpec] = (),
    max_length: int | None = None,
    dynamic_length: bool = False,
    on_event: OnEvent = ignore,
    aside: Path | None = None,
) -> LoadedModel:
    """Load the model that `spec` names; see `edgetl.prepare` for the forms.

    Args:
        inputs: what the network takes for one sample, in order, where that is no picture; of Python
            functions and ONNX files only. The graph's inputs keep names of their own.
        max_length, dynamic_length: of texts, see `edgetl.prepare`.
        aside: a directory for large weights, to which the graph then only points (see `edgetl.preparation.aside`).

    Raises:
        ModelError: it cannot be found, loaded or exported.
    """
    if weights is not None and not Path(weights).is_file():
        raise ModelError(f"--weights {mistaken(weights, WEIGHTS)}")
    source = Source(
        spec=spec,
        weights_sha256=sha256_file(Path(weights)) if weights is not None else None,
        model_args={key: repr(value) for key, value in model_args.items()} or None,
    )
    prefix, colon, name = spec.partition(":")
    file = Path(spec)
    # spectrograms are pictures to the networks that timm and torchvision have
    takes_pictures = prefix in _LIBRARIES and not (modality == "audio" and prefix != "hf")
    if inputs and (takes_pictures or file.suffix in {".pt2", ".keras"}):
        raise ModelError(f"{spec} takes pictures: give FILE.py:callable or MODEL.onnx for inputs of another shape")
    refusals = _refusals(spec)
    if modality == "text":
        if prefix != "hf" or overrides.keys() - {k for k, v in overrides.items() if v is None}:
            raise ModelError(f"{spec} as a text model: give hf:ID_OR_DIR, and no options for pictures")
        text_model = _implementation("text_model")
        with refusals:
            model, parameters, text, tokenizer, fit = text_model.load(
                name, weights, model_args, max_length=max_length, dynamic_length=dynamic_length, aside=aside
            )
        return LoadedModel(model, parameters, source, modality, text=text, tokenizer=tokenizer, fit=fit)
    if colon and prefix in _LIBRARIES:
        with refusals:
            module, own, fit = _implementation(_LIBRARIES[prefix]).load(name, weights, model_args, overrides)
    elif file.suffix in _FILES:
        if weights is not None or model_args:
            raise ModelError(f"--weights and --model-arg do not go with {spec}, which holds its own weights")
        if not file.is_file() or is_sealed_model(file):
            raise ModelError(mistaken(file, NETWORK))
        source = replace(source, weights_sha256=sha256_file(file))
        with refusals:
            if inputs:
                model, parameters = _implementation(_FILES[file.suffix]).load_with_inputs(file, inputs, on_event)
                return LoadedModel(model, parameters, source, modality)
            model, parameters, own = _implementation(_FILES[file.suffix]).load(file, overrides, on_event)
        return LoadedModel(model, parameters, source, modality, own, stated=False)
    elif colon:
        module, own, fit = _implementation(_FUNCTION).load(spec, weights, model_args, overrides)
    else:
        raise ModelError(_no_source(spec))
    from edgetl.preparation.sources.channels import picture_channels
    from edgetl.preparation.sources.export import export
    from edgetl.preparation.sources.overrides import apply_overrides, with_channels

    if inputs:
        model, parameters = export(module, inputs, on_event, aside)
        return LoadedModel(model, parameters, source, modality, fit=fit)
    # asked for or not, what the network itself takes is known
    channels = picture_channels(module, apply_overrides(own, {"size": overrides.get("size")}))
    own = apply_overrides(with_channels(own, channels), overrides)
    model, parameters = export(module, own.inputs, on_event, aside)
    config = getattr(module, "pretrained_cfg", None)
    stated = prefix in _LIBRARIES or (isinstance(config, Mapping) and "input_size" in config)
    return LoadedModel(model, parameters, source, modality, own, fit=fit, stated=stated)


@contextlib.contextmanager
def _refusals(spec: str) -> Iterator[None]:
    """Let the block end in success or in one of our errors, which tells a lack of memory from damage."""
    try:
        with one_sentence(ModelError, f"{spec} cannot be used, it may be damaged"):
            yield
    except ModelError as error:
        if lacks_memory(error.__cause__):
            raise ModelError(f"{spec} needs more memory than there is: prepare it on a larger machine") from None
        raise


def modality_of(spec: str, of_data: str | None = None) -> str:
    """Return what a model takes: `text`, if Transformers' record of it says so, or else what the samples of data are.

    Raises:
        ModelError: the record cannot be had.
    """
    prefix, _, name = spec.partition(":")
    if prefix == "hf":
        return "text" if _implementation("text_model").is_text_model(name) else "image"
    return of_data if of_data in ("audio", "array") else "image"


def _no_source(spec: str) -> str:
    """Return the sentence for what is none of the forms: a path to something else, or a name without its library."""
    if Path(spec).exists():
        return mistaken(spec, NETWORK)
    name = Path(spec).name
    zoos = {prefix: _implementation(_LIBRARIES[prefix]).names() for prefix in ("timm", "torchvision")}
    if found := [f"{prefix}:{item}" for prefix, names in zoos.items() for item in similar(name, names)]:
        return f"{spec!r} names no source; did you mean {' or '.join(map(repr, found[:4]))}?"
    return mistaken(spec, NETWORK)


def _implementation(name: str) -> Any:
    return import_module(f"edgetl.preparation.sources.{name}")
