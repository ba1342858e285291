"""torchvision:NAME or torchvision:NAME@WEIGHTS: a classifier of torchvision, with the transforms of its weights."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.preparation.sources.weights import Fit, put_weights, read_weights

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
    try:
        from torchvision import models
    except ImportError as error:
        raise ModelError(f"torchvision is not installed ({error}): pip install 'edgetl[zoo]'") from None
    except RuntimeError as error:
        raise ModelError(
            f"torchvision does not load ({error}): torch and torchvision do not match, install matching releases"
        ) from None
    name, _, member = spec.partition("@")
    known = models.list_models(module=models)
    if name not in known:
        similar = [item for item in known if item.startswith(name[:4])][:8]
        hint = f"; similar names: {', '.join(similar)}" if similar else ""
        raise ModelError(f"torchvision has no classifier {name!r}{hint}")
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
        state: dict[str, Any] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return state
    except Exception as error:  # whatever urllib raises without a network, or torch for a damaged file
        raise ModelError(
            f"the weights {weights.name} of torchvision:{name} cannot be downloaded ({type(error).__name__}): "
            "give a file with --weights, or go online"
        ) from None


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
