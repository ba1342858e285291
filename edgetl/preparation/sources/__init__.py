"""From a name, a Python function or a file to a classifier graph and its preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.artifacts import Preprocessing, Source
from edgetl.errors import ModelError
from edgetl.storage import sha256_file

if TYPE_CHECKING:
    import onnx


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
    if spec.endswith(".onnx"):
        if weights is not None or model_args:
            raise ModelError("--weights and --model-arg do not go with an ONNX file, which holds its own weights")
        from edgetl.preparation.sources.onnx_file import load_onnx

        file = Path(spec)
        model, parameters, own = load_onnx(file, overrides)
        source = replace(source, weights_sha256=sha256_file(file))
    else:
        from edgetl.preparation.sources import factory, timm_model
        from edgetl.preparation.sources.export import export

        if spec.startswith("timm:"):
            module, own = timm_model.load(spec.removeprefix("timm:"), weights, model_args)
        elif ":" in spec:
            module, own = factory.load(spec, weights, model_args)
        else:
            raise ModelError(
                f"{spec!r} is no model source: give timm:NAME, FILE.py:callable, module:callable or MODEL.onnx"
            )
        own = apply_overrides(own, overrides)
        model, parameters = export(module, own)
    return LoadedModel(model, parameters, own, source)


def apply_overrides(own: Preprocessing, overrides: Mapping[str, Any]) -> Preprocessing:
    """Return the model's own preprocessing with the given fields replaced.

    `size` (one number or height and width) sets the input size and keeps the ratio of the resize;
    `crop_pct` sets that ratio. A single mean or standard deviation serves every channel.

    Raises:
        ModelError: a field is not known, or its value makes no sense.
    """
    values = {key: value for key, value in overrides.items() if value is not None}
    known = {field.name for field in fields(Preprocessing)} | {"size", "crop_pct"}
    if foreign := set(values) - known:
        raise ModelError(
            f"preprocessing has no field {', '.join(sorted(foreign))}: choose from {', '.join(sorted(known))}"
        )
    ratio = own.resize_size / max(own.height, own.width)
    if (size := values.pop("size", None)) is not None:
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            raise ModelError(f"the input size must be positive, not {height}×{width}")
        own = replace(own, height=height, width=width, resize_size=round(max(height, width) * ratio))
    if (crop_pct := values.pop("crop_pct", None)) is not None:
        if not 0 < crop_pct <= 1:
            raise ModelError(f"the crop percentage must lie in (0, 1], not {crop_pct}")
        own = replace(own, resize_size=int(max(own.height, own.width) / crop_pct))
    own = replace(own, **values)
    mean, std = (value * own.channels if len(value) == 1 else value for value in (own.mean, own.std))
    if any(not value > 0 for value in std):
        raise ModelError(f"standard deviations must be positive, not {list(std)}")
    return replace(own, mean=tuple(mean), std=tuple(std))
