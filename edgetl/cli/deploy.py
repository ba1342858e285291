"""The command that writes the deployed file."""

from __future__ import annotations

from typing import Any

import click

from edgetl.cli.options import (
    json_option,
    threads_option,
)
from edgetl.cli.reporting import finish, reporting
from edgetl.figures import figure


@click.command()
@click.argument("run", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="ONNX file to write.")
@click.option(
    "--artifacts",
    type=click.Path(),
    metavar="DIR",
    help="Where the prepared directory lies now.  [default: where it lay during training]",
)
@threads_option
@json_option
def deploy(run: str, as_json: bool, **options: Any) -> None:
    """Write RUN's best model as one ONNX file, from a sample to its probabilities or numbers, and verify it."""
    with reporting(as_json) as display:
        import edgetl

        result = edgetl.deploy(run, on_event=display, **options)
    finish(
        as_json,
        result,
        f"{result.model} is ready: {result.size_mb:.1f} MB, opset {result.opset}, IR {result.ir_version}",
        f"  verified on {result.verified_samples} samples: logits differ by {result.largest_difference:.1e} at most, "
        + ", ".join(figure(name, value) for name, value in list(result.figures.items())[:1]),
        f"next: edgetl predict {result.model} INPUT",
    )
