"""MODEL.keras: a Keras 3 model, on Keras' torch backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import nn

from edgetl.artifacts import Preprocessing
from edgetl.errors import ModelError, first_line
from edgetl.events import OnEvent, ignore
from edgetl.graph.batch import check_batch
from edgetl.graph.clean import clean
from edgetl.graph.layout import fold_views, simplify_layout
from edgetl.graph.simplify import simplify
from edgetl.preparation.sources.archive import refuse_bomb
from edgetl.preparation.sources.export import export
from edgetl.preparation.sources.float32 import TOLERANCE
from edgetl.preparation.sources.missing import lacking
from edgetl.preparation.sources.overrides import of_file
from edgetl.preparation.sources.quiet import quiet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# a model that begins with one of these takes pixels as they are
_SCALING = {"Rescaling", "Normalization", "TrueDivide", "Divide", "Subtract"}


def load(
    file: Path, overrides: Mapping[str, Any], on_event: OnEvent = ignore
) -> tuple[onnx.ModelProto, tuple[str, ...], Preprocessing]:
    """Read the model without executing code from it, and export it with channels first.

    Keras files record no preprocessing. A model that scales pixels itself gets them as they are
    (0..255), any other one values of -1..1, as Keras' MobileNetV2 takes them; pictures are squashed,
    as Keras' own data sets do it.

    Raises:
        ModelError: Keras is not installed, runs on another backend, or the file is no such model.
    """
    keras = _import_keras()
    try:
        refuse_bomb(file)
        with quiet(), keras.device("cpu"):
            model = keras.saving.load_model(file, safe_mode=True, compile=False)
            model.trainable = True
    except ModelError:
        raise
    except Exception as error:  # Keras raises whatever it stumbles over
        raise ModelError(f"{file} cannot be loaded by Keras {keras.__version__}: {first_line(error)}") from None
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ModelError(f"{file} takes {shape}, not one batch of pictures")
    last = shape[3] in (1, 3)
    height, width, channels = shape[1:] if last else (*shape[2:], shape[1])
    mean, std = (0.0, 1 / 255) if _first_layer(model) in _SCALING else (0.5, 0.5)
    count = channels or 3
    own = Preprocessing(channels=count, resize="squash", mean=(mean,) * count, std=(std,) * count)
    own = of_file(str(file), count, height or 0, width or 0, overrides, own)
    network = _Network(keras, model, last)
    exported, parameters = export(network, own.inputs, on_event)
    graph = fold_views(exported, {*network.trainable, *network.frozen})
    graph = clean(simplify(simplify_layout(graph), parameters))  # running statistics become constants
    narrow = model.dtype_policy.compute_dtype != "float32"
    tolerance = TOLERANCE if narrow else 1e-4
    check_batch(str(file), graph, 1, lambda feeds: network.scores(*feeds.values()), tolerance)
    left = {tensor.name for tensor in graph.graph.initializer}
    return graph, tuple(name for name in parameters if name in left), own


def _import_keras() -> Any:
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it once
    try:
        with quiet():
            keras: Any = import_module("keras")
        backend = keras.backend.backend()
    except ImportError as error:
        raise ModelError(lacking("a .keras file", "keras", error)) from None
    except AttributeError:  # of Keras 2
        raise ModelError(
            "a .keras file needs keras 3, and an older one is installed: pip install 'edgetl[zoo]'"
        ) from None
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
        else:
            os.environ["KERAS_BACKEND"] = before
    if backend != "torch":
        raise ModelError(f"keras runs on {backend} in this process already: import edgetl's preparation first")
    return keras


def _first_layer(model: Any) -> str:
    """Return the kind of the first layer that does something in use."""
    for layer in model.layers:
        kind = type(layer).__name__
        if kind != "InputLayer" and not kind.startswith("Random"):
            return _first_layer(layer) if getattr(layer, "layers", None) else kind
    return ""


class _Network(nn.Module):
    """A Keras model as a torch module with channels first, whose parameters bear their Keras paths.

    The model itself is not registered: it would hold its variables under names of its own.
    """

    def __init__(self, keras: Any, model: Any, last: bool) -> None:
        super().__init__()
        self._device = keras.device
        self._call = model.stateless_call
        self._last = last
        self.trainable = [self._keep(variable, True) for variable in model.trainable_variables]
        self.frozen = [self._keep(variable, False) for variable in model.non_trainable_variables]

    def _keep(self, variable: Any, trainable: bool) -> str:
        name = str(variable.path).replace(".", "_")
        value = variable.value.detach()
        if trainable:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)
        return name

    def scores(self, pictures: NDArray[np.float32]) -> NDArray[Any]:
        with torch.no_grad():
            result: NDArray[Any] = self(torch.from_numpy(pictures)).float().numpy()
        return result

    def forward(self, pictures: torch.Tensor) -> Any:
        trainable, frozen = ([getattr(self, name) for name in names] for names in (self.trainable, self.frozen))
        with self._device("cpu"):
            inputs = pictures.permute(0, 2, 3, 1) if self._last else pictures
            return self._call(trainable, frozen, inputs, training=False)[0]
