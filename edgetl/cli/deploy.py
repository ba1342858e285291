"""The command that writes the deployed file."""

from __future__ import annotations

from typing import Any

import click

from edgetl import choices, defaults
from edgetl.cli.options import json_option, threads_option
from edgetl.cli.reporting import finish, reporting
from edgetl.figures import figure, shown


@click.command()
@click.argument("run", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="ONNX file to write.")
@click.option(
    "--artifacts",
    type=click.Path(),
    metavar="DIR",
    help="Where the prepared directory lies now.  [default: where it lay during training]",
)
@click.option(
    "--precision",
    type=click.Choice(choices.PRECISIONS),
    default="float32",
    show_default=True,
    help="int8 quantises weights and activations, by the run's training samples; float16 halves the file.",
)
@click.option("--quantize-head", is_flag=True, help="Of --precision int8: quantise the classifier, too.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=defaults.MAX_DROP,
    show_default=True,
    metavar="POINTS",
    help="What the validation figure may lose by less precision; a file that loses more is not written.",
)
@click.option(
    "--input",
    type=click.Choice(choices.INPUTS),
    default="raw",
    show_default=True,
    help="One sample as it comes, or a batch of preprocessed tensors.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", help="Of --input tensor: a batch of just N.  [default: any]"
)
@click.option(
    "--format",
    type=click.Choice(choices.FORMATS),
    help="onnx, or ort for ONNX Runtime Mobile.  [default: by the ending of --out]",
)
@threads_option
@json_option
def deploy(run: str, as_json: bool, **options: Any) -> None:
    """Write RUN's best model as one ONNX file, from a sample to its probabilities or numbers, and verify it."""
    with reporting(as_json) as display:
        import edgetl

        result = edgetl.deploy(run, on_event=display, **options)
    name, value = next(iter(result.figures.items()))
    verified = f"  verified on {result.verified_samples} samples: {figure(name, value)}"
    if result.figures_before[name] != value:
        verified += f" ({shown(name, result.figures_before[name])} before)"
    form = f"opset {result.opset}, IR {result.ir_version}" if result.format == "onnx" else "format ort"
    precision = result.precision
    if result.backbone_precision != "float32":
        precision += f" behind a backbone in {result.backbone_precision}"
    finish(
        as_json,
        result,
        f"{result.model} is ready: {result.size_mb:.1f} MB, {precision}, {form}",
        f"{verified}, logits differ by {result.largest_difference:.1e} at most",
        f"next: edgetl predict {result.model} INPUT",
    )
