"""FILE.py:callable or module:callable: a Python function that returns a network."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError
from edgetl.files.kinds import NETWORK, mistaken
from edgetl.preparation.sources import timm_model, torchvision_model
from edgetl.preparation.sources.overrides import unknown
from edgetl.preparation.sources.weights import Fit, load_weights
from edgetl.suggest import did_you_mean, similar

_ZOOS = {"timm": timm_model.names, "torchvision": torchvision_model.names}
"""Libraries that tell the names of their networks, and how."""
_FORMS = "give FILE.py:callable, timm:NAME, torchvision:NAME or hf:ID_OR_DIR"


def load(
    spec: str, weights: str | Path | None, model_args: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[nn.Module, Preprocessing, Fit | None]:
    """Call the function and take the network it returns.

    The preprocessing is the network's `pretrained_cfg` if it has one (as timm's networks do), else
    224×224 with ImageNet's mean and standard deviation, or 0.5 and 0.5 for a one-channel network.

    Raises:
        ModelError: it cannot be imported, called, or returns something else.
    """
    where, _, name = spec.rpartition(":")
    module = _import(where, name)
    function = getattr(module, name, None)
    if not callable(function):
        functions = [item for item, value in vars(module).items() if callable(value) and not item.startswith("_")]
        own = [item for item in functions if getattr(vars(module)[item], "__module__", "") == module.__name__]
        choice = f": choose from {', '.join(own[:8])}" if own else ""
        hint = did_you_mean(name, functions) or _library(where, name) or choice
        raise ModelError(f"{where} has no function {name!r}{hint}")
    try:
        network = function(**model_args)
    except Exception as error:
        raise ModelError(f"{spec} failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"{spec} returned a {type(network).__name__}, not a torch.nn.Module")
    fit = load_weights(network, weights) if weights is not None else None
    return network, _preprocessing(network), fit


def _library(where: str, name: str) -> str:
    """Return `; did you mean 'timm:NAME'?` where a library was meant: by its name, or by one of its networks'."""
    prefix = where.strip()
    found = [f"{library}:{name.strip()}" for library in similar(prefix, (*_ZOOS, "hf"))]
    found = found or [f"{library}:{name}" for library, names in _ZOOS.items() if name in names()]
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def _import(where: str, name: str) -> ModuleType:
    """Import a module or a file; `name` is that of the function, for the advice."""
    top = where.strip().partition(".")[0]
    if top in sys.stdlib_module_names and not (Path(f"{top}.py").exists() or Path(top).is_dir()):
        hint = _library(where, name) or f": {_FORMS}"
        raise ModelError(f"{where} is a module of Python itself, which has no networks{hint}")
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        file = Path(where).resolve()
        if not file.is_file():
            raise ModelError(mistaken(where, NETWORK))
        found = importlib.util.spec_from_file_location(f"edgetl_source_{file.stem}", file)
        if found is None or found.loader is None:
            raise ModelError(f"{where} is not a Python file")
        module = importlib.util.module_from_spec(found)
        sys.modules[found.name] = module
        sys.path.insert(0, str(file.parent))
        try:
            found.loader.exec_module(module)
        finally:
            sys.path.remove(str(file.parent))
        return module
    except ModelError:
        raise
    except ModuleNotFoundError as error:
        if where.endswith(".py") or error.name != where.partition(".")[0]:
            raise ModelError(f"{where} cannot be imported: it needs {error.name}, which is not installed") from None
        raise ModelError(f"there is no module {where}{_library(where, name) or ': ' + _FORMS}") from None
    except Exception as error:
        raise ModelError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error


def _preprocessing(network: nn.Module) -> Preprocessing:
    config = getattr(network, "pretrained_cfg", None)
    if isinstance(config, Mapping) and "input_size" in config:
        return timm_model.preprocessing_of(config)
    layers = (layer.in_channels for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return unknown(next(layers, 3))
