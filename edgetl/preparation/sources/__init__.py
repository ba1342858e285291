"""From a name, a Python function or a file to a classifier graph and its preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.artifacts import Preprocessing, Source
from edgetl.errors import ModelError
from edgetl.storage import sha256_file

if TYPE_CHECKING:
    import onnx

# each in a module of its own here, imported when it is asked for
_LIBRARIES = {"timm": "timm_model", "torchvision": "torchvision_model", "hf": "transformers_model"}
_FILES = {".onnx": "onnx_file", ".pt2": "program_file", ".keras": "keras_file"}
_FUNCTION = "factory"


@dataclass(frozen=True)
class LoadedModel:
    """A pretrained classifier as a graph `[batch, C, H, W]` float32 → scores, and how pictures enter it.

    Attributes:
        parameters: the names of the initializers that could train, in the source's order.
    """

    model: onnx.ModelProto
    parameters: tuple[str, ...]
    preprocessing: Preprocessing
    source: Source


def load_source(
    spec: str, *, weights: str | Path | None, model_args: Mapping[str, Any], overrides: Mapping[str, Any]
) -> LoadedModel:
    """Load the model that `spec` names; see `edgetl.prepare` for the forms.

    Raises:
        ModelError: it cannot be found, loaded or exported.
    """
    if weights is not None and not Path(weights).is_file():
        raise ModelError(f"--weights {weights} does not exist")
    source = Source(
        spec=spec,
        weights_sha256=sha256_file(Path(weights)) if weights is not None else None,
        model_args={key: repr(value) for key, value in model_args.items()} or None,
    )
    prefix, colon, name = spec.partition(":")
    file = Path(spec)
    if colon and prefix in _LIBRARIES:
        module, own = _implementation(_LIBRARIES[prefix]).load(name, weights, model_args)
    elif file.suffix in _FILES:
        if weights is not None or model_args:
            raise ModelError(f"--weights and --model-arg do not go with {spec}, which holds its own weights")
        if not file.is_file():
            raise ModelError(f"{spec} does not exist")
        model, parameters, own = _implementation(_FILES[file.suffix]).load(file, overrides)
        return LoadedModel(model, parameters, own, replace(source, weights_sha256=sha256_file(file)))
    elif colon:
        module, own = _implementation(_FUNCTION).load(spec, weights, model_args)
    else:
        raise ModelError(
            f"{spec!r} is no model source: give timm:NAME, torchvision:NAME, hf:ID_OR_DIR, FILE.py:callable, "
            "module:callable, or a file MODEL.onnx, PROGRAM.pt2 or MODEL.keras"
        )
    from edgetl.preparation.sources.export import export
    from edgetl.preparation.sources.overrides import apply_overrides

    own = apply_overrides(own, overrides)
    model, parameters = export(module, own)
    return LoadedModel(model, parameters, own, source)


def _implementation(name: str) -> Any:
    return import_module(f"edgetl.preparation.sources.{name}")
