"""The command that makes a prepared directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgetl.cli.options import Sections, json_option, options_of
from edgetl.cli.reporting import finish, reporting
from edgetl.declaration import declarations
from edgetl.errors import command
from edgetl.preparation.settings import PrepareSettings, PreprocessingSettings

_PREPROCESSING = tuple(field.name for field, _ in declarations(PreprocessingSettings))


@click.command(cls=Sections)
@click.argument("source")
@options_of(PrepareSettings)
@options_of(PreprocessingSettings)
@json_option
def prepare(source: str, as_json: bool, **options: Any) -> None:
    """Make a trainable directory from a pretrained classifier (needs PyTorch).

    SOURCE is timm:NAME, torchvision:NAME[@WEIGHTS], hf:ID_OR_DIR, FILE.py:callable or
    module:callable returning an nn.Module, or a file MODEL.onnx, PROGRAM.pt2 or MODEL.keras.
    """
    if sum(options[name] is not None for name in ("labels", "labels_from", "classes")) != 1:
        raise click.UsageError("Give exactly one of --labels, --labels-from and --classes.")
    arguments = as_arguments(options)

    with reporting(as_json) as display:
        import edgetl
        from edgetl.tasks.targets import OUTPUTS_ARE

        result = edgetl.prepare(source, on_event=display, **arguments)
    shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in result.features)
    finish(
        as_json,
        result,
        f"{result.artifacts} is ready: {result.outputs} {OUTPUTS_ARE[result.task]}, "
        f"{result.size_mb:.1f} MB, in {result.seconds:.0f} s",
        f"  trains {result.trainable_parameters:,} parameters; {result.frozen_parameters:,} are frozen",
        f"  {result.trainable_macs / 1e6:,.1f} million multiply-accumulates behind the boundary, "
        f"{result.backbone_macs / 1e6:,.1f} before it",
        f"  features per sample: {shapes} ({result.feature_kb_per_image:.1f} kB)",
        f"next: {command('finetune', result.artifacts, 'DATA', '--out', f'runs/{Path(result.artifacts).name}')}",
    )


def as_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of `prepare` by name, all or some, as arguments of the function; others stay as they are."""
    arguments = {name: value for name, value in options.items() if name not in _PREPROCESSING}
    preprocessing = {name: options[name] for name in _PREPROCESSING if name in options}
    return {**arguments, "preprocessing": preprocessing} if preprocessing else arguments
