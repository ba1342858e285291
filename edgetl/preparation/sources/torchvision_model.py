"""torchvision:NAME or torchvision:NAME@WEIGHTS: a classifier of torchvision, with the transforms of its weights."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError, first_line
from edgetl.preparation.sources.hub import patience, unreachable
from edgetl.preparation.sources.missing import lacking
from edgetl.preparation.sources.quiet import quiet
from edgetl.preparation.sources.weights import Fit, put_weights, read_weights
from edgetl.suggest import did_you_mean

if TYPE_CHECKING:
    from torch import nn

# densenet's published weights have the names of an older release
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")


def load(
    spec: str, weights: str | Path | None, model_args: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[nn.Module, Preprocessing, Fit]:
    """Create the network, with published weights or those of a file.

    The preprocessing is that of the named weights, or else of the default ones, in both cases.

    Raises:
        ModelError: torchvision is not installed, does not know the name, or the weights cannot be had.
    """
    models = _import()
    name, _, member = spec.partition("@")
    if name not in (known := names()):
        raise ModelError(f"torchvision has no classifier {name!r}{did_you_mean(name, known)}")
    published = models.get_model_weights(name)
    if (member or "DEFAULT") not in published.__members__:
        raise ModelError(
            f"torchvision:{name} has no weights {member!r}: choose from {', '.join(published.__members__)}"
        )
    chosen = published[member or "DEFAULT"]
    try:
        module: nn.Module = models.get_model(name, weights=None, **{**_as_trained(name, chosen.meta), **model_args})
    except (TypeError, ValueError) as error:
        raise ModelError(f"torchvision cannot create {name!r} with these --model-arg: {error}") from None
    notes: tuple[str, ...] = ()
    if weights is not None:
        state, what, notes = read_weights(weights, module.state_dict())
    else:
        state, what = _download(name, chosen), f"torchvision:{name}@{chosen.name}"
    if name.startswith("densenet"):
        state = {_OLD_DENSENET.sub(r"\1\2.", key): value for key, value in state.items()}
    if name.startswith("mnasnet") and not hasattr(state, "_metadata"):
        # its loader asks which version wrote the weights, and safetensors cannot say
        state = OrderedDict(state)
        state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    return module, _preprocessing(chosen.transforms()), put_weights(module, state, what, notes)


def names() -> list[str]:
    """Return the classifiers that torchvision has; none where it is not installed."""
    try:
        models = _import()
    except ModelError:
        return []
    return list(models.list_models(module=models))


def _import() -> Any:
    try:
        return import_module("torchvision.models")
    except ImportError as error:
        raise ModelError(lacking("torchvision:", "torchvision", error)) from None
    except RuntimeError as error:
        raise ModelError(
            f"torchvision does not load ({first_line(error)}): torch and torchvision do not match, install matching "
            "releases"
        ) from None


def _as_trained(name: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that torchvision itself sets where it loads weights."""
    if name in ("googlenet", "inception_v3"):
        return {"transform_input": True, "aux_logits": True, "init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": meta["min_size"][0]}
    if name.startswith("maxvit"):
        return {"input_size": meta["min_size"]}
    return {}


def _download(name: str, weights: Any) -> dict[str, Any]:
    try:
        with patience(), quiet():
            state: dict[str, Any] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return state
    except Exception as error:  # whatever urllib raises without a network, or torch for a damaged file
        raise unreachable(f"the weights {weights.name} of torchvision:{name}", error) from None


def _preprocessing(preset: Any) -> Preprocessing:
    """Translate torchvision's `ImageClassification` preset."""
    height, width = (*preset.crop_size, *preset.crop_size)[:2]
    return Preprocessing(
        height=height,
        width=width,
        resize_size=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(map(float, preset.mean)),
        std=tuple(map(float, preset.std)),
    )
